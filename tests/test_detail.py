"""The detail step: sharp marks of the photo become albedo, broad shadows light, and nothing else changes."""

from types import SimpleNamespace

import numpy as np
import pytest

from facegcn.face_model import FaceModel
from facegcn.reconstruction import detail
from facegcn.reconstruction.detail import STRENGTH, DetailStep
from tests.faces import half_ellipsoid

SIZE = 160


@pytest.fixture(scope="module")
def face():
    """A face whose vertices are about a pixel apart, its drawing, and the step for it."""
    model = FaceModel(half_ellipsoid(65, 81), image_size=SIZE)
    coeff = np.zeros((1, model.morphable.coefficient_count), np.float32)
    model.morphable.split(coeff).gamma[:, [0, 2]] = 0.15, 0.1
    geometry = model.geometry(coeff)
    raster, points = geometry["rasterization"], model.morphable.mean_shape

    def photo(lit):
        return model.render(raster, np.float32(lit)[None]).numpy()[0, ..., :3] * 0.5 + 0.5
    return SimpleNamespace(
        albedo=geometry["coarse_texture"].numpy()[0] * 0.5 + 0.5, shading=geometry["shading"].numpy()[0],
        facing=geometry["normals"].numpy()[0, :, 2], photo=photo, points=points - points.mean(axis=0),
        ids=raster.triangle_ids.numpy()[0], barycentrics=raster.barycentrics.numpy()[0],
        step=DetailStep(model.morphable.triangles, len(points)), triangles=model.morphable.triangles)


def found(face, photo, mask=None, facing=None, albedo=None, trust=0.0):
    """What the step finds, by default wherever the face is, trusting no colour but for its fine detail."""
    mask = np.ones((SIZE, SIZE), bool) if mask is None else mask
    return face.step(face.albedo if albedo is None else albedo, face.shading, face.facing if facing is None else facing,
                     np.full(len(face.points), trust), photo, mask, face.ids, face.barycentrics)


def mark(face, place, width=0.08):
    """(N, 1) 1 at a place (x, y) of the face, fading within a few vertices."""
    squared = ((face.points[:, :2] - place) ** 2).sum(axis=1, keepdims=True)
    return np.exp(-squared / width ** 2)


def in_sight(face, mask):
    """Vertices with a share in a pixel of the mask."""
    there = np.zeros(len(face.points), bool)
    inside = mask & (face.ids >= 0)
    corners = face.triangles[face.ids[inside]]
    there[corners[face.barycentrics[inside] > 0]] = True
    return there


def test_a_texture_that_reproduces_the_photo_stays(face):
    result = found(face, face.photo(face.albedo * face.shading))
    np.testing.assert_allclose(result.albedo, face.albedo, atol=2e-3)
    np.testing.assert_allclose(result.light, 1.0, atol=5e-3)


def test_lit_colours_are_the_photos_whatever_it_shows(face):
    """Three quarters of a mark become albedo, and none of a shadow: the rest is in the light."""
    change = 0.6 ** mark(face, (0.25, 0.2)) * 1.3 ** mark(face, (-0.2, -0.1), 0.3)
    photo = face.photo(face.albedo * face.shading * change)
    result = found(face, photo)
    drawn = face.photo(result.lit)
    before = face.photo(face.albedo * face.shading)
    assert np.abs(drawn - photo).mean() < 0.05 * np.abs(before - photo).mean()


@pytest.mark.parametrize("factor", [0.6, 1.3])
def test_a_sharp_mark_comes_into_the_albedo(face, factor):
    """In its place and with its sign, as far as it is believed; its surroundings do not change."""
    spot = mark(face, (0.25, 0.2))
    result = found(face, face.photo(face.albedo * face.shading * factor ** spot))
    change = np.log(result.albedo / face.albedo).mean(axis=1)
    middle = spot[:, 0] > 0.6
    assert middle.sum() > 5
    # Less than that by what is taken for broad, and by pixels that the vertex shares.
    share = change[middle] / (np.log(factor) * spot[middle, 0] * face.facing[middle])
    assert (share > 0.6 * STRENGTH).all() and (share < STRENGTH).all()
    assert np.abs(change[spot[:, 0] < 1e-6]).max() < 0.03
    errors = [np.abs(albedo - face.albedo * factor ** spot)[middle].mean() for albedo in (result.albedo, face.albedo)]
    assert errors[0] < 0.7 * errors[1]


def test_a_broad_shadow_is_light_and_not_albedo(face):
    shadow = 1.0 - 0.4 / (1.0 + np.exp(-face.points[:, :1] / 0.15))
    result = found(face, face.photo(face.albedo * face.shading * shadow))
    sure = (np.abs(face.points[:, :2]) < (0.5, 0.6)).all(axis=1)  # but for the rim, of which few pixels tell
    assert np.abs(np.log(result.albedo / face.albedo))[sure].mean() < 0.1 * np.abs(np.log(shadow))[sure].mean()
    explained = np.log(result.light * result.albedo / face.albedo)[sure].mean(axis=1)
    np.testing.assert_allclose(explained, np.log(shadow[sure, 0]), atol=0.08)


