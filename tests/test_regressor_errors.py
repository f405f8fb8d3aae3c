"""What a regressor's word is worth: its errors as they are measured and kept, and its word beside landmarks."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest

from facegcn import fitting
from facegcn.assets import regressor_errors
from facegcn.config import Config
from facegcn.errors import UserError
from facegcn.fitting import CoefficientFitter, RegressorErrors
from facegcn.landmark_fitting import POSE_PRIOR, LandmarkFit, parameter_columns
from facegcn.landmarks import landmark_targets
from facegcn.portraits.maker import PortraitMaker, Stream
from tests.faces import half_ellipsoid
from tests.test_photometric_fitting import LIGHT, faces, photos, pixel_errors

SHAPE, POSE = 10, 6  # unknowns of the small model
UNKNOWNS = SHAPE + POSE
PRIOR = np.diag(np.concatenate([np.ones(SHAPE), POSE_PRIOR ** -2]))


@pytest.fixture(scope="module")
def model():
    return half_ellipsoid()


# ---------------------------------------------------------------- the word beside landmarks
def joined(model, errors, means, precisions, words, fitted=True):
    """Parameters and precisions of landmark fits with such means and precisions after they are joined with words."""
    batch = len(means)
    found = LandmarkFit(np.array(means), np.array(precisions), np.where(fitted, np.ones(batch), np.nan), np.ones(batch),
                        np.ones((batch, 73)), np.ones(batch, int), np.ones(batch, bool), model.part_sizes[:2])
    before = found.parameters.copy(), found.precision.copy()
    after = CoefficientFitter(model, LIGHT, errors)._with_regressor(found, np.array(words))
    np.testing.assert_array_equal(found.parameters, before[0])
    np.testing.assert_array_equal(found.precision, before[1])
    np.testing.assert_array_equal(after.residual, found.residual)
    return after.parameters, after.precision


def measured(rng, truth, rows, noise):
    """Scaled rows (rows, D) and values (rows,) of linear measurements of the truth, of deviation 1."""
    rows = rng.normal(size=(rows, UNKNOWNS)) / noise
    return rows, rows @ truth + 0.3 * rng.normal(size=len(rows))


def posterior(*measurements):
    """Mean and precision after measurements, the prior being one of them."""
    rows = np.concatenate([np.sqrt(PRIOR), *(rows for rows, _ in measurements)])
    values = np.concatenate([np.zeros(UNKNOWNS), *(values for _, values in measurements)])
    return np.linalg.lstsq(rows, values, rcond=None)[0], rows.T @ rows


@pytest.mark.parametrize("factor", [1.0, 2.0, 5.0])
def test_joined_is_what_all_measurements_give_in_one_least_squares_problem(model, monkeypatch, factor):
    """Of landmarks and of the regressor, whose measurements count less by the factor; the prior counts once."""
    monkeypatch.setattr(fitting, "PHOTOS_ARE_OTHER", factor)
    for seed in range(4):
        rng = np.random.default_rng(seed)
        truth, bias = rng.normal(size=UNKNOWNS) * 0.3, rng.normal(size=UNKNOWNS)
        points, picture = measured(rng, truth, 12, 0.7), measured(rng, truth, 14, 1.5)
        mean, precision = posterior(points)
        word, information = posterior(picture)
        errors = RegressorErrors(bias, np.linalg.inv(information))
        assert CoefficientFitter(model, LIGHT, errors)._contradiction(mean, precision, word) == 1.0
        (found,), (known,) = joined(model, errors, [mean], [precision], [word - bias])
        wanted, wanted_precision = posterior(points, [part / np.sqrt(factor) for part in picture])
        np.testing.assert_allclose(known, wanted_precision, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-8)


def certain(deviation):
    """A landmark fit's mean and precision: all unknowns known to such a deviation."""
    return np.linspace(-0.5, 0.5, UNKNOWNS), np.eye(UNKNOWNS) / deviation ** 2


