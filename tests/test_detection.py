"""The detector, on faces of every size and direction, and on pictures without one."""

import cv2
import numpy as np
import pytest
import skimage.data

from facegcn.errors import PhotoError
from facegcn.landmarks import read_points
from facegcn.photos import detection
from facegcn.photos.alignment import align_photo
from facegcn.photos.detection import detect_landmarks
from facegcn.photos.reading import read_image
from facegcn.photos.warping import similarity, transform_points, warp

FACE = np.array([[-0.32, 0.28, 0.2], [0.32, 0.28, 0.2], [0.0, -0.03, 0.57], [-0.25, -0.42, 0.28],
                 [0.25, -0.42, 0.28]])
#: Read off skimage's picture of the astronaut.
SEEN = np.array([[203.0, 101], [246, 103], [224, 127], [203, 140], [245, 140]])


def _turned(image, points, degrees):
    """A photo and its points, turned around its centre on grey ground."""
    height, width = image.shape[:2]
    size = int(np.hypot(height, width))
    transform = similarity(1.0, degrees, (width / 2.0, height / 2.0), size / 2.0)
    shown = warp(np.full((height, width, 1), 255, np.uint8), transform, size)
    turned = warp(image, transform, size)
    turned[shown < 128] = 90
    return turned, transform_points(points, transform)


def _error(found, points):
    """Mean distance as a part of the distance from eyes to mouth."""
    return np.linalg.norm(found - points, axis=1).mean() / np.linalg.norm(points[3:] - points[:2], axis=1).mean()


def test_the_astronaut_is_found_and_the_detector_is_quiet(capsys):
    aligned = align_photo(skimage.data.astronaut(), None, FACE)
    assert aligned.status == "ok" and aligned.landmarks is None
    expected = transform_points(SEEN, aligned.crop.transform)
    assert np.abs(aligned.points - expected).max() < 8  # of a crop at 1.6 times the photo's scale
    upright = FACE[:, :2] * (102, -102) + 112
    assert np.abs(aligned.points.mean(axis=0) - upright.mean(axis=0)).max() < 15
    assert "".join(capsys.readouterr()) == ""


def test_several_faces_the_largest_is_used():
    face = skimage.data.astronaut()[:256, 100:356]
    small = cv2.resize(face, (150, 150), interpolation=cv2.INTER_AREA)
    both = np.full((256, 460, 3), 128, np.uint8)
    both[:, :256], both[50:200, 280:430] = face, small
    found = detect_landmarks(both)
    assert found.count == 2 and found.points[:, 0].max() < 256
    assert align_photo(both, None, FACE).status == "several faces, the largest used"


@pytest.mark.parametrize("image", [skimage.data.coffee(), np.zeros((64, 64, 3), np.uint8)])
def test_no_face_says_what_to_do(image):
    with pytest.raises(PhotoError, match="NAME.txt") as raised:
        align_photo(image, None, FACE)
    assert raised.value.status == "no face"


@pytest.mark.parametrize("shape", [(1, 3000), (3000, 1), (1, 1), (30, 30), (3, 5), (11, 2000), (13, 13), (65, 20)])
def test_pictures_of_any_shape_have_no_face_and_raise_nothing_else(rng, shape):
    with pytest.raises(PhotoError) as raised:
        align_photo(rng.integers(0, 255, (*shape, 3), np.uint8), None, FACE)
    assert raised.value.status == "no face"


def test_points_do_not_depend_on_the_photos_size():
    face = skimage.data.astronaut()[:256, 100:356]
    large = cv2.resize(face, None, fx=6, fy=6, interpolation=cv2.INTER_CUBIC)
    points = [detect_landmarks(image).points for image in (face, large)]
    assert np.abs(points[1] / 6 - points[0]).max() < 4


def test_a_small_face_in_a_large_photo_is_found():
    """A face of 105 pixels in 15,000: of 7 in the first look, which finds none so small."""
    photo = np.full((530, 15000, 3), 120, np.uint8)
    photo[10:522, 4500:5012] = skimage.data.astronaut()
    assert not detection._faces(photo, 1024)
    assert np.abs(detect_landmarks(photo).points - SEEN - (4500, 10)).max() < 8


def test_a_face_of_a_few_pixels_is_no_face():
    photo = np.full((80, 80, 3), 120, np.uint8)
    photo[8:72, 8:72] = cv2.resize(skimage.data.astronaut(), (64, 64), interpolation=cv2.INTER_AREA)
    with pytest.raises(PhotoError, match="no face was found|only [0-9]+ pixels wide; take a photo") as raised:
        align_photo(photo, None, FACE)
    assert raised.value.status == "no face"


def test_points_of_a_small_face_are_exact():
    """The detector names whole pixels, of a picture that was reduced five times."""
    photo = np.full((530, 5120, 3), 120, np.uint8)
    photo[10:522, 3001:3513] = skimage.data.astronaut()
    near = detect_landmarks(skimage.data.astronaut()).points
    assert np.abs(detect_landmarks(photo).points - near - (3001, 10)).mean() < 1.5


@pytest.mark.parametrize("degrees", [45, -60, 90, 180, 270])
def test_a_photo_that_lies_on_its_side_is_turned(degrees):
    photo, points = _turned(skimage.data.astronaut(), SEEN, degrees)
    aligned = align_photo(photo, None, FACE)
    assert _error(aligned.points, transform_points(points, aligned.crop.transform)) < 0.15
    assert "degrees: turned upright" in aligned.status
    assert aligned.points[:2, 1].max() < aligned.points[2, 1] < aligned.points[3:, 1].min()


def test_upright_portraits_are_not_turned_and_others_are(shared):
    """Every second portrait as it is, and every sixth turned."""
    paths = sorted(path for path in (shared / "photos").iterdir() if path.suffix in (".jpg", ".png"))
    assert paths
    for place, path in enumerate(paths[::2]):
        image, points = read_image(str(path)), read_points(str(path.with_suffix(".txt")))
        scale = 400.0 / max(image.shape[:2])
        image, points = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), points * scale
        aligned = align_photo(image, None, FACE)
        assert "turned" not in aligned.status, path
        assert _error(aligned.points, transform_points(points, aligned.crop.transform)) < 0.1, path
        if place % 3 == 0:
            photo, moved = _turned(image, points, (90, 180, 270)[place // 3 % 3])
            aligned = align_photo(photo, None, FACE)
            assert _error(aligned.points, transform_points(moved, aligned.crop.transform)) < 0.15, path
