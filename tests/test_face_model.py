"""Photo, coefficients and embedding in; textures, colours and renders out: what joins the parts."""

import numpy as np
import pytest
import tensorflow as tf

from facegcn.completion import LITTLE_TRUST, UNKNOWN, TextureCompletion, angle_weight, likelihood_weight
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


class Onlooker:
    """A texture network that keeps what it is shown of each vertex, and gives the coarse albedo."""

    def __call__(self, inputs, training):
        self.known = inputs[1].numpy()
        return inputs[1][..., :3]


def shown(face, rgba, coeff, **options):
    """What the refiner sees (1, N, C), and the reconstruction."""
    network = Onlooker()
    outputs = FaceModel(face, network, image_size=SIZE, **options).reconstruct(rgba, coeff, np.zeros((1, 1)))
    return network.known, outputs


def photo_of(model, coeff, alpha):
    """A picture that the model itself draws, with this skin alpha where the face is."""
    render = model.reconstruct(np.ones((1, SIZE, SIZE, 4), np.float32), coeff)["coarse_render"]
    return np.concatenate([render[..., :3], alpha * render[..., 3:]], axis=-1)


@pytest.mark.parametrize("alpha", [1.0, 0.5])
def test_sampled_colours_are_the_photo_s_own_however_soft_the_mask(face, alpha):
    """A mask of one half halves the trust in a colour, not the colour."""
    coeff = coefficients(face)
    photo = photo_of(FaceModel(face, image_size=SIZE), coeff, alpha)
    (known,), outputs = shown(face, photo, coeff, delit=True, erosion=1)
    visible = outputs["projected_color"][0, :, 3].numpy()
    seen = visible > 0.99 * alpha
    assert seen.sum() > 200 and abs(visible.max() - alpha) < 1e-6
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
    coeff = coefficients(face, angles=(0, 0.6, 0))
    photo = photo_of(FaceModel(face, image_size=SIZE), coeff, 1.0)
    (known,), _ = shown(face, photo, coeff, delit=True, mirror=True, erosion=1)
    assert known.shape == (face.vertex_count, 14)
    np.testing.assert_array_equal(known[:, 10:13], known[index, 7:10])
    np.testing.assert_array_equal(known[:, 13], known[index, 6])
    hidden = (known[:, 6] == 0) & (known[:, 13] > 0)
    assert hidden.sum() > 20, "a turned head hides vertices whose partners are seen"


@pytest.mark.parametrize(("options", "channels"), [({}, 7), ({"delit": True}, 10), ({"mirror": True}, 7),
                                                   ({"delit": True, "mirror": True}, 14), ({"completed": True}, 7),
                                                   ({"delit": True, "completed": True}, 13),
                                                   ({"delit": True, "mirror": True, "completed": True}, 17)])
def test_refiner_channels(face, options, channels):
    assert FaceModel(face, image_size=SIZE, **options).refiner_channels == channels
    known, _ = shown(face, np.ones((1, SIZE, SIZE, 4), np.float32), coefficients(face), **options)
    assert known.shape[-1] == channels


def test_the_refiner_is_shown_what_stands_in_for_it(face, rng):
    """The last three channels are the completed albedo, which is the fine texture without a network."""
    coeff, options = coefficients(face, angles=(0, 0.4, 0)), dict(delit=True, trust=True, erosion=1)
    photo = speckled(face, coeff, rng)
    (known,), _ = shown(face, photo, coeff, mirror=True, completed=True, **options)
    found = FaceModel(face, image_size=SIZE, **options).reconstruct(photo, coeff)["fine_texture"]
    np.testing.assert_allclose(known[:, -3:], found[0], atol=1e-6)