def test_who_says_no_more_than_the_prior_or_is_far_off_changes_nothing(model):
    mean, precision = certain(0.01)
    nothing = RegressorErrors(np.zeros(UNKNOWNS), np.linalg.inv(PRIOR))
    (found,), (known,) = joined(model, nothing, [mean], [precision], [np.zeros(UNKNOWNS)])
    np.testing.assert_allclose(found, mean, atol=1e-12)
    np.testing.assert_allclose(known, precision, rtol=1e-12)
    lost = RegressorErrors(np.zeros(UNKNOWNS), 1e8 * np.eye(UNKNOWNS))
    (found,), (known,) = joined(model, lost, [mean], [precision], [np.full(UNKNOWNS, 30.0)])
    np.testing.assert_allclose(found, mean, atol=1e-3)
    np.testing.assert_allclose(known, precision, rtol=1e-3, atol=1e-3)


def test_who_is_never_off_is_believed(model):
    mean, precision = certain(0.1)
    word = mean + 0.05
    word[:SHAPE] += 2.0  # shapes do not tell whether the same face is meant
    sure = RegressorErrors(np.full(UNKNOWNS, 0.25), 1e-12 * np.eye(UNKNOWNS))
    (found,), (known,) = joined(model, sure, [mean], [precision], [word - 0.25])
    np.testing.assert_allclose(found, word, atol=1e-8)
    assert np.linalg.eigvalsh(known).min() > 1e11


@pytest.mark.parametrize(("deviations", "loss"), [(0.5, 1.0), (1.0, 1.0), (2.0, 4.0), (10.0, 100.0)])
def test_a_contradicted_pose_is_trusted_less_by_the_square_of_the_contradiction(model, deviations, loss):
    mean, precision = certain(0.1)
    errors = RegressorErrors(np.zeros(UNKNOWNS), np.diag(np.linspace(0.01, 0.04, UNKNOWNS)))
    expected = np.sqrt(fitting.PHOTOS_ARE_OTHER * np.diag(errors.covariance) + 0.1 ** 2)
    word = mean.copy()
    word[SHAPE:] += deviations * expected[SHAPE:] * (1, -1, 1, 1, -1, -1)
    word[:SHAPE] += 7.0
    (found,), (known,) = joined(model, errors, [mean], [precision], [word])
    gain = (np.linalg.inv(errors.covariance) - PRIOR) / (fitting.PHOTOS_ARE_OTHER * loss)
    np.testing.assert_allclose(known - precision, gain, rtol=1e-6, atol=1e-8)
    assert (np.abs(found - mean) < np.abs(word - mean)).all()


def test_without_landmarks_the_word_alone_counts_as_far_as_it_is_known(model):
    word = np.linspace(-1.0, 1.0, UNKNOWNS)
    errors = RegressorErrors(np.full(UNKNOWNS, 0.1), 0.04 * np.eye(UNKNOWNS))
    fits = [np.zeros(UNKNOWNS)] * 2, [PRIOR] * 2
    found, known = joined(model, errors, *fits, [word, word], fitted=[False, True])
    wanted = PRIOR + (25.0 * np.eye(UNKNOWNS) - PRIOR) / fitting.PHOTOS_ARE_OTHER
    np.testing.assert_allclose(known[0], wanted, atol=1e-9)
    np.testing.assert_allclose(found[0], np.linalg.solve(wanted, 25.0 / fitting.PHOTOS_ARE_OTHER * (word + 0.1)))
    found, known = joined(model, None, *fits, [word, word], fitted=[False, True])
    np.testing.assert_array_equal(found, [word, np.zeros(UNKNOWNS)])
    assert np.linalg.eigvalsh(known[0]).min() > 1e7
    np.testing.assert_array_equal(known[1], PRIOR)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("known", [False, True])
