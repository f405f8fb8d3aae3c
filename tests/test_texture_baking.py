"""Baking: what the photo shows comes at its sharpness, what it hides keeps the vertices' colours, nothing bleeds."""

import cv2
import numpy as np
import pytest

from facegcn import camera
from facegcn.geometry import vertex_normals
from facegcn.rasterizer import rasterize
from facegcn.texture import baking, seen
from facegcn.texture.baking import BakedFace, Baker
from facegcn.texture.drawing import Drawing, draw_textured
from facegcn.texture.layout import layout_of
from facegcn.texture.paste import pasted
from facegcn.texture_layout import TextureLayout
from tests.faces import half_ellipsoid

CROP = 64  # pixels
PLAIN, LIGHT = (0.6, 0.45, 0.35), (0.8, 0.9, 1.0)


@pytest.fixture(scope="module")
def model():
    return half_ellipsoid(rows=33, columns=41)


@pytest.fixture(scope="module")
def layout(model):
    return layout_of(model)


@pytest.fixture(scope="module")
def baker(model, layout):
    return Baker(model, layout, 256)


def wavy(height, width, period=20.0):
    """A smooth bright picture (h, w, 3) uint8."""
    y, x = np.mgrid[:height, :width] + 0.5
    waves = np.stack([np.sin(6.28 * x / period), np.cos(6.28 * y / period), np.sin(6.28 * (x + y) / period)], axis=-1)
    return np.round(140 + 60 * waves).astype(np.uint8)


def face_of(model, photo=None, transform=None, mask=None, world=None, triangles=None):
    """The mean face, plain, its photo by default twice as fine as the crop."""
    world = model.mean_shape - model.mean_shape.mean(axis=0) if world is None else world
    normals = vertex_normals(world[None], model.triangles if triangles is None else triangles)[0].numpy()
    photo = wavy(2 * CROP, 2 * CROP) if photo is None else photo
    transform = np.float64([[0.5, 0, 0], [0, 0.5, 0]]) if transform is None else transform
    mask = np.ones((CROP, CROP), bool) if mask is None else mask
    return BakedFace(world, normals, np.tile(PLAIN, (len(world), 1)), np.tile(LIGHT, (len(world), 1)), photo,
                     np.asarray(transform, np.float64), mask)


def places_of(baker, world, size):
    """(K, 2) places of the covered texels in the camera's square picture of this size, by TensorFlow's camera."""
    texels, layout = baker.texels, baker.layout
    shares = np.column_stack([texels.shares, 1.0 - texels.shares.sum(axis=1)])
    points = np.einsum("kc,kcd->kd", shares, world[layout.vertices[layout.triangles[texels.triangles]]])
    return camera.to_pixels(camera.project(points[None]), size).numpy()[0]


def bilinear(image, places):
    """Values (K, C) of an image between its pixel centres."""
    image, places = image.astype(np.float64), np.clip(places - 0.5, 0, np.array(image.shape[1::-1]) - 1.001)
    column, row = places.astype(int).T
    across, down = (places - np.floor(places)).T[..., None]
    upper = image[row, column] * (1 - across) + image[row, column + 1] * across
    lower = image[row + 1, column] * (1 - across) + image[row + 1, column + 1] * across
    return upper * (1 - down) + lower * down


# ---------------------------------------------------------------- baking
def test_where_it_is_sure_the_lit_texture_is_the_photo(model, baker):
    face = face_of(model)
    found = baker(face)
    texels = baker.texels
    confidence = found.confidence.ravel()[texels.index]
    sure = confidence == 255
    assert 0.4 < sure.mean() < 0.95
    wanted = bilinear(face.photo, places_of(baker, face.world, 2 * CROP))[sure]
    np.testing.assert_allclose(found.lit.reshape(-1, 3)[texels.index[sure]], wanted, atol=4)
    plain = np.multiply(PLAIN, 255)
    detail = np.log(wanted / LIGHT / plain)
    share = baking._SHARE / (1 + (baking._NOISE / (plain * LIGHT) / np.maximum(np.abs(detail), 1e-9)) ** 2)
    np.testing.assert_allclose(found.albedo.reshape(-1, 3)[texels.index[sure]],
                               np.minimum(plain * np.exp(share * detail), 255), atol=4)
    unsure = confidence == 0
    assert unsure.sum() > 200, "the sides are seen at too small an angle"
    np.testing.assert_allclose(found.albedo.reshape(-1, 3)[texels.index[unsure]],
                               np.tile(np.multiply(PLAIN, 255), (unsure.sum(), 1)), atol=1)