def speckled(face, coeff, rng):
    """A photo of a face with spots that its model does not explain."""
    photo = np.array(photo_of(FaceModel(face, image_size=SIZE), coeff, 1.0))
    spots = np.kron(rng.random((8, 8)) < 0.4, np.ones((SIZE // 8, SIZE // 8)))[..., None]
    photo[..., :3] = np.where(spots, rng.uniform(-1, 1, 3), photo[..., :3])
    return photo.astype(np.float32)


@pytest.mark.parametrize(("options", "channels"), [({}, 7), ({"delit": True, "mirror": True}, 14)])
def test_trust_weighs_what_is_seen_by_angle_and_likelihood(face, rng, options, channels):
    """Without it, everything is as it was before there was trust; likelihood needs the de-lit colour."""
    coeff = coefficients(face, angles=(0, 0.4, 0))
    photo = speckled(face, coeff, rng)
    (before,), _ = shown(face, photo, coeff, erosion=1, **options)
    (after,), outputs = shown(face, photo, coeff, erosion=1, trust=True, **options)
    assert before.shape[-1] == after.shape[-1] == channels
    trust = angle_weight(outputs["normals"])[0].numpy()
    if options:
        seen = before[:, 7:10] / np.maximum(before[:, 6:7], 1e-9)
        trust = trust * likelihood_weight(before[None, :, :3], seen[None])[0].numpy()
        assert trust[before[:, 6] > 0.9].min() < 0.5 < 0.95 < trust.max()
    wanted = before.copy()
    wanted[:, 3:10] *= trust[:, None]
    wanted[:, 10:] *= trust[mirror_index(face), None]
    np.testing.assert_allclose(after, wanted, atol=1e-5)


def test_without_a_texture_network_seen_colours_complete_the_coarse_albedo(face, rng):
    coeff = coefficients(face, angles=(0, 0.4, 0))
    photo = speckled(face, coeff, rng)
    (known,), outputs = shown(face, photo, coeff, delit=True, trust=True, erosion=1)
    found = FaceModel(face, image_size=SIZE, delit=True, trust=True, erosion=1).reconstruct(photo, coeff)
    seen = known[:, 7:10] / np.maximum(known[:, 6:7], 1e-9)
    wanted = TextureCompletion(face.triangles, mirror_index(face))(known[None, :, :3], seen[None], known[None, :, 6])
    np.testing.assert_allclose(found["fine_texture"], wanted, atol=1e-5)
    photo_error = [np.abs(outputs["projected_color"] - tf.concat([found[f"{kind}_color"] * known[:, 6:7],
                                                                  known[None, :, 6:7]], -1)).mean()
                   for kind in ("coarse", "fine")]
    assert photo_error[1] < 0.7 * photo_error[0]


@pytest.mark.parametrize("completed", [False, True])
def test_a_share_of_the_networks_correction_is_believed_outside_training(face, rng, completed):
    """The rest of the way stays with what the network begins from: the completed albedo, else the coarse one."""
    coeff, options = coefficients(face), dict(delit=True, completed=completed, erosion=1, image_size=SIZE)
    photo = speckled(face, coeff, rng)

    def fine(share, training=False):
        def network(inputs, training):
            return 0.5 * inputs[1][..., -3:] + 0.1

        return FaceModel(face, network, correction=share, **options).reconstruct(
            photo, coeff, np.zeros((1, 1)), training=training)["fine_texture"].numpy()
    whole, none = fine(1.0, training=True), fine(0.0)
    (known,), outputs = shown(face, photo, coeff, delit=True, completed=completed, erosion=1)
    np.testing.assert_allclose(none, known[None, :, -3:] if completed else outputs["coarse_texture"], atol=1e-6)
    assert np.abs(whole - none).mean() > 0.02
    believed = 1.0
    if completed:  # less of what the photo shows and the coarse face does not explain
        trust = known[None, :, 6:7]
        unlike = np.abs(known[None, :, -3:] - known[None, :, :3]).max(axis=2, keepdims=True)
        believed = 1.0 - trust / (trust + LITTLE_TRUST) * (1.0 - np.exp(-(unlike / UNKNOWN) ** 2))
        assert believed.min() < 0.5 and (believed[trust == 0] == 1.0).all()
    np.testing.assert_allclose(fine(0.25), none + 0.25 * believed * (whole - none), atol=1e-6)
    np.testing.assert_array_equal(fine(0.25, training=True), whole)


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
