"""What a fit expects of lights and albedos, from made portraits."""

import dataclasses

import numpy as np
import pytest

from facegcn.assets.priors import _SERIES, SPREAD, detail_prior, ensure_priors
from facegcn.config import Config
from facegcn.portraits.light_prior import light_prior
from facegcn.portraits.maker import PortraitMaker, Stream
from tests.plain_face import plain_face


@pytest.fixture(scope="module")
def face():
    return plain_face()


def details_of_others(face, count=60):
    maker = PortraitMaker(face, seed=9)
    pairs = [maker.albedo(index) for index in range(count)]
    return np.stack([painted - bare for bare, painted in pairs]) / 255


def test_the_prior_tells_how_other_people_differ_from_the_basis(face):
    prior, others = detail_prior(face, 200), details_of_others(face)
    assert np.corrcoef(prior.mean.ravel(), others.mean(axis=0).ravel())[0, 1] > 0.95
    off = (others - prior.mean).reshape(len(others), -1)
    modes = prior.modes.reshape(off.shape[1], -1)
    amounts = np.linalg.lstsq(modes, off.T, rcond=None)[0]
    left = off.T - modes @ amounts
    assert (left ** 2).sum() < 0.5 * (off ** 2).sum()  # thirty directions hold most of it
    assert (amounts[:5] * SPREAD).std(axis=1) == pytest.approx(1, rel=0.4)  # each as long as its deviation, spread


def test_directions_are_the_principal_components(face):
    """Against a singular value decomposition."""
    prior = detail_prior(face, 12, 4)
    modes = prior.modes.reshape(-1, 4).astype(np.float64)
    square = modes.T @ modes
    np.testing.assert_allclose(square, np.diag(np.diag(square)), atol=1e-3 * square.max())
    assert (np.diff(np.diag(square)) <= 0).all()
    maker = PortraitMaker(face, seed=_SERIES, stream=Stream.REGRESSOR)
    details = np.stack([np.subtract(*maker.albedo(k)[::-1]).ravel() for k in range(12)]) / 255.0
    np.testing.assert_allclose(prior.mean.ravel(), details.mean(axis=0), atol=1e-5)
    lengths = np.linalg.svd(details - details.mean(axis=0), compute_uv=False)[:4] / np.sqrt(12)
    np.testing.assert_allclose(np.sqrt(np.diag(square)), SPREAD * lengths, rtol=1e-3)


def test_painted_albedo_is_that_of_the_portrait(face):
    maker = PortraitMaker(face)
    bare, painted = maker.albedo(3)
    np.testing.assert_array_equal(painted, maker.make(3, picture=1).albedo)
    wanted = face.albedo(face.split(maker.coefficients(3)[None]).tex)[0]
    np.testing.assert_allclose(bare, np.clip(wanted, 0, 255), atol=1e-3)


def test_the_same_model_gives_the_same_prior_and_no_more_directions_than_people(face):
    first, again = detail_prior(face, 5), detail_prior(face, 5)
    np.testing.assert_array_equal(first.modes, again.modes)
    assert first.modes.shape == (face.vertex_count, 3, 4) and first.modes.dtype == np.float32
    with pytest.raises(ValueError, match="2 or more, got 1"):
        detail_prior(face, 1)


def test_priors_are_kept_in_the_data_folder_and_made_anew_for_another_model(face, tmp_path, monkeypatch):
    config = Config(root_dir=str(tmp_path))
    light, details = ensure_priors(config, face)
    assert len(list(tmp_path.glob("priors-*.npz"))) == 1
    np.testing.assert_array_equal(light.precision, light_prior(face).precision)
    monkeypatch.setattr("facegcn.assets.priors.detail_prior", lambda *_: pytest.fail("made again"))
    again = ensure_priors(config, face)
    np.testing.assert_array_equal(again[0].precision, light.precision)
    np.testing.assert_array_equal(again[1].modes, details.modes)
    monkeypatch.undo()
    ensure_priors(config, dataclasses.replace(face, mean_albedo=face.mean_albedo * np.float32(0.9)))
    assert len(list(tmp_path.glob("priors-*.npz"))) == 2