def test_between_them_colours_change_smoothly(model, baker):
    """A photo that is brighter by a fifth everywhere: the border of what is seen is a slope, not a step."""
    photo = np.tile(np.uint8(np.multiply(PLAIN, LIGHT) * 255 * 1.2), (CROP, CROP, 1))
    found = baker(face_of(model, photo, np.eye(2, 3)))
    steps = np.abs(np.diff(found.lit[..., 0].astype(int), axis=1)).max()
    assert np.ptp(found.lit[..., 0]) > 20 and steps <= 14


def test_a_fine_photo_is_averaged_over_each_texel(model, baker):
    """Black and white pixels, 16 to one of the crop: their mean, and no pattern that is not there."""
    size = 16 * CROP
    photo = np.repeat((np.indices((size, size)).sum(axis=0) % 2 * 200 + 20).astype(np.uint8)[..., None], 3, axis=2)
    found = baker(face_of(model, photo, np.float64([[1 / 16, 0, 0], [0, 1 / 16, 0]])))
    sure = baker.texels.index[found.confidence.ravel()[baker.texels.index] == 255]
    values = found.lit.reshape(-1, 3)[sure].astype(float)
    assert abs(values.mean() - 120) < 2 and values.std() < 12


def test_a_turned_photo_gives_the_same(model, baker):
    whole = face_of(model)
    turned = whole._replace(photo=np.ascontiguousarray(np.rot90(whole.photo)),
                            transform=np.float64([[0, -0.5, CROP], [0.5, 0, 0]]))
    # rot90 carries (x, y) to (y, w - x), so a photo's (x', y') came from (w - y', x')
    for first, second in zip(baker(whole), baker(turned)):
        assert np.abs(first.astype(int) - second).max() <= 2