def test_a_word_that_is_not_finite_is_not_heard(model, known, value):
    errors = RegressorErrors(np.zeros(UNKNOWNS), 0.04 * np.eye(UNKNOWNS)) if known else None
    mean, precision = certain(0.1)
    words = np.full((3, UNKNOWNS), 0.2)
    words[0, 3] = words[1, -1] = value
    means, precisions = [mean, 0 * mean, mean], [precision, PRIOR, precision]
    found, joint = joined(model, errors, means, precisions, words, fitted=[True, False, True])
    np.testing.assert_array_equal(found[:2], means[:2])
    np.testing.assert_array_equal(joint[:2], precisions[:2])
    (alone,), _ = joined(model, errors, means[2:], precisions[2:], words[2:])
    np.testing.assert_array_equal(found[2], alone)


def test_errors_that_are_none_and_of_another_model_are_refused(model):
    bias, covariance = np.zeros(UNKNOWNS), np.eye(UNKNOWNS)
    for wrong, words in ((np.eye(3), "need a covariance"), (covariance * np.nan, "not finite"),
                         (np.ones((UNKNOWNS, UNKNOWNS)), "not positive definite"), (-covariance, "positive definite")):
        with pytest.raises(ValueError, match=words):
            RegressorErrors(bias, wrong)
    with pytest.raises(ValueError, match="not finite"):
        RegressorErrors(bias + np.inf, covariance)
    with pytest.raises(ValueError, match="errors of 3 unknowns, the model has 16"):
        CoefficientFitter(model, LIGHT, RegressorErrors(bias[:3], np.eye(3)))


def test_errors_in_single_precision_are_computed_with_in_double(model):
    """Those that go together, as of size and distance, leave a covariance that is nearly singular."""
    rng = np.random.default_rng(3)
    spread = rng.normal(size=(UNKNOWNS, 3))
    single = RegressorErrors(rng.normal(size=UNKNOWNS).astype(np.float32),
                             (spread @ spread.T + 1e-4 * np.eye(UNKNOWNS)).astype(np.float32))
    double = RegressorErrors(single.bias.astype(np.float64), single.covariance.astype(np.float64))
    mean, precision = certain(0.1)
    (found,), (known,) = joined(model, single, [mean], [precision], [mean - single.bias + 0.01])
    (wanted,), (wanted_precision,) = joined(model, double, [mean], [precision], [mean - single.bias + 0.01])
    np.testing.assert_allclose(found, wanted, rtol=1e-9)
    np.testing.assert_allclose(known, wanted_precision, rtol=1e-9, atol=1e-6)


# ---------------------------------------------------------------- photos
@pytest.fixture(scope="module")
def seen():
    """A model, a face's coefficients (1, K), its photo, and what a regressor says of it, with its errors."""
    model = half_ellipsoid(25, 31)
    coeff, rng = faces(model, 1), np.random.default_rng(6)
    covariance = np.diag(np.repeat((0.36, 0.02 ** 2, 0.02 ** 2), (SHAPE, 3, 3)))
    bias = np.repeat((0.3, 0.05), (SHAPE, POSE))
    word = np.zeros_like(coeff)
    columns = parameter_columns(model)
    word[:, columns] = coeff[:, columns] - bias - rng.multivariate_normal(np.zeros(UNKNOWNS), covariance)
    return model, coeff, photos(model, coeff), word, RegressorErrors(bias, covariance)


NO_TARGETS = landmark_targets(None)[None]


def test_a_photo_without_landmarks_moves_from_the_regressors_word_where_its_errors_are_known(seen):
    model, coeff, rgba, word, errors = seen
    columns, everywhere = parameter_columns(model), np.ones((1, model.vertex_count))
    stays = CoefficientFitter(model, LIGHT)(rgba, word, NO_TARGETS)
    np.testing.assert_allclose(stays.coefficients[:, columns], word[:, columns], atol=1e-3)
    moves = CoefficientFitter(model, LIGHT, errors)(rgba, word, NO_TARGETS)
    assert np.isnan(moves.landmark_residual).all()
    unbiased = word.copy()
    unbiased[:, columns] += errors.bias
    first, then = (pixel_errors(model, one, coeff, everywhere) for one in (unbiased, moves.coefficients))
    assert then < 0.7 * first and moves.unexplained < 0.5 * stays.unexplained


