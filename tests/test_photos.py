"""Reading pictures, landmark files, detection and alignment."""

import struct

import cv2
import numpy as np
import pytest
import skimage.data

from facegcn import landmarks
from facegcn.errors import PhotoError
from facegcn.photos import reading

FACE = np.array([[-0.32, 0.28, 0.2], [0.32, 0.28, 0.2], [0.0, -0.03, 0.57], [-0.25, -0.42, 0.28],
                 [0.25, -0.42, 0.28]])
POINTS = np.array([[40.0, 50], [80, 52], [61, 75], [45, 95], [77, 96]], np.float32)


def _project(scale, offset, face=FACE):
    """Weak-perspective picture of the five points, y down."""
    return (face[:, :2] * (1, -1)) * scale + offset


# ---------------------------------------------------------------- reading
def test_every_kind_of_picture_becomes_8_bit_rgb(tmp_path, rng):
    rgb = rng.integers(0, 256, (9, 7, 3), np.uint8)
    bgr, grey = rgb[..., ::-1], rgb[..., 0]
    alpha = np.dstack([bgr, grey])
    pictures = {"colour.png": (bgr, rgb), "grey.png": (grey, np.dstack([grey] * 3)), "deep.png": (
        bgr.astype(np.uint16) * 257, rgb), "alpha.png": (alpha, np.dstack([rgb, grey])),
        "deepalpha.png": (alpha.astype(np.uint16) * 257, np.dstack([rgb, grey])), "colour.bmp": (bgr, rgb),
        "colour.tiff": (bgr, rgb), "greydeep.tif": (grey.astype(np.uint16) * 257, np.dstack([grey] * 3))}
    for name, (stored, expected) in pictures.items():
        path = str(tmp_path / name)
        assert cv2.imwrite(path, stored)
        image = reading.read_image(path)
        assert image.dtype == np.uint8
        np.testing.assert_array_equal(image, expected, err_msg=name)


def _with_orientation(jpeg: bytes, orientation: int) -> bytes:
    """The JPEG with an EXIF block that holds nothing but the orientation."""
    tiff = b"II*\0" + struct.pack("<I", 8) + struct.pack("<HHHIHHI", 1, 0x0112, 3, 1, orientation, 0, 0)
    block = b"Exif\0\0" + tiff
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + jpeg[2:]


@pytest.mark.parametrize("orientation, turns", [(1, 0), (6, 3), (3, 2), (8, 1)])
def test_exif_orientation_is_followed(tmp_path, orientation, turns):
    rgb = np.zeros((32, 48, 3), np.uint8)
    rgb[:16, :16] = 255
    jpeg = cv2.imencode(".jpg", rgb)[1].tobytes()
    path = tmp_path / "photo.jpg"
    path.write_bytes(_with_orientation(jpeg, orientation))
    image = reading.read_image(str(path))
    assert np.abs(image.astype(int) - np.rot90(rgb, turns)).max() < 60


