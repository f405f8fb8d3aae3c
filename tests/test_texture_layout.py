"""Texture layouts: every triangle has its place and none lies on another; made ones are kept, broken ones refused."""

import dataclasses

import numpy as np
import pytest

from facegcn import config as settings
from facegcn.errors import ModelFileError, UserError
from facegcn.morphable import MorphableModel
from facegcn.texture import layout as layouts
from facegcn.texture import raster
from facegcn.texture.layout import ensure_layout, layout_of, made_layout, overlap
from facegcn.texture.raster import texels_of
from facegcn.texture_layout import TextureLayout, signed_areas
from tests.faces import half_ellipsoid
from tests.plain_face import plain_face


def grid(points=7):
    """A bent square (points^2, 3) that looks along +z, in [-1, 1], and its triangles."""
    x, y = (axis.ravel() for axis in np.meshgrid(np.linspace(-1, 1, points), np.linspace(1, -1, points)))
    index = np.arange(points * points).reshape(points, points)
    a, b, c, d = index[:-1, :-1], index[1:, :-1], index[:-1, 1:], index[1:, 1:]
    triangles = np.concatenate([np.stack(t, axis=-1).reshape(-1, 3) for t in ((a, b, c), (c, b, d))])
    return np.stack([x, y, 0.4 - 0.3 * (x * x + y * y)], axis=1), triangles


def square_layout():
    """Two triangles that fill the middle half of the texture, one vertex a corner."""
    uv = np.float32([(0.25, 0.75), (0.25, 0.25), (0.75, 0.75), (0.75, 0.25)])
    return TextureLayout(uv, np.int32([(0, 1, 2), (2, 1, 3)]), np.arange(4, dtype=np.int32))


def check_sound(layout, triangles):
    """All triangles of a model are there, inside the texture, not mirrored, and on no other."""
    np.testing.assert_array_equal(layout.vertices[layout.triangles], triangles)
    assert layout.uv.min() >= 0.0 and layout.uv.max() <= 1.0
    assert overlap(layout) < 1e-4
    assert (signed_areas(layout.uv.astype(np.float64), layout.triangles) > 0).mean() > 0.99


# ---------------------------------------------------------------- made layouts
@pytest.fixture(scope="module")
def folded():
    """A face (a bent square), an eyeball (a bowl of its own behind it), and a fold: a pocket that hangs on its rim."""
    front, triangles = grid()
    ball, ball_triangles = grid(9)
    radius = np.linalg.norm(ball[:, :2], axis=1)
    turned = np.stack([ball[:, 0] / np.maximum(radius, 1e-9) * np.sin(radius), ball[:, 1] / np.maximum(radius, 1e-9)
                       * np.sin(radius), np.cos(radius)], axis=1) * 0.12 + (0.3, 0.3, 0.0)
    pocket, pocket_triangles = grid()
    pocket = pocket * (0.9, 1.0, 0.5) - (0.0, 0.0, 0.3)
    rim = np.flatnonzero(pocket[:, 1] == 1.0)
    places = np.arange(len(pocket)) + len(front) + len(turned)
    places[rim] = rim  # shared with the front's upper edge
    shape = np.concatenate([front, turned, pocket])
    return shape, np.concatenate([triangles, ball_triangles + len(front), places[pocket_triangles][:, ::-1]])


def test_what_lies_behind_the_front_gets_places_of_its_own(folded):
    shape, triangles = folded
    layout = made_layout(shape, triangles)
    check_sound(layout, triangles)
    front = layout.uv[layout.triangles[:72]].reshape(-1, 2)
    assert np.prod(np.ptp(front, axis=0)) > 0.4, "the front has most of the texture"
    assert layouts._pieces(layout.triangles[72:72 + 128]).max() == 0, "the eyeball has no seam"


def test_a_made_layout_is_the_same_every_time_and_symmetric():
    model = half_ellipsoid()
    layout, again = (made_layout(model.mean_shape, model.triangles) for _ in range(2))
    check_sound(layout, model.triangles)
    for name in ("uv", "triangles", "vertices"):
        np.testing.assert_array_equal(getattr(layout, name), getattr(again, name))
    places = np.empty((model.vertex_count, 2))
    places[layout.vertices] = layout.uv
    left, right = model.symmetry_pairs.T
    np.testing.assert_allclose(places[left], places[right] * (-1, 1) + (1, 0), atol=1e-5)


def test_the_layout_of_a_face():
    model = plain_face()
    check_sound(layout_of(model), model.triangles)


def test_own_coordinates_serve_where_they_can():
    shape, triangles = grid()
    own = np.float32(shape[:, :2] * 0.5 + 0.5)
    model = half_ellipsoid()
    rows = np.float32(model.mean_shape[:, :2])
    rows = (rows - rows.min(axis=0)) / np.ptp(rows, axis=0)
    good = dataclasses.replace(model, uv=rows)
    np.testing.assert_array_equal(layout_of(good).uv, rows)
    folded_over = np.abs(rows - 0.5)
    for bad in (folded_over, rows + 1.0):
        layout = layout_of(dataclasses.replace(model, uv=bad))
        assert len(layout.uv) != len(bad) or (layout.uv != bad).any()
        check_sound(layout, model.triangles)
    half = TextureLayout(own * (0.5, 1.0), np.concatenate([triangles, triangles[:36]]), np.arange(49))
    assert overlap(half) == pytest.approx(0.5, abs=0.02), "36 of 72 triangles lie there twice"


