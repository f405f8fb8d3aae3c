"""Merged textures, and one person of several photos through the model."""

import cv2
import numpy as np
import pytest
import tensorflow as tf

from facegcn.errors import UserError
from facegcn.face_model import FaceModel
from facegcn.fitting import CoefficientFitter
from facegcn.lighting import shading
from facegcn.reconstruction.jobs import Photo
from facegcn.reconstruction.merging import Looks, merge, sharpness, vertex_areas, weighted_median
from facegcn.reconstruction.person import PersonFaces, reconstruct_person
from facegcn.reconstruction.reconstructor import PhotosToFaces
from tests.faces import half_ellipsoid
from tests.test_person_fitting import pictures_of
from tests.test_photometric_fitting import LIGHT


# ---------------------------------------------------------------- merging
@pytest.fixture
def looks(rng):
    """Three photos of one albedo (N, 3) in three lights, all of it in plain sight; and that albedo."""
    count = 400
    albedo = rng.uniform(0.3, 0.6, (count, 3)).astype(np.float32)
    normals = rng.normal(size=(3, count, 3)) * (1, 1, 0.5) + (0, 0, 1.5)
    normals = (normals / np.linalg.norm(normals, axis=2, keepdims=True)).astype(np.float32)
    gamma = np.float32(LIGHT.mean + rng.normal(size=(3, 27)) * 0.05)
    colors = albedo * shading(normals, gamma).numpy()
    return Looks(colors, np.ones((3, count), np.float32), normals, gamma, np.ones(3),
                 np.ones((3, count), np.float32)), albedo


def test_photos_that_agree_give_their_albedo(looks):
    looks, albedo = looks
    merged = merge(looks, albedo * 0 + 0.5)
    np.testing.assert_allclose(merged.albedo, albedo, atol=1e-4)
    np.testing.assert_allclose(merged.trust, 1.0, atol=1e-5)
    np.testing.assert_allclose(merged.weights, 1 / 3, atol=1e-4)


def test_a_brighter_exposure_is_brought_to_the_others_tone(looks):
    looks, albedo = looks
    bright = looks._replace(colors=looks.colors * np.float32([1, 1, 1.3])[:, None, None])
    apart = np.abs(bright.colors[2] / shading(looks.normals[2:], looks.gamma[2:])[0].numpy() - albedo).mean()
    merged = merge(bright, albedo * 0 + 0.5)
    tone = (merged.albedo / albedo).mean()  # of all three together nobody knows it
    assert 1.0 < tone < 1.15
    assert np.abs(merged.albedo / tone - albedo).mean() < 0.05 * apart


def test_what_stands_before_one_photo_is_not_in_the_texture(looks):
    looks, albedo = looks
    looks.colors[1, :60] = 0.02  # a dark hand
    merged = merge(looks, albedo * 0 + 0.5)
    assert np.abs(merged.albedo[:60] - albedo[:60]).mean() < 0.02
    assert merged.weights[1, :60].max() < 0.01 and merged.weights[1, 60:].min() > 0.1


def test_what_no_photo_shows_stays_coarse_and_untrusted(looks):
    looks, albedo = looks
    looks.trust[:, :10] = 0
    merged = merge(looks, albedo * 0 + 0.5)
    np.testing.assert_array_equal(merged.albedo[:10], 0.5)
    np.testing.assert_array_equal(merged.trust[:10], 0)


def test_a_photo_in_which_a_part_is_folded_away_does_not_colour_it(looks):
    looks, albedo = looks
    looks.colors[:2, :20] *= 0.6  # lips over what is inside a mouth
    looks.area[:2, :20] = 1e-4
    merged = merge(looks, albedo * 0 + 0.5)
    np.testing.assert_allclose(merged.albedo[:20], albedo[:20], atol=0.02)


def test_areas_of_vertices_are_those_that_face_the_camera():
    corners = np.float32([[0, 0], [1, 0], [0, -1], [1, -1]])  # y down: this square lies above the centre
    areas = vertex_areas(corners, np.int32([[0, 1, 2], [1, 2, 3]]))  # the second looks away
    np.testing.assert_allclose(areas, [1 / 6, 1 / 6, 1 / 6, 0])


def test_weighted_median_of_known_values():
    values = np.float32([[1], [5], [3]])[:, None]
    for weights, wanted in (((1, 1, 1), 3), ((1, 5, 1), 5), ((3, 1, 1), 1)):
        assert weighted_median(values, np.float32(weights)[:, None])[0, 0] == wanted


