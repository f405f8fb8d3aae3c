"""Transforms, warping and the aligned crop, of upright, rolled, small and cut-out heads."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facegcn.errors import PhotoError
from facegcn.photos import alignment
from facegcn.photos.alignment import TURN_ABOVE, align, align_photo, alignment_transform, face_width
from facegcn.photos.detection import Face
from facegcn.photos.warping import inverse, scale_of, similarity, transform_points, turn, warp

FACE = np.array([[-0.32, 0.28, 0.2], [0.32, 0.28, 0.2], [0.0, -0.03, 0.57], [-0.25, -0.42, 0.28],
                 [0.25, -0.42, 0.28]])
POINTS = np.array([[40.0, 50], [80, 52], [61, 75], [45, 95], [77, 96]], np.float32)


def _project(scale, offset, face=FACE):
    """Weak-perspective picture of the five points, y down."""
    return (face[:, :2] * (1, -1)) * scale + offset


def _blob(spot, width=7.0, shape=(160, 200)):
    """(H, W, 3): a bright blob around a spot (x, y)."""
    rows, columns = np.indices(shape) + 0.5
    image = np.exp(-((columns - spot[0]) ** 2 + (rows - spot[1]) ** 2) / (2 * width ** 2)) * 250
    return np.repeat(image.astype(np.uint8)[..., None], 3, axis=2)


def _centre(image):
    """Centre of brightness (x, y)."""
    grey = image[..., 0].astype(np.float64)
    rows, columns = np.indices(grey.shape) + 0.5
    return np.array([(grey * columns).sum(), (grey * rows).sum()]) / grey.sum()


# ---------------------------------------------------------------- warping
@pytest.mark.parametrize("scale", [0.4, 1.0, 1.7])
@pytest.mark.parametrize("degrees", [0, 30, -45, 90, 135, 180, -120])
def test_the_picture_and_the_points_move_together(scale, degrees):
    spot = np.array([77.3, 64.8])
    transform = similarity(scale, degrees, (90.0, 70.0), (111.4, 99.7))
    crop = warp(_blob(spot), transform, 224)
    np.testing.assert_allclose(_centre(crop), transform_points(spot[None], transform)[0], atol=0.12)


@given(degrees=st.floats(-180, 180), scale=st.floats(1e-3, 1e3), x=st.floats(-1e4, 1e4), y=st.floats(-1e4, 1e4))
def test_a_transform_and_its_inverse_lead_back(degrees, scale, x, y):
    transform = np.column_stack([scale * turn(degrees), (x, y)])
    assert scale_of(transform) == pytest.approx(scale)
    back = inverse(transform)
    np.testing.assert_allclose(back[:, :2] @ (transform[:, :2] @ POINTS.T + transform[:, 2:]) + back[:, 2:], POINTS.T,
                               rtol=1e-6, atol=1e-6 * (1 + (abs(x) + abs(y)) / scale))


@settings(deadline=None, max_examples=40)
@given(degrees=st.floats(-180, 180), scale=st.floats(0.02, 30), x=st.floats(-1e5, 1e5), y=st.floats(-1e5, 1e5),
       nearest=st.booleans())
def test_any_transform_gives_a_picture(degrees, scale, x, y, nearest):
    transform = np.column_stack([scale * turn(degrees), (x, y)])
    found = warp(np.full((50, 70, 3), 200, np.uint8), transform, 64, nearest)
    assert found.shape == (64, 64, 3) and found.dtype == np.uint8


def test_a_panorama_wider_than_opencv_bears_is_cropped():
    image = np.zeros((40, 40_000, 3), np.uint8)
    image[10:20, 39_000:39_020] = 255
    found = warp(image, np.array([[2.0, 0, -78_000], [0, 2.0, 0]]), 64)
    assert (found[22:38, 2:38] == 255).all() and not found[:, 46:].any()


@pytest.mark.parametrize("scale", [0.03, 0.4, 1.0, 3.0])
@pytest.mark.parametrize("degrees", [0, 33])
def test_a_crop_inside_of_the_photo_shows_nothing_of_its_end(scale, degrees):
    photo = np.full((3000, 3000), 255, np.uint8)
    assert (warp(photo, similarity(scale, degrees, (1500.0, 1500.0), 30.0), 60) == 255).all()


# ---------------------------------------------------------------- alignment of upright heads
@pytest.mark.parametrize("size", [224, 112])
def test_a_decimetre_becomes_102_pixels_and_the_origin_the_centre(size):
    points = _project(scale=60.0, offset=(300.0, 200.0))
    transform = alignment_transform(points, FACE, size)
    np.testing.assert_allclose(transform[:, :2], np.eye(2) * 102 / 60 * size / 224, atol=1e-9)
    np.testing.assert_allclose(transform_points(np.array([[300.0, 200.0]]), transform), [[size / 2] * 2], atol=1e-4)
    moved = transform_points(points, transform)
    np.testing.assert_allclose(moved, _project(102 * size / 224, (size / 2, size / 2)), atol=1e-3)
    assert face_width(transform, size) == pytest.approx(1.4 * 60)


def test_alignment_of_a_turned_face_solves_the_normal_equations(rng):
    yaw, roll = 0.5, 0.15
    around = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
    tilt = np.array([[np.cos(roll), -np.sin(roll), 0], [np.sin(roll), np.cos(roll), 0], [0, 0, 1]])
    points = _project(80.0, (50.0, 70.0), FACE @ (tilt @ around).T)
    noisy = points + rng.normal(0, 2.0, points.shape)
    exact = alignment_transform(points, FACE)
    np.testing.assert_allclose(exact[:, :2], np.eye(2) * 102 / 80, rtol=1e-9, atol=1e-9)
    # The same eight unknowns, written out as one linear system with a row for each coordinate.
    rows, values = [], []
    for (x, y), corner in zip(noisy, FACE):
        rows += [[*corner, 1, 0, 0, 0, 0], [0, 0, 0, 0, *corner, 1]]
        values += [x, -y]
    rows, values = np.array(rows), np.array(values)
    solved = np.linalg.solve(rows.T @ rows, rows.T @ values)
    scale = 102 / ((np.linalg.norm(solved[:3]) + np.linalg.norm(solved[4:7])) / 2)
    expected = np.array([[scale, 0, 112 - scale * solved[3]], [0, scale, 112 + scale * solved[7]]])
    np.testing.assert_allclose(alignment_transform(noisy, FACE), expected, rtol=1e-8, atol=1e-6)


def test_points_that_fix_no_face_are_refused():
    with pytest.raises(PhotoError, match="on each other"):
        alignment_transform(np.tile([[5.0, 5.0]], (5, 1)), FACE)
    for degrees in (0, 40, 170):
        with pytest.raises(PhotoError, match="exchanged"):
            alignment_transform(POINTS[[1, 0, 2, 4, 3]] @ turn(degrees).T, FACE)
    with pytest.raises(ValueError, match=r"\(4, 2\)"):
        alignment_transform(POINTS[:4], FACE)


# ---------------------------------------------------------------- rolled heads
@given(degrees=st.floats(-179, 179), scale=st.floats(20, 900))
def test_a_head_rolled_far_is_turned_upright_and_others_are_not_turned(degrees, scale):
    points = _project(scale, (0, 0)) @ turn(degrees).T + (700.0, 400.0)
    transform = alignment_transform(points, FACE)
    if abs(degrees) > TURN_ABOVE + 1e-6:
        expected = _project(102.0, (112.0, 112.0))
        np.testing.assert_allclose(points @ transform[:, :2].T + transform[:, 2], expected, atol=1e-3)
    elif abs(degrees) < TURN_ABOVE - 1e-6:
        np.testing.assert_allclose(transform[:, :2], np.eye(2) * 102 / scale, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("degrees", [45, -60, 90, 180])
def test_the_crop_of_a_turned_photo_is_the_crop_of_the_photo(degrees):
    rng = np.random.default_rng(0)
    noise = cv2.GaussianBlur(rng.normal(0, 1, (400, 400, 3)), (0, 0), 5)
    photo = np.clip(128 + 40 * noise / noise.std(), 0, 255).astype(np.uint8)
    points = _project(90.0, (200.0, 190.0)).astype(np.float32)
    move = similarity(1.0, degrees, (200.0, 200.0), 300.0)
    upright = align_photo(photo, points, FACE)
    rolled = align_photo(warp(photo, move, 600), transform_points(points, move), FACE)
    assert upright.status == "ok" and f"rolled by {abs(degrees)} degrees" in rolled.status
    np.testing.assert_allclose(rolled.points, upright.points, atol=0.01)
    both = upright.crop.inside & rolled.crop.inside
    assert both.mean() > 0.9
    assert np.abs(rolled.crop.image.astype(int) - upright.crop.image)[both].mean() < 2.0


# ---------------------------------------------------------------- edges, sizes, transparency
def test_where_the_photo_ends_the_crop_is_black_and_outside():
    image = np.full((120, 110, 3), 180, np.uint8)
    crop = align(image, _project(60.0, (20.0, 60.0)), FACE)
    assert crop.image.shape == (224, 224, 3) and crop.image.dtype == np.uint8
    edge = transform_points(np.array([[0.0, 0.0]]), crop.transform)[0]
    assert not crop.inside[:, :int(edge[0]) - 1].any() and not crop.image[:, :int(edge[0]) - 3].any()
    assert crop.inside[112, 112] and crop.image[112, 112, 0] == 180
    assert 0.3 < crop.inside.mean() < 0.9


def test_transparency_limits_where_the_picture_is():
    image = np.full((300, 300, 4), 180, np.uint8)
    image[..., 3] = 255
    image[:, 160:, 3] = 0
    image[:, :140, 3] = 200
    crop = align(image, _project(60.0, (150.0, 150.0)), FACE)
    edge = int(transform_points(np.array([[160.0, 0.0]]), crop.transform)[0, 0])
    assert crop.inside[5:-5, 5:edge - 2].all() and not crop.inside[:, edge + 2:].any()
    assert (crop.image[5:-5, 5:edge - 3] == 180).all() and not crop.image[:, edge + 3:].any()


@pytest.mark.parametrize("points", [POINTS + 500, POINTS * 72, POINTS - 300, POINTS + (95, 0)])
def test_points_outside_the_photo_say_so(points):
    message = "outside the photo, which has 120 x 150 pixels; are they of another size"
    with pytest.raises(PhotoError, match=message) as raised:
        align_photo(np.zeros((150, 120, 3), np.uint8), points.astype(np.float32), FACE)
    assert raised.value.status == "bad points"


def test_points_of_a_speck_and_small_faces_say_so():
    image = np.zeros((600, 600, 3), np.uint8)
    message = "only 1 pixels wide in a photo of 600 x 600; are they of another size"
    with pytest.raises(PhotoError, match=message) as raised:
        align_photo(image, POINTS / 72 + 5, FACE)
    assert raised.value.status == "bad points"
    for width, remark in ((20, "only 20 pixels wide: expect blur"), (59, "only 59 pixels"), (61, "ok"), (200, "ok")):
        assert remark in align_photo(image, _project(width / 1.4, (300, 300)), FACE).status
        rolled = _project(width / 1.4, (0, 0)) @ turn(50).T + 300
        assert (remark in align_photo(image, rolled, FACE).status) == (remark != "ok")
    assert align_photo(image, _project(100.0, (300, 300)), FACE, 64).status == "ok"  # the crop's width does not matter


def test_a_speck_that_was_detected_is_told_as_no_face(monkeypatch):
    speck = Face(_project(10 / 1.4, (300, 300)), None, (295, 295, 10, 10), 1.0)
    monkeypatch.setattr(alignment, "find_faces", lambda image: [speck])
    with pytest.raises(PhotoError, match="largest face is only 10 pixels wide; take a photo") as raised:
        align_photo(np.zeros((600, 600, 3), np.uint8), None, FACE)
    assert raised.value.status == "no face"


def test_remarks_make_the_status():
    crop = alignment.Crop(np.zeros((2, 2, 3), np.uint8), np.eye(2, 3), np.ones((2, 2), bool))
    assert alignment.AlignedPhoto(crop, POINTS, None).status == "ok"
    assert alignment.AlignedPhoto(crop, POINTS, None, ("a", "b")).status == "a, b"