def test_a_broad_difference_is_albedo_where_colours_are_trusted(face):
    """Between none and all, by the root of the trust."""
    paler = 1.0 - 0.4 / (1.0 + np.exp(-face.points[:, :1] / 0.15))
    photo, sure = face.photo(face.albedo * face.shading * paler), (np.abs(face.points[:, :2]) < (0.5, 0.6)).all(axis=1)
    shares = []
    for trust in (0.0, 0.25, 1.0):
        change = np.log(found(face, photo, trust=trust).albedo / face.albedo)[sure]
        shares.append(np.abs(change).mean() / np.abs(np.log(paler))[sure].mean())
    assert shares[0] < 0.1 and shares[1] == pytest.approx(0.5, abs=0.1) and shares[2] == pytest.approx(1.0, abs=0.1)


def test_nothing_changes_outside_the_mask(face):
    mask = np.zeros((SIZE, SIZE), bool)
    mask[:, :SIZE // 2] = True
    marks = mark(face, (0.25, 0.2)) + mark(face, (-0.25, 0.2))
    result = found(face, face.photo(face.albedo * face.shading * 0.6 ** marks), mask)
    outside = ~in_sight(face, mask)
    assert 0.3 < outside.mean() < 0.7
    np.testing.assert_allclose(result.albedo[outside], face.albedo[outside], atol=1e-6)
    np.testing.assert_array_equal(result.light[outside], 1.0)
    assert np.abs(result.albedo - face.albedo)[~outside].max() > 0.1


def test_grazing_and_averted_vertices_keep_their_albedo(face):
    facing = np.where(face.points[:, 0] > 0, 0.0, -0.5)
    facing = np.where(np.abs(face.points[:, 0]) < 0.1, 1.0, facing)
    marks = mark(face, (0.25, 0.2)) + mark(face, (0, 0.2))
    result = found(face, face.photo(face.albedo * face.shading * 0.6 ** marks), facing=facing)
    np.testing.assert_allclose(result.albedo[facing <= 0], face.albedo[facing <= 0], atol=1e-6)
    assert np.abs(result.albedo - face.albedo)[facing == 1].max() > 0.1


def test_no_skin_at_all_changes_nothing(face):
    result = found(face, face.photo(face.albedo), np.zeros((SIZE, SIZE), bool))
    np.testing.assert_allclose(result.albedo, face.albedo, atol=1e-6)
    np.testing.assert_array_equal(result.light, 1.0)


def test_changes_have_limits_and_colours_stay_in_range(face, rng):
    """Whatever the photo, and however dark the network's face."""
    noise = rng.choice([0.0, 1.0], (SIZE, SIZE, 3))
    albedo = np.where(rng.random(face.albedo.shape) < 0.5, 0.0, face.albedo)
    for given in (face.albedo, albedo):
        result = found(face, noise, albedo=given)
        assert np.isfinite(result.albedo).all() and 0.0 <= result.albedo.min() and result.albedo.max() <= 1.0
        change = np.abs(np.log(result.albedo / np.maximum(given, 0.02)))
        assert 0.3 < change.max() <= STRENGTH * detail._GREATEST + 1e-4
        assert np.abs(np.log(result.light)).max() <= detail._GREATEST_LIGHT + 1e-4


def test_colours_are_those_of_a_direct_solve(face, rng):
    """The nearest picture, with a small pull to the colours before: dense normal equations of a few pixels."""
    mask = np.zeros((SIZE, SIZE), bool)
    mask[60:68, 70:78] = True
    colors, photo = face.albedo * face.shading, rng.random((SIZE, SIZE, 3))
    shown = detail._Pixels(face.triangles, len(colors), photo, mask, face.ids, face.barycentrics)
    wanted, visible = shown.reproduced(np.float32(colors)), shown.visible
    pixels = np.argwhere(mask)
    drawing = np.zeros((len(pixels), len(colors)))
    for row, (y, x) in enumerate(pixels):
        drawing[row, face.triangles[face.ids[y, x]]] = face.barycentrics[y, x]
    used = np.flatnonzero(drawing.sum(axis=0))
    drawing = drawing[:, used]
    system = drawing.T @ drawing + detail._HOLD * np.eye(len(used))
    right = drawing.T @ (photo[mask] - drawing @ colors[used])
    # What is drawn of them: the iteration ends before colours settle that hardly any pixel tells of.
    np.testing.assert_allclose(drawing @ (wanted[used] - colors[used]), drawing @ np.linalg.solve(system, right),
                               atol=0.02)
    shares = drawing.sum(axis=0)
    np.testing.assert_allclose(visible[used], shares / (shares + detail._LEAST_PIXELS), atol=1e-5)
    assert not visible[np.setdiff1d(np.arange(len(colors)), used)].any()
