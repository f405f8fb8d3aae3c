"""Starting weights of the texture network: with what they go, and what they refuse with which cure."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

import main
import model as networks
from facegcn.assets import regressor_errors
from facegcn.assets.landmark_embedding import ensure_embedding
from facegcn.assets.priors import ensure_priors
from facegcn.assets.starting_weights import StartingWeights, save_starting_weights
from facegcn.config import Config
from facegcn.errors import UserError
from facegcn.files import read_npz, write_npz
from facegcn.fitting import RegressorErrors
from facegcn.morphable import MorphableModel
from facegcn.networks.regressor import digest
from facegcn.photometric_fitting import LightPrior
from facegcn.photometric_terms import DetailPrior
from facegcn.runs import RunFolder
from mesh_sampling import from_arrays, generate_transform_matrices, to_arrays
from model import build_face_model, build_texture_network
from tests.faces import embedded, half_ellipsoid

EMBEDDING = 160  # features of the small regressor
UNKNOWNS = 16  # of a fit of the small model
ERRORS = RegressorErrors(np.linspace(-1.0, 1.0, UNKNOWNS), np.eye(UNKNOWNS) / 3.0 + 0.01)


def plain_model():
    return half_ellipsoid(25, 31)


@pytest.fixture(scope="module")
def hierarchy():
    model = plain_model()
    return generate_transform_matrices(model.mean_shape, model.triangles)


def some_priors(seed=7, count=2):
    rng, vertices = np.random.default_rng(seed), plain_model().vertex_count
    return LightPrior(rng.normal(size=27), 3 * np.eye(27)), DetailPrior(
        rng.normal(0, 0.1, (vertices, 3)).astype(np.float32),
                       rng.normal(0, 0.1, (vertices, 3, count)).astype(np.float32))


def random_network(hierarchy, **options):
    """A texture network with random weights everywhere, its last layer too."""
    rng = np.random.default_rng(2)
    network = build_texture_network("resnet", hierarchy, EMBEDDING, residual=True, **options)
    for weight in network.weights:
        weight.assign(rng.normal(0, 0.1, weight.shape))
    return network


@pytest.fixture(scope="module")
def saved(hierarchy, tmp_path_factory):
    """The file, its network and its embedding."""
    path = str(tmp_path_factory.mktemp("start") / "start.npz")
    network, embedding = random_network(hierarchy, refiner_channels=17), embedded(plain_model()).embedding
    save_starting_weights(path, network, plain_model(), to_arrays(hierarchy), embedding, ("0123abcd", ERRORS),
                          some_priors())
    return path, network, embedding


def shown(vertices):
    """Something for a network to look at."""
    rng = np.random.default_rng(4)
    return [np.float32(rng.normal(size=(2, EMBEDDING))), np.float32(rng.uniform(-0.5, 0.5, (2, vertices, 17)))]


def test_weights_hierarchy_landmarks_and_errors_come_back(saved, hierarchy):
    path, network, embedding = saved
    start = StartingWeights(path, plain_model())
    for name, array in to_arrays(hierarchy).items():
        np.testing.assert_allclose(start.hierarchy[name], array, rtol=1e-6, atol=1e-6)
    for name, array in vars(embedding).items():
        np.testing.assert_allclose(getattr(start.embedding, name), array, rtol=1e-6)
    assert start.regressor == "0123abcd" and isinstance(start.errors, RegressorErrors)
    for name, array in vars(ERRORS).items():
        np.testing.assert_allclose(getattr(start.errors, name), array, rtol=1e-6)
    for prior, wanted, rtol in zip(start.priors, some_priors(), (1e-6, 2e-3)):
        for name, array in vars(wanted).items():
            np.testing.assert_allclose(getattr(prior, name), array, rtol=rtol, atol=1e-6)
    other = build_texture_network("resnet", from_arrays(start.hierarchy), EMBEDDING, residual=True, refiner_channels=17)
    given = shown(775)
    assert np.abs(other(given) - network(given)).max() > 0.1
    start.load_into(other)
    np.testing.assert_allclose(other(given), network(given), atol=0.01)
    for weight, wanted in zip(other.weights, network.weights):
        np.testing.assert_allclose(weight, wanted, atol=1e-6, rtol=1e-3)


def rounded(model):
    """The model as a file in half precision holds it."""
    return dataclasses.replace(model, **{name: getattr(model, name).astype(np.float16).astype(np.float32) for name in (
        "mean_shape", "id_basis", "exp_basis", "mean_albedo", "albedo_basis")})


def test_a_model_that_differs_by_rounding_is_the_same(saved):
    model = rounded(plain_model())
    assert model.digest != plain_model().digest
    assert StartingWeights(saved[0], model).hierarchy


def test_named_expressions_are_no_other_model(saved):
    shapes = np.full((775, 3, 1), 0.1, np.float32)
    model = dataclasses.replace(plain_model(), blendshapes=shapes, blendshape_names=("jawOpen",))
    assert StartingWeights(saved[0], model).hierarchy


def changed(**arrays):
    return lambda model: dataclasses.replace(model, **{name: change(getattr(model, name))
                                                       for name, change in arrays.items()})


@pytest.mark.parametrize(("change", "words"), [
    (lambda model: half_ellipsoid(27, 31), "mean_shape has shape (837, 3), theirs (775, 3)"),
    (changed(mean_shape=lambda a: a + np.float32([0, 0.02, 0]) * (np.arange(775) == 7)[:, None]), "the mean face"),
    (changed(triangles=lambda a: a[::-1].copy()), "triangles are others"),
    (changed(landmarks=lambda a: np.where(np.arange(68) == 30, a[29], a)), "landmarks are others"),
    (changed(id_basis=lambda a: a * np.float32([1, 1, 1.05, 1, 1, 1])), "id_basis is another"),
    (changed(exp_basis=lambda a: a[..., :3]), "exp_basis_scale has shape (3,), theirs (4,)"),
    (changed(albedo_basis=lambda a: a * np.float32(0.8)), "albedo_basis is another")])
def test_another_face_model_is_refused_with_the_cure(saved, change, words):
    with pytest.raises(UserError) as caught:
        StartingWeights(saved[0], change(plain_model()))
    message = str(caught.value)
    assert words in message and saved[0] in message and "do not fit this face model" in message
    assert "convert the model again" in message and "--set texture_start= --set regressor_start=" in message


@pytest.mark.parametrize("options", [{"wide": True, "refiner_channels": 17}, {"refiner_channels": 10}])
def test_another_network_is_refused_and_stays_as_it_was(saved, hierarchy, options):
    network = random_network(hierarchy, **options)
    before = [weight.numpy() for weight in network.weights]
    with pytest.raises(UserError, match=r"do not fit the texture network: \S+ needs shape .*--set texture_start="):
        StartingWeights(saved[0], plain_model()).load_into(network)
    assert all(np.array_equal(weight, kept) for weight, kept in zip(network.weights, before))


def test_absent_and_damaged_files_are_named(saved, tmp_path):
    with pytest.raises(UserError, match=r"absent.npz are not there; --set texture_start="):
        StartingWeights(str(tmp_path / "absent.npz"), plain_model())
    whole, path = open(saved[0], "rb").read(), tmp_path / "cut.npz"
    for content in (b"", b"no archive", whole[:len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"cut.npz are damaged"):
            StartingWeights(str(path), plain_model())
    arrays = read_npz(saved[0])
    for missing in ("model/mean_shape", "landmarks/noise", "model/exp_basis_scale", "regressor", "errors/bias"):
        write_npz(str(path), {name: array for name, array in arrays.items() if name != missing})
        with pytest.raises(UserError, match=r"cut.npz are damaged"):
            StartingWeights(str(path), plain_model())
    for covariance in (-np.eye(UNKNOWNS), np.eye(UNKNOWNS) * np.nan, np.eye(3)):
        write_npz(str(path), {**arrays, "errors/covariance": covariance})
        with pytest.raises(UserError, match=r"cut.npz are damaged"):
            StartingWeights(str(path), plain_model())
    vertices = plain_model().vertex_count
    for bad in ({"detail_mean": np.zeros((3, 3)), "detail_modes": np.zeros((3, 3, 1))},
                {"detail_modes": np.zeros((vertices, 3))}, {"detail_mean": np.full((vertices, 3), np.nan)},
                {"light_mean": np.zeros(9)}, {"light_precision": np.full((27, 27), np.inf)}):
        write_npz(str(path), {**arrays, **{f"priors/{name}": array for name, array in bad.items()}})
        with pytest.raises(UserError, match=r"cut.npz are damaged, or of another version: .*(details|light)"):
            StartingWeights(str(path), plain_model())
    write_npz(str(path), {name: array for name, array in arrays.items() if name != "priors/light_mean"})
    with pytest.raises(UserError, match=r"cut.npz are damaged, or of another version: 'light_mean'"):
        StartingWeights(str(path), plain_model())


def test_weights_of_before_there_were_priors_are_read(saved, tmp_path):
    path = str(tmp_path / "before.npz")
    write_npz(path, {name: array for name, array in read_npz(saved[0]).items() if not name.startswith("priors/")})
    assert StartingWeights(path, plain_model()).priors is None
    light, details = ensure_priors(Config(root_dir=str(tmp_path), texture_start=path), plain_model())  # made, and kept
    assert len(details.mean) == plain_model().vertex_count and len(list(tmp_path.glob("priors-*.npz"))) == 1
    theirs = ensure_priors(Config(root_dir=str(tmp_path), texture_start=saved[0]), plain_model())
    np.testing.assert_allclose(theirs[0].mean, some_priors()[0].mean, rtol=1e-6)
    assert np.abs(theirs[0].mean - light.mean).max() > 0.1


def test_weights_that_are_not_finite_are_neither_written_nor_read(saved, hierarchy, tmp_path):
    network, path = random_network(hierarchy, refiner_channels=17), str(tmp_path / "start.npz")
    for value in (np.nan, 1e6):  # the second is too much for half precision
        network.weights[3].assign(tf.fill(network.weights[3].shape, np.float32(value)))
        with pytest.raises(UserError, match="was not written: network/.* is not finite in half precision"):
            save_starting_weights(path, network, plain_model(), to_arrays(hierarchy), embedded(plain_model()).embedding,
                                  ("0123abcd", ERRORS), some_priors())
    assert not list(tmp_path.iterdir())
    arrays = read_npz(saved[0])
    arrays[next(name for name in arrays if name.startswith("network/"))].flat[0] = np.inf
    write_npz(path, arrays)
    with pytest.raises(UserError, match="do not fit the texture network"):
        StartingWeights(path, plain_model()).load_into(network)


def test_the_face_model_begins_with_them_and_with_their_hierarchy(saved, tmp_path, monkeypatch):
    """Not with one decimated here, which other rounding could make another."""
    monkeypatch.setattr(networks, "init_sampling", None)
    config = Config(texture_start=saved[0], img_size=64, regressor_pixels=32, root_dir=str(tmp_path))
    found = build_face_model(config, rounded(plain_model())).texture_network
    np.testing.assert_allclose(found(shown(775)), saved[1](shown(775)), atol=0.01)
    with pytest.raises(UserError, match="do not fit the texture network"):
        build_face_model(dataclasses.replace(config, mirror=False), plain_model())
    assert build_face_model(config, plain_model(), with_texture=False).texture_network is None


def test_landmarks_lie_where_the_starting_weights_say(saved, tmp_path):
    config = Config(texture_start=saved[0], root_dir=str(tmp_path))
    known = ensure_embedding(config, plain_model())
    np.testing.assert_array_equal(known.embedding.triangles, saved[2].triangles)
    own = embedded(plain_model(), seed=5)
    assert isinstance(known, MorphableModel) and ensure_embedding(config, own) is own, "a model's own come first"
    with pytest.raises(UserError, match="do not fit this face model"):
        ensure_embedding(config, half_ellipsoid(27, 31))


def test_a_run_that_began_with_them_leaves_its_own_with_the_same_hierarchy(saved, tmp_path, monkeypatch):
    config = Config(texture_start=saved[0], img_size=64, regressor_pixels=32, root_dir=str(tmp_path / "data"))
    face_model = build_face_model(config, rounded(plain_model()))
    weight = face_model.texture_network.weights[0]
    weight.assign(weight * 0.5)  # it was trained
    own = RegressorErrors(ERRORS.bias + 1.0, ERRORS.covariance)
    monkeypatch.setattr(regressor_errors, "measure_errors", lambda *_: own)  # the regressor is another than theirs
    main._save_as_start(config, RunFolder(str(tmp_path)), face_model)
    left = StartingWeights(str(tmp_path / "texture_start.npz"), plain_model())
    for name, array in StartingWeights(saved[0], plain_model()).hierarchy.items():
        np.testing.assert_array_equal(left.hierarchy[name], array)
    np.testing.assert_array_equal(left.embedding.triangles, saved[2].triangles)
    assert left.regressor == digest(face_model.regressor)
    np.testing.assert_allclose(left.errors.bias, own.bias, rtol=1e-6)
    again = dataclasses.replace(config, texture_start=str(tmp_path / "texture_start.npz"))
    monkeypatch.setattr(regressor_errors, "measure_errors", None)  # now they are known
    np.testing.assert_array_equal(regressor_errors.ensure_regressor_errors(again, face_model).bias, left.errors.bias)
    left.load_into(face_model.texture_network)
    np.testing.assert_allclose(face_model.texture_network.weights[0], saved[1].weights[0] * 0.5, rtol=2e-3, atol=1e-6)