def test_a_regressor_that_says_nothing_finite_does_no_harm_to_a_photo(seen):
    model, coeff, rgba, word, errors = seen
    broken = np.full_like(word, np.nan)
    five = landmark_targets(np.float32([[75, 95], [148, 95], [112, 130], [85, 160], [140, 160]]))[None]
    alone = CoefficientFitter(model, LIGHT)(rgba, word, five)
    for known in (None, errors):
        fit = CoefficientFitter(model, LIGHT, known)(rgba, broken, five)
        np.testing.assert_array_equal(fit.coefficients, alone.coefficients)
        assert np.isfinite(CoefficientFitter(model, LIGHT, known)(rgba, broken, NO_TARGETS).coefficients).all()


def test_the_digest_tells_errors_apart(model):
    errors = RegressorErrors(np.zeros(UNKNOWNS), np.eye(UNKNOWNS))
    known = [None, errors, dataclasses.replace(errors, bias=errors.bias + 1e-3),
             dataclasses.replace(errors, covariance=errors.covariance * 1.01)]
    digests = [CoefficientFitter(model, LIGHT, one).digest for one in known]
    assert len(set(digests)) == len(digests)
    assert CoefficientFitter(model, LIGHT, RegressorErrors(np.zeros(UNKNOWNS), np.eye(UNKNOWNS))).digest == digests[1]


# ---------------------------------------------------------------- how far it is off
def test_errors_are_the_mean_and_the_covariance_shrunk_towards_its_diagonal():
    differences = np.array([[1.0, 2.0], [3.0, 2.0], [5.0, 8.0]])
    errors = regressor_errors.errors_from(differences)
    np.testing.assert_allclose(errors.bias, [3.0, 4.0])
    np.testing.assert_allclose(errors.covariance, [[4.0 + 1e-6, 0.9 * 6.0], [0.9 * 6.0, 12.0 + 1e-6]], rtol=1e-12)
    spoilt = np.insert(differences, 1, [[np.nan, 0.0], [1.0, np.inf]], axis=0)
    np.testing.assert_array_equal(regressor_errors.errors_from(spoilt).covariance, errors.covariance)
    np.testing.assert_array_equal(regressor_errors.errors_from(spoilt).bias, errors.bias)


def test_few_portraits_and_unknowns_that_are_never_off_leave_a_covariance(rng):
    differences = rng.normal(size=(2, 9))
    differences[:, 4] = 0.5
    covariance = regressor_errors.errors_from(differences).covariance
    assert np.linalg.eigvalsh(covariance).min() > 1e-7
    assert covariance[4, 4] == pytest.approx(1e-6)


@pytest.mark.parametrize("differences", [np.zeros((0, 3)), np.zeros((1, 3)), np.array([[1.0, 2.0], [np.nan, 2.0]])])
def test_a_covariance_needs_two_portraits(differences):
    with pytest.raises(ValueError, match="needs two portraits"):
        regressor_errors.errors_from(differences)


class Off:
    """A regressor that is told which portraits it will see, and is off by the same of each."""

    def __init__(self, model, size, offset):
        self.maker = PortraitMaker(model, size, regressor_errors._SERIES, Stream.REGRESSOR)
        self.offset, self.seen = offset, []

    def __call__(self, rgb, training):
        assert training is False
        numbers = range(len(self.seen), len(self.seen) + len(rgb))
        self.seen.extend(np.array(rgb))
        return np.stack([self.maker.coefficients(number) for number in numbers]) - self.offset, None


def test_a_regressor_that_is_always_off_by_the_same_is_found_out(model, monkeypatch):
    monkeypatch.setattr(regressor_errors, "_BATCH", 4)
    offset = np.random.default_rng(2).normal(size=model.coefficient_count).astype(np.float32)
    regressor = Off(model, 32, offset)
    face = SimpleNamespace(morphable=model, image_size=32, regressor=regressor)
    errors = regressor_errors.measure_errors(face, 6, 2, 32)
    assert len(regressor.seen) == 6
    for number in (0, 5):
        np.testing.assert_allclose((regressor.seen[number] + 1) * 127.5, regressor.maker.make(number).rgba[..., :3],
                                   atol=1e-3)
    np.testing.assert_allclose(errors.bias, offset[parameter_columns(model)], atol=1e-6)
    np.testing.assert_allclose(errors.covariance, 1e-6 * np.eye(UNKNOWNS), atol=1e-9)