def test_a_blurred_or_enlarged_photo_is_less_sharp(rng):
    noise = cv2.GaussianBlur(rng.uniform(0, 255, (96, 96, 3)).astype(np.float32), (0, 0), 0.8)
    rgba = np.dstack([noise, np.full((96, 96), 255)]).astype(np.uint8)
    blurred = np.dstack([cv2.GaussianBlur(noise, (0, 0), 2.5), rgba[..., 3]]).astype(np.uint8)
    assert sharpness(blurred) < 0.5 * sharpness(rgba)
    assert sharpness(rgba, 0.5) == pytest.approx(0.5 * sharpness(rgba)) and sharpness(rgba, 3.0) == sharpness(rgba)
    assert sharpness(rgba * np.uint8([1, 1, 1, 0])) == 0


# ---------------------------------------------------------------- the whole
class Nothing:
    """A regressor that sees the mean face in every photo."""

    def __init__(self, morphable):
        self._size = morphable.coefficient_count

    def __call__(self, rgb, training=False):
        return tf.zeros((len(rgb), self._size)), tf.zeros((len(rgb), 4))


@pytest.fixture(scope="module")
def world():
    """A model without texture network, its fitter, four photos of one person, one of another."""
    model = half_ellipsoid(33, 41)
    face_model = FaceModel(model, regressor=Nothing(model), delit=True, mirror=True, trust=True, relight=True)

    def photos(seed, count):
        _, rgba, points = pictures_of(model, seed, count)
        crops = np.round(np.concatenate([rgba[..., :3] * 0.5 + 0.5, rgba[..., 3:]], axis=-1) * 255).astype(np.uint8)
        return [Photo(crop, np.float32(one)) for crop, one in zip(crops, points)]
    return face_model, CoefficientFitter(model, LIGHT), photos(1, 4), photos(2, 1)[0]


def test_one_photo_gives_the_face_of_test_mode(world):
    face_model, fitter, photos, _ = world
    wanted = PhotosToFaces(face_model, fitter, True)(photos[:1])
    one = reconstruct_person(face_model, fitter, True, photos[:1], ["me"])
    (faces,) = one.faces()
    for name in ("fine_texture", "coarse_texture", "fine_render", "world"):
        np.testing.assert_array_equal(faces.outputs[name], wanted.outputs[name])
    np.testing.assert_allclose(one.albedo, wanted.outputs["fine_texture"][0] * 0.5 + 0.5, atol=1e-6)
    assert one.report["used"] == 1 and one.report["photos"]["me"]["used"]


def test_photos_share_a_face_and_another_person_is_left_out(world, caplog):
    face_model, fitter, photos, other = world
    found = PersonFaces(face_model, fitter, True, batch_size=3)([*photos[:3], other, photos[3]], list("abcde"))
    np.testing.assert_array_equal(found.used, [0, 1, 2, 4])
    row = found.report["photos"]["d"]
    assert not row["used"] and "another person" in row["reason"] and "d is left out" in caplog.text
    assert found.report["left_out"] == 1 and found.report["photos"]["a"]["weight"] > 0.1
    single, batches = PhotosToFaces(face_model, fitter, True)(photos), list(found.faces())
    assert [len(batch.coeff) for batch in batches] == [3, 1]
    for batch in batches:
        assert set(single.outputs) == set(batch.outputs)
        for i in range(len(batch.coeff)):
            np.testing.assert_allclose(batch.outputs["fine_texture"][i] * 0.5 + 0.5, found.albedo, atol=1e-6)
            shown = np.asarray(batch.rgba[i, ..., 3] > 0.5) & (np.asarray(batch.outputs["fine_render"][i, ..., 3]) > 0)
            off = np.abs(np.asarray(batch.outputs["fine_render"][i, ..., :3]) - batch.rgba[i, ..., :3].numpy())[shown]
            assert off.mean() < 0.05
    assert np.isfinite(found.albedo).all() and found.trust.max() <= 1 and found.trust.min() >= 0


def test_the_batch_size_changes_nothing(world, monkeypatch):
    face_model, fitter, photos, _ = world
    monkeypatch.setattr("facegcn.person_fitting.TRACKED", 1)
    by_one, at_once = (PersonFaces(face_model, fitter, False, size)(photos[:2]) for size in (1, 8))
    np.testing.assert_allclose(by_one.albedo, at_once.albedo, atol=1e-5)
    np.testing.assert_allclose(by_one.coeff, at_once.coeff, atol=1e-5)


def test_bad_input_is_told(world):
    face_model, fitter, photos, _ = world
    with pytest.raises(UserError, match="no photo of the person"):
        reconstruct_person(face_model, fitter, False, [])
    with pytest.raises(UserError, match="set fit=true"):
        PersonFaces(face_model, None)
    with pytest.raises(ValueError, match="1 names of 2 photos"):
        reconstruct_person(face_model, fitter, False, photos[:2], ["one"])
    with pytest.raises(ValueError, match="batch_size"):
        PersonFaces(face_model, fitter, False, 0)