def test_broken_pictures_are_named(tmp_path):
    jpeg = cv2.imencode(".jpg", skimage.data.astronaut())[1].tobytes()
    png = cv2.imencode(".png", skimage.data.astronaut())[1].tobytes()
    files = {"text.jpg": b"no picture", "empty.png": b"", "short.jpg": jpeg[:len(jpeg) // 2], "short.png": png[:300]}
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(PhotoError, match=name) as raised:
            reading.read_image(str(tmp_path / name))
        assert raised.value.status == "unreadable"
    with pytest.raises(PhotoError, match="absent.png"):
        reading.read_image(str(tmp_path / "absent.png"))
    cv2.imwrite(str(tmp_path / "float.tiff"), np.zeros((4, 4, 3), np.float32))
    with pytest.raises(PhotoError, match="float32"):
        reading.read_image(str(tmp_path / "float.tiff"))


def test_transparent_parts_become_black():
    image = np.full((1, 3, 4), 200, np.uint8)
    image[0, :, 3] = 0, 128, 255
    np.testing.assert_array_equal(reading.opaque(image)[0, :, 0], [0, 100, 200])


# ---------------------------------------------------------------- points
def test_landmark_files_of_5_and_68_rows(tmp_path, rng):
    path = tmp_path / "a.txt"
    path.write_text("# left eye first\n40 50\n80,52\n 61\t75\n\n45.0, 95\n77 96\n")
    np.testing.assert_array_equal(landmarks.read_points(str(path)), POINTS)
    many = rng.random((68, 2)).astype(np.float32) * 200
    landmarks.write_points(str(tmp_path / "a.lm68.txt"), many)
    found = landmarks.points_beside(str(tmp_path / "a.jpg"))
    np.testing.assert_allclose(found, many, atol=0.006)
    five = landmarks.five_points(found)
    np.testing.assert_allclose(five[0], found[36:42].mean(axis=0), rtol=1e-6)
    np.testing.assert_array_equal(five[2:], found[[30, 48, 54]])
    assert landmarks.points_beside(str(tmp_path / "b.jpg")) is None


@pytest.mark.parametrize("text, message", [
    ("1 2\n3 4\n", "has 2 points, expected 5"), ("1 2\n3 x\n", r"line 2: expected 'x y', got '3 x'"),
    ("1 2 3\n", "line 1"), ("1 nan\n", "line 1"), ("", "has 0 points")])
def test_bad_landmark_files_are_named(tmp_path, text, message):
    path = tmp_path / "bad.txt"
    path.write_text(text)
    with pytest.raises(PhotoError, match=rf"bad\.txt.*{message}"):
        landmarks.read_points(str(path))


# ---------------------------------------------------------------- alignment
@pytest.mark.parametrize("size", [224, 112])
def test_a_decimetre_becomes_102_pixels_and_the_origin_the_centre(size):
    points = _project(scale=60.0, offset=(300.0, 200.0))
    transform = reading.alignment_transform(points, FACE, size)
    np.testing.assert_allclose(transform[:, :2], np.eye(2) * 102 / 60 * size / 224, atol=1e-9)
    np.testing.assert_allclose(reading.transform_points(np.array([[300.0, 200.0]]), transform), [[size / 2] * 2],
                               atol=1e-4)
    moved = reading.transform_points(points, transform)
    np.testing.assert_allclose(moved, _project(102 * size / 224, (size / 2, size / 2)), atol=1e-3)


def test_alignment_of_a_turned_face_solves_the_normal_equations(rng):
    yaw, roll = 0.5, 0.3
    turn = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
    tilt = np.array([[np.cos(roll), -np.sin(roll), 0], [np.sin(roll), np.cos(roll), 0], [0, 0, 1]])
    points = _project(80.0, (50.0, 70.0), FACE @ (tilt @ turn).T)
    noisy = points + rng.normal(0, 2.0, points.shape)
    exact = reading.alignment_transform(points, FACE)
    np.testing.assert_allclose(exact[:, :2], np.eye(2) * 102 / 80, rtol=1e-9)
    # The same eight unknowns, written out as one linear system with a row for each coordinate.
    rows, values = [], []
    for (x, y), corner in zip(noisy, FACE):
        rows += [[*corner, 1, 0, 0, 0, 0], [0, 0, 0, 0, *corner, 1]]
        values += [x, -y]
    rows, values = np.array(rows), np.array(values)
    solved = np.linalg.solve(rows.T @ rows, rows.T @ values)
    scale = 102 / ((np.linalg.norm(solved[:3]) + np.linalg.norm(solved[4:7])) / 2)
    expected = np.array([[scale, 0, 112 - scale * solved[3]], [0, scale, 112 + scale * solved[7]]])
    np.testing.assert_allclose(reading.alignment_transform(noisy, FACE), expected, rtol=1e-8, atol=1e-6)


def test_points_that_fix_no_face_are_refused():
    with pytest.raises(PhotoError, match="on each other"):
        reading.alignment_transform(np.tile([[5.0, 5.0]], (5, 1)), FACE)
    with pytest.raises(PhotoError, match="exchanged"):
        reading.alignment_transform(POINTS[[1, 0, 2, 4, 3]], FACE)
    with pytest.raises(ValueError, match=r"\(4, 2\)"):
        reading.alignment_transform(POINTS[:4], FACE)


@pytest.mark.parametrize("scale", [0.4, 1.0, 1.7])
def test_the_crop_and_the_points_move_together(scale):
    rows, columns = np.indices((160, 200)) + 0.5
    spot = np.array([77.3, 64.8])
    image = np.exp(-((columns - spot[0]) ** 2 + (rows - spot[1]) ** 2) / (2 * 7.0 ** 2)) * 250
    image = np.repeat(image.astype(np.uint8)[..., None], 3, axis=2)
    transform = np.array([[scale, 0, 20.4], [0, scale, 11.7]])
    crop = reading.warp(image, transform, 224).astype(np.float64)[..., 0]
    rows, columns = np.indices(crop.shape) + 0.5
    centre = np.array([(crop * columns).sum(), (crop * rows).sum()]) / crop.sum()
    np.testing.assert_allclose(centre, reading.transform_points(spot[None], transform)[0], atol=0.12)


def test_where_the_photo_ends_the_crop_is_black_and_outside():
    image = np.full((120, 110, 3), 180, np.uint8)
    points = _project(60.0, (20.0, 60.0))
    crop = reading.align(image, points, FACE)
    assert crop.image.shape == (224, 224, 3) and crop.image.dtype == np.uint8
    edge = reading.transform_points(np.array([[0.0, 0.0]]), crop.transform)[0]
    assert not crop.inside[:, :int(edge[0]) - 1].any() and not crop.image[:, :int(edge[0]) - 3].any()
    assert crop.inside[112, 112] and crop.image[112, 112, 0] == 180
    assert 0.3 < crop.inside.mean() < 0.9


# ---------------------------------------------------------------- detection
def test_the_detector_finds_the_astronaut_and_is_quiet(capsys):
    aligned = reading.align_photo(skimage.data.astronaut(), None, FACE)
    assert aligned.status == "ok" and aligned.landmarks is None
    seen = np.array([[203, 101], [246, 103], [224, 127], [203, 140], [245, 140]])  # read off the picture
    expected = reading.transform_points(seen, aligned.crop.transform)
    assert np.abs(aligned.points - expected).max() < 8  # of a crop at 1.6 times the photo's scale
    assert np.abs(aligned.points.mean(axis=0) - _project(102.0, (112.0, 112.0)).mean(axis=0)).max() < 15
    assert "".join(capsys.readouterr()) == ""


def test_several_faces_the_largest_is_used():
    face = skimage.data.astronaut()[:256, 100:356]
    small = cv2.resize(face, (150, 150), interpolation=cv2.INTER_AREA)
    both = np.full((256, 460, 3), 128, np.uint8)
    both[:, :256], both[50:200, 280:430] = face, small
    found = reading.detect_landmarks(both)
    assert found.count == 2 and found.points[:, 0].max() < 256
    assert reading.align_photo(both, None, FACE).status == "several faces, the largest used"


@pytest.mark.parametrize("image", [skimage.data.coffee(), np.zeros((64, 64, 3), np.uint8),
                                   np.zeros((3, 5, 3), np.uint8)])
def test_no_face_says_what_to_do(image):
    with pytest.raises(PhotoError, match="NAME.txt") as raised:
        reading.align_photo(image, None, FACE)
    assert raised.value.status == "no face"


def test_points_of_the_detector_do_not_depend_on_the_photos_size():
    face = skimage.data.astronaut()[:256, 100:356]
    large = cv2.resize(face, None, fx=6, fy=6, interpolation=cv2.INTER_CUBIC)
    points = [reading.detect_landmarks(image).points for image in (face, large)]
    assert np.abs(points[1] / 6 - points[0]).max() < 4
