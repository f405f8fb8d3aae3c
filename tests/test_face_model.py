"""Photo, coefficients and embedding in; textures, colours and renders out: what joins the parts."""

import numpy as np
import pytest
import tensorflow as tf

from facegcn.face_model import FaceModel, mirror_index
from tests.faces import half_ellipsoid

SIZE = 64


@pytest.fixture(scope="module")
def face():
    return half_ellipsoid(25, 31)


def coefficients(face, **parts):
    """(1, K) coefficients, 0 but for the named parts."""
    names = ("id", "exp", "tex", "angles", "gamma", "translation")
    return np.concatenate([np.float32(parts.get(name, np.zeros(size))).reshape(-1)
                           for name, size in zip(names, face.part_sizes)])[None]


def photo_of(model, coeff, alpha):
    """A picture that the model itself draws, with this skin alpha where the face is."""
    render = model.reconstruct(np.ones((1, SIZE, SIZE, 4), np.float32), coeff)["coarse_render"]
    return np.concatenate([render[..., :3], alpha * render[..., 3:]], axis=-1)


@pytest.mark.parametrize("alpha", [1.0, 0.5])
def test_sampled_colours_are_the_photo_s_own_however_soft_the_mask(face, alpha):
    """A mask of one half halves the trust in a colour, not the colour."""
    model = FaceModel(face, image_size=SIZE, delit=True, erosion=1)
    coeff = coefficients(face)
    outputs = model.reconstruct(photo_of(model, coeff, alpha), coeff)
    visible = outputs["projected_color"][0, :, 3].numpy()
    seen = visible > 0.99 * alpha
    assert seen.sum() > 200 and abs(visible.max() - alpha) < 1e-6
    known = model._refiner_input(outputs, outputs["projected_color"])[0].numpy()
    error = np.abs(known[seen, 7:10] / visible[seen, None] - known[seen, :3])
    assert np.median(error) < 0.02


@pytest.mark.parametrize("alpha", [1.0, 0.5])
def test_the_fine_face_s_light_does_not_depend_on_how_soft_the_mask_is(face, alpha):
    light = np.zeros(27, np.float32)
    light[[0, 9, 18]] = 0.25
    lit = coefficients(face, gamma=light)
    model = FaceModel(face, image_size=SIZE, relight=True, erosion=3)
    outputs = model.reconstruct(photo_of(model, lit, alpha), coefficients(face))
    wanted = model.geometry(lit)["shading"]
    facing = outputs["projected_color"][0, :, 3].numpy() > 0.99 * alpha
    np.testing.assert_allclose(outputs["fine_shading"][0].numpy()[facing], wanted[0].numpy()[facing], atol=0.03)


def test_mirrored_vertices_show_what_their_partner_shows(face):
    index = mirror_index(face)
    np.testing.assert_array_equal(index[index], np.arange(face.vertex_count))
    model = FaceModel(face, image_size=SIZE, delit=True, mirror=True, erosion=1)
    coeff = coefficients(face, angles=(0, 0.6, 0))
    outputs = model.reconstruct(photo_of(model, coeff, 1.0), coeff)
    known = model._refiner_input(outputs, outputs["projected_color"]).numpy()[0]
    assert known.shape == (face.vertex_count, model.refiner_channels) and model.refiner_channels == 14
    np.testing.assert_array_equal(known[:, 10:13], known[index, 7:10])
    np.testing.assert_array_equal(known[:, 13], known[index, 6])
    hidden = (known[:, 6] == 0) & (known[:, 13] > 0)
    assert hidden.sum() > 20, "a turned head hides vertices whose partners are seen"


@pytest.mark.parametrize(("options", "channels"), [({}, 7), ({"delit": True}, 10), ({"mirror": True}, 7),
                                                   ({"delit": True, "mirror": True}, 14)])
def test_refiner_channels(face, options, channels):
    model = FaceModel(face, image_size=SIZE, **options)
    outputs = model.reconstruct(np.ones((1, SIZE, SIZE, 4), np.float32), coefficients(face))
    assert model.refiner_channels == channels
    assert model._refiner_input(outputs, outputs["projected_color"]).shape[-1] == channels


@pytest.mark.parametrize(("options", "words"), [({"visibility": "x-ray"}, "'depth' or 'normal'"),
                                                ({"sampling": "nearest"}, "bilinear, released")])
def test_unknown_choices_are_named(face, options, words):
    with pytest.raises(ValueError, match=words):
        FaceModel(face, **options)


def test_without_a_texture_network_fine_is_coarse(face):
    model = FaceModel(face, image_size=SIZE)
    outputs = model.reconstruct(np.zeros((1, SIZE, SIZE, 4), np.float32), coefficients(face))
    np.testing.assert_array_equal(outputs["fine_texture"], outputs["coarse_texture"])
    with pytest.raises(ValueError, match="no regressor"):
        model.regress(tf.zeros((1, SIZE, SIZE, 4)))