def test_a_kept_layout_is_made_once(tmp_path, monkeypatch):
    model, config = half_ellipsoid(), dataclasses.replace(settings.Config(), root_dir=str(tmp_path))
    made = ensure_layout(config, model)
    assert made.digest == model.digest and len(list(tmp_path.glob("texture-*.npz"))) == 1
    monkeypatch.setattr(layouts, "layout_of", lambda _: pytest.fail("made again"))
    again = ensure_layout(config, model)
    np.testing.assert_array_equal(again.texture.uv, made.texture.uv)
    assert ensure_layout(config, made) is made


# ---------------------------------------------------------------- in the model file
def test_a_layout_survives_the_file(tmp_path):
    model = half_ellipsoid()
    with_layout = dataclasses.replace(model, texture=layout_of(model))
    with_layout.save(str(tmp_path / "model.npz"))
    read = MorphableModel.load(str(tmp_path / "model.npz"))
    for name in ("uv", "triangles", "vertices"):
        np.testing.assert_array_equal(getattr(read.texture, name), getattr(with_layout.texture, name))
    assert read.digest == model.digest and layout_of(read) is read.texture


@pytest.mark.parametrize("change, message", [
    ({"uv": lambda uv: uv + 0.5}, "expected 0 to 1"),
    ({"uv": lambda uv: np.where(uv > 0.5, np.nan, uv)}, "not finite"),
    ({"triangles": lambda t: t[:, ::-1]}, "are not the model's triangles"),
    ({"triangles": lambda t: t - 1}, "are not the model's triangles"),
    ({"vertices": lambda v: v[:-1]}, "has shape|are not the model's triangles")])
def test_a_broken_layout_is_refused(change, message):
    model = half_ellipsoid()
    layout = layout_of(model)
    broken = dataclasses.replace(layout, **{name: f(getattr(layout, name)) for name, f in change.items()})
    with pytest.raises(ModelFileError, match=message):
        dataclasses.replace(model, texture=broken)


def test_a_part_of_a_layout_is_refused(tmp_path):
    model = half_ellipsoid()
    np.savez(tmp_path / "model.npz", **model.arrays(), texture_uv=np.zeros((4, 2), np.float32))
    with pytest.raises(ModelFileError, match="lacks texture_triangles, texture_vertices: leave all arrays"):
        MorphableModel.load(str(tmp_path / "model.npz"))


# ---------------------------------------------------------------- texels
def test_texels_know_their_place():
    layout, size = layout_of(plain_face()), 96
    texels = texels_of(layout, size)
    assert texels.covered.sum() == len(texels.index) and 0.4 < texels.covered.mean() < 1.0
    shares = np.column_stack([texels.shares, 1.0 - texels.shares.sum(axis=1)])
    places = np.einsum("kc,kcd->kd", shares, layout.texels(size)[layout.triangles[texels.triangles]])
    row, column = np.divmod(texels.index, size)
    np.testing.assert_allclose(places, np.column_stack([column, row]) + 0.5, atol=1e-3)


def test_a_known_square_and_strips(monkeypatch):
    texels = texels_of(square_layout(), 64)
    wanted = np.zeros((64, 64), bool)
    wanted[16:48, 16:48] = True
    np.testing.assert_array_equal(texels.covered, wanted)
    monkeypatch.setattr(raster, "_STRIP", 9)
    strips = texels_of(square_layout(), 64)
    for name in ("index", "gaps", "nearest"):
        np.testing.assert_array_equal(getattr(strips, name), getattr(texels, name))


def test_gaps_take_the_nearest_texel():
    texels = texels_of(square_layout(), 32)
    image = np.full((32 * 32, 2), -1.0)
    image[texels.index] = np.column_stack(np.divmod(texels.index, 32))
    texels.fill_gaps(image)
    row, column = np.divmod(np.arange(32 * 32), 32)
    wanted = np.column_stack([np.clip(row, 8, 23), np.clip(column, 8, 23)])  # of a square the nearest is the clamped
    np.testing.assert_array_equal(image, wanted)


@pytest.mark.parametrize("size", [0, -5, 100000])
def test_senseless_sizes_are_refused(size):
    with pytest.raises(UserError, match="texture size must be from 16 to 8192"):
        texels_of(square_layout(), size)


def test_a_layout_of_no_area_is_refused():
    flat = dataclasses.replace(square_layout(), uv=np.zeros((4, 2), np.float32))
    with pytest.raises(UserError, match="covers no texel"):
        texels_of(flat, 64)