def test_what_lies_outside_photo_or_mask_keeps_its_colour(model, baker):
    mask = np.zeros((CROP, CROP), bool)
    mask[:, :CROP // 2] = True
    face = face_of(model, mask=mask)
    found, x = baker(face), places_of(baker, face.world, CROP)[:, 0]
    confidence = found.confidence.ravel()[baker.texels.index]
    assert confidence[x > CROP / 2 + 1].max() == 0 and confidence[x < CROP / 2 - 4].max() == 255
    assert found.visibility.ravel()[baker.texels.index][(x > CROP / 2 + 1)].max() == 255
    cut = face_of(model, photo=wavy(2 * CROP, CROP))  # the photo ends in the middle of the face
    found = baker(cut)
    assert found.visibility.ravel()[baker.texels.index][x > CROP / 2 + 0.5].max() == 0


def test_nothing_bleeds_on_what_is_hidden(model):
    """A small plate before the face, red in the photo: the skin behind it stays as it is."""
    world = model.mean_shape - model.mean_shape.mean(axis=0)
    plate = np.float32([(-0.2, 0.2, 1.0), (-0.2, -0.2, 1.0), (0.2, 0.2, 1.0), (0.2, -0.2, 1.0)])
    count = len(world)
    shape, triangles = np.concatenate([world, plate]), np.concatenate(
        [model.triangles, np.int32([(0, 1, 2), (2, 1, 3)]) + count])
    skin = layout_of(model)
    both = TextureLayout(np.concatenate([skin.uv * (1, 0.8) + (0, 0.2), plate[:, :2] * 0.4 + 0.1]).astype(np.float32),
                         np.concatenate([skin.triangles, np.int32([(0, 1, 2), (2, 1, 3)]) + len(skin.uv)]),
                         np.concatenate([skin.vertices, np.arange(4, dtype=np.int32) + count]))

    class Two:
        pass
    two = Two()
    two.triangles = triangles
    baker = Baker(two, both, 256)
    photo = np.tile(np.uint8(np.multiply(PLAIN, LIGHT) * 255), (4 * CROP, 4 * CROP, 1))
    corners = camera.to_pixels(camera.project(plate[None]), 4 * CROP).numpy()[0]
    (left, top), (right, bottom) = (np.round(pick(corners, axis=0)).astype(int) for pick in (np.min, np.max))
    photo[top:bottom, left:right] = (250, 0, 0)
    found = baker(face_of(two, photo, np.float64([[0.25, 0, 0], [0, 0.25, 0]]), world=shape))
    of_plate = baker.texels.triangles >= len(model.triangles)
    skin_colors = found.lit.reshape(-1, 3)[baker.texels.index[~of_plate]].astype(float)
    np.testing.assert_allclose(skin_colors, np.tile(np.multiply(np.multiply(PLAIN, LIGHT), 255), (len(skin_colors), 1)),
                               atol=10)  # of 128: the photo's own pixels are broad
    assert (found.lit.reshape(-1, 3)[baker.texels.index[of_plate]][:, 0] > 200).mean() > 0.5
    x, y = places_of(baker, shape, 4 * CROP)[~of_plate].T
    behind = (x > left + 2) & (x < right - 2) & (y > top + 2) & (y < bottom - 2)
    assert behind.sum() > 50 and found.visibility.ravel()[baker.texels.index[~of_plate][behind]].max() == 0


def test_gaps_are_filled(model, baker):
    found = baker(face_of(model))
    gaps = ~baker.texels.covered
    assert gaps.any() and (found.albedo[gaps].max(axis=1) > 50).all()


@pytest.mark.parametrize("mask", [
    np.ones((CROP, CROP), bool), np.pad(np.ones((20, 12), np.uint8) * 255, ((30, 14), (9, 43))),
    np.zeros((CROP, CROP), bool)])
def test_trust_is_looked_for_where_the_face_is_only(model, monkeypatch, mask):
    """As if all of the picture were looked at."""
    front = seen.front_depth(model.mean_shape - model.mean_shape.mean(axis=0), model.triangles)
    front[400:600, 480:500] += 0.3  # something stands before it
    found = seen.trusted(front, mask)
    monkeypatch.setattr(seen, "_region", lambda good: (slice(None), slice(None)))
    np.testing.assert_array_equal(found, seen.trusted(front, mask))
    assert (found.max() == 1.0) == mask.any()


@pytest.mark.parametrize("change", [
    {"world": np.zeros((5, 3))}, {"albedo": np.zeros((4, 3))}, {"photo": np.zeros((9, 9, 4), np.uint8)},
    {"photo": np.zeros((9, 9, 3))}, {"mask": np.ones((9, 8), bool)}, {"transform": np.eye(3)}])
def test_misshapen_arrays_are_refused(model, baker, change):
    with pytest.raises(ValueError, match=next(iter(change))):
        baker(face_of(model)._replace(**change))


def test_clip_coordinates_are_the_cameras():
    points = np.random.default_rng(0).normal(size=(20, 3))
    np.testing.assert_allclose(seen.clip_coordinates(points), camera.clip_coordinates(points[None], 8, 8)[0],
                               atol=1e-4)
    transform = np.float64([[0.0, -3.0, 50.0], [3.0, 0.0, -20.0]])
    clip = seen.clip_coordinates(points, transform, CROP, 120, 200)
    pixels = (clip[:, :2] / clip[:, 3:] * (1, -1) + 1) * (100, 60)
    crop = camera.to_pixels(camera.project(points[None]), CROP).numpy()[0]
    np.testing.assert_allclose(pixels, crop @ transform[:, :2].T + transform[:, 2], atol=1e-3)


# ---------------------------------------------------------------- drawing
def test_a_textured_face_looks_as_its_vertices(model, layout):
    """A texture that is linear in the picture: what the vertices carry and what the texels do are the same."""
    world = model.mean_shape - model.mean_shape.mean(axis=0)
    drawing = Drawing(world, layout, 80, 80)
    texture = np.stack(np.meshgrid(np.arange(128) + 0.5, np.arange(128) + 0.5), axis=-1).astype(np.float32)
    places = np.zeros((len(world), 2))
    places[layout.vertices] = layout.texels(128)
    np.testing.assert_allclose(drawing.colors(texture), drawing.attributes(places), atol=1e-2)
    ids = rasterize(camera.clip_coordinates(world[None], 80, 80), model.triangles, 80, 80).triangle_ids[0].numpy()
    np.testing.assert_array_equal(drawing.covered, ids >= 0)


def test_the_lit_texture_drawn_is_the_photo_and_in_other_light_is_not(model, baker, layout):
    face = face_of(model)
    found = baker(face)
    picture = draw_textured(face.world, layout, found.lit, 2 * CROP)
    sure = Drawing(face.world, layout, 2 * CROP, 2 * CROP).colors(found.confidence[..., None])[..., 0] > 254
    assert picture.shape == (2 * CROP, 2 * CROP, 4) and sure.sum() > 1000 and (picture[sure][:, 3] == 255).all()
    off = np.abs(picture[sure][:, :3].astype(int) - face.photo[sure])
    assert off.mean() < 2 and off.max() < 16
    dark = Drawing(face.world, layout, 40, 40).relit(found.albedo, np.full((len(face.world), 3), 0.5))
    plain = Drawing(face.world, layout, 40, 40).relit(found.albedo, np.ones((len(face.world), 3)))
    np.testing.assert_allclose(dark, plain / 2.0, atol=1)


def test_small_pictures_of_large_textures_are_averaged(model, layout):
    texture = np.repeat((np.indices((1024, 1024)).sum(axis=0) % 2 * 200 + 20).astype(np.uint8)[..., None], 3, axis=2)
    drawing = Drawing(model.mean_shape - model.mean_shape.mean(axis=0), layout, 64, 64)
    colors = drawing.colors(texture)[drawing.covered]
    assert colors.std() < 1 and abs(colors.mean() - 120) < 1


# ---------------------------------------------------------------- back into the photo
def test_the_face_lies_on_its_photo(model, baker, layout):
    photo, shift = wavy(3 * CROP, 4 * CROP), np.float64([[0.5, 0, -20], [0, 0.5, -10]])
    mask = cv2.circle(np.zeros((CROP, CROP), np.uint8), (32, 32), 18, 255, -1)
    face = face_of(model, photo, shift, mask)
    found = baker(face)
    whole = pasted(photo, face.world, layout, found.lit, shift, mask)
    assert whole.shape == photo.shape and np.abs(whole.astype(int) - photo).mean() < 0.5
    red = np.zeros_like(found.lit) + np.uint8([255, 0, 0])
    painted = pasted(photo, face.world, layout, red, shift, mask)
    y, x = np.mgrid[:3 * CROP, :4 * CROP] + 0.5
    from_middle = np.hypot(x * 0.5 - 20 - 32.5, y * 0.5 - 10 - 32.5)
    np.testing.assert_array_equal(painted[from_middle > 19.5], photo[from_middle > 19.5])
    assert (painted[from_middle < 14] == (255, 0, 0)).all()
    border = painted[(from_middle > 17.5) & (from_middle < 18)].astype(int)
    assert (border[:, 1] > 5).all(), "it ends softly"


@pytest.mark.parametrize("shift", [(500.0, 0.0), (-40.0, 0.0)])
def test_a_face_that_leaves_the_photo(model, baker, layout, shift):
    transform = np.float64([[1, 0, shift[0]], [0, 1, shift[1]]])
    face = face_of(model, wavy(CROP, CROP), transform)
    result = pasted(face.photo, face.world, layout, baker(face).lit, transform, face.mask)
    assert result.shape == face.photo.shape


def test_pasting_refuses_what_is_no_photo(model, layout):
    world, texture = model.mean_shape, np.zeros((16, 16, 3), np.uint8)
    with pytest.raises(ValueError, match="photo must be"):
        pasted(np.zeros((9, 9, 3)), world, layout, texture, np.eye(2, 3), np.ones((8, 8), bool))
    with pytest.raises(ValueError, match="mask must have"):
        pasted(np.zeros((9, 9, 3), np.uint8), world, layout, texture, np.eye(2, 3), np.ones((8, 9), bool))