# ---------------------------------------------------------------- kept
KNOWN = RegressorErrors(np.arange(UNKNOWNS) / 7.0, np.eye(UNKNOWNS) * 0.3)


@pytest.fixture
def ask(model, tmp_path, monkeypatch):
    """Asks for errors of a regressor of a name; ``ask.measured`` are the names of those that were measured for it."""
    measured = []

    def measure(face_model, count, workers, width):
        measured.append(face_model.regressor)
        return KNOWN

    def ask(regressor="one", face=model, size=32, **settings):
        config = Config(root_dir=str(tmp_path), **settings)
        return regressor_errors.ensure_regressor_errors(
            config, SimpleNamespace(morphable=face, image_size=size, regressor=regressor))

    monkeypatch.setattr(regressor_errors, "measure_errors", measure)
    monkeypatch.setattr(regressor_errors, "digest", lambda regressor: f"digest of {regressor}")
    ask.measured, ask.folder = measured, tmp_path
    return ask


def same(errors, wanted):
    np.testing.assert_array_equal(errors.bias, wanted.bias)
    np.testing.assert_array_equal(errors.covariance, wanted.covariance)


def test_errors_are_measured_once_for_each_regressor_model_and_width(ask, monkeypatch):
    same(ask(), KNOWN)
    same(ask(), KNOWN)
    assert ask.measured == ["one"]
    ask("two")
    ask(face=half_ellipsoid(19, 21))
    ask(size=48)
    ask(regressor_pixels=56)
    monkeypatch.setattr(regressor_errors, "COUNT", 5)
    ask()
    monkeypatch.setattr(regressor_errors.files, "code_version", lambda *modules: "changed")
    ask()
    assert ask.measured == ["one", "two", "one", "one", "one", "one", "one"]
    assert len(list(ask.folder.glob("regressor-errors-*.npz"))) == 7


def test_small_models_need_fewer_portraits(ask, model, monkeypatch):
    counts = []

    def measure(_, count, *others):
        counts.append(count)
        return KNOWN

    monkeypatch.setattr(regressor_errors, "COUNT", 2500)  # tests do with fewer
    monkeypatch.setattr(regressor_errors, "measure_errors", measure)
    ask()
    ask(face=half_ellipsoid(19, 21, (120, 60, 3)))
    assert counts == [16 * UNKNOWNS, 2500]


def test_damaged_kept_errors_are_measured_anew_and_that_is_said(ask, caplog):
    ask()
    path, = ask.folder.glob("regressor-errors-*.npz")
    path.write_bytes(path.read_bytes()[:60])
    same(ask(), KNOWN)
    assert len(ask.measured) == 2 and "made anew" in caplog.text and path.name in caplog.text
    same(ask(), KNOWN)
    assert len(ask.measured) == 2


def test_starting_weights_tell_the_errors_of_their_own_regressor_only(ask, model, monkeypatch):
    theirs = RegressorErrors(np.ones(UNKNOWNS), np.eye(UNKNOWNS))

    def weights(path, morphable):
        assert path == "start.npz" and morphable is model
        return SimpleNamespace(regressor="digest of one", errors=theirs)

    monkeypatch.setattr(regressor_errors, "StartingWeights", weights)
    same(ask("one", texture_start="start.npz"), theirs)
    assert not ask.measured and not list(ask.folder.iterdir())
    same(ask("two", texture_start="start.npz"), KNOWN)
    assert ask.measured == ["two"]
    same(ask("one"), KNOWN)


def test_starting_weights_that_are_absent_are_named(ask):
    with pytest.raises(UserError, match="absent.npz are not there"):
        ask(texture_start=str(ask.folder / "absent.npz"))
