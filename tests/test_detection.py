"""The detector, on faces of every size and direction, and on pictures without one."""

import time

import cv2
import numpy as np
import pytest
import skimage.data

from facegcn.errors import PhotoError, UserError
from facegcn.landmarks import read_points
from facegcn.photos.alignment import align_photo
from facegcn.photos.choosing import choose, face_choice
from facegcn.photos.detection import find_faces
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


def test_the_astronaut_is_found_and_the_detector_is_quiet(capfd):
    aligned = align_photo(skimage.data.astronaut(), None, FACE)
    assert aligned.status == "ok" and aligned.landmarks is None
    expected = transform_points(SEEN, aligned.crop.transform)
    assert np.abs(aligned.points - expected).max() < 8  # of a crop at 1.6 times the photo's scale
    upright = FACE[:, :2] * (102, -102) + 112
    assert np.abs(aligned.points.mean(axis=0) - upright.mean(axis=0)).max() < 15
    assert "".join(capfd.readouterr()) == ""


def _two():
    """A large face on the left, a small one in the middle."""
    face = skimage.data.astronaut()[:256, 100:356]
    small = cv2.resize(face, (150, 150), interpolation=cv2.INTER_AREA)
    both = np.full((256, 680, 3), 128, np.uint8)
    both[:, :256], both[50:200, 280:430] = face, small
    return both


def test_several_faces_are_all_found_and_one_is_chosen():
    both = _two()
    found = find_faces(both)
    assert len(found) == 2 and found[0].box[0] + found[0].box[2] < 256 < found[1].box[0]
    assert found[0].box[2] / found[1].box[2] == pytest.approx(256 / 150, rel=0.1)
    np.testing.assert_allclose(found[0].points * 150 / 256 + (280, 50), found[1].points, atol=3)
    mirrored = np.ascontiguousarray(both[:, ::-1])
    for image, choice, place, words in (
            (both, "largest", 0, "the largest used, number 1 of 2"),
            (both, "center", 1, "the most central used, number 2"),
            (both, 1, 0, "several faces, number 1 of 2 from the left"), (both, 2, 1, "number 2 of 2"),
            (mirrored, "largest", 0, "the largest used, number 2 of 2"), (mirrored, 1, 1, "number 1 of 2")):
        faces = find_faces(image)
        chosen, remark = choose(faces, choice, image.shape)
        assert chosen is faces[place] and words in remark
        assert words in align_photo(image, None, FACE, face=choice).status
    assert choose(found[:1], "center", both.shape) == (found[0], "") == choose(found[:1], 1, both.shape)
    with pytest.raises(PhotoError, match="--face 3: only 2 faces were found; they are counted from the left, from 1"):
        align_photo(both, None, FACE, face=3)
    with pytest.raises(PhotoError, match="only one face was found"):
        choose(found[:1], 2, both.shape)


def test_a_doubtful_face_does_not_win_by_its_size_but_can_be_named():
    large, small = find_faces(_two())
    doubtful = large._replace(confidence=0.5)
    assert choose([doubtful, small], "largest", (256, 680))[0] is small
    assert choose([doubtful, small], 1, (256, 680))[0] is doubtful


@pytest.mark.parametrize("text", ["", "0", "-1", "1.5", "two", "²", "Largest", "99999999999999999999"])
def test_what_is_no_choice_of_a_face_is_refused(text):
    with pytest.raises(UserError, match="largest, center, or a number"):
        face_choice(text)
    assert [face_choice(good) for good in ("largest", "center", "2")] == ["largest", "center", 2]


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
    points = [find_faces(image)[0].points for image in (face, large)]
    assert np.abs(points[1] / 6 - points[0]).max() < 4


@pytest.mark.parametrize(("shape", "corner", "size"), [
    ((530, 15000), (4500, 10), 512), ((6000, 8000), (7200, 5400), 634), ((8000, 6000), (20, 3333), 634)])
def test_a_small_face_in_a_large_photo_is_found(shape, corner, size):
    """The astronaut's face has 105 pixels of 512; in photos of 48 megapixels it is given 130."""
    photo = np.full((*shape, 3), 120, np.uint8)
    face = cv2.resize(skimage.data.astronaut(), (size, size), interpolation=cv2.INTER_CUBIC)
    left, top = corner
    part = photo[top:top + size, left:left + size]
    part[:] = face[:part.shape[0], :part.shape[1]]
    begun = time.process_time()
    found = find_faces(photo)
    assert time.process_time() - begun < 20
    assert len(found) == 1 and np.abs(found[0].points - SEEN * size / 512 - corner).max() < 8 * size / 512


def test_a_face_of_a_few_pixels_is_no_face():
    photo = np.full((80, 80, 3), 120, np.uint8)
    photo[8:72, 8:72] = cv2.resize(skimage.data.astronaut(), (64, 64), interpolation=cv2.INTER_AREA)
    with pytest.raises(PhotoError, match="no face was found|only [0-9]+ pixels wide; take a photo") as raised:
        align_photo(photo, None, FACE)
    assert raised.value.status == "no face"


def test_points_of_a_small_face_are_exact():
    photo = np.full((530, 5120, 3), 120, np.uint8)
    photo[10:522, 3001:3513] = skimage.data.astronaut()
    near = find_faces(skimage.data.astronaut())[0].points
    assert np.abs(find_faces(photo)[0].points - near - (3001, 10)).mean() < 1.5


@pytest.mark.parametrize("degrees", [30, 45, -60, 90, 135, 180, 270])
def test_a_photo_that_lies_on_its_side_is_turned(degrees):
    photo, points = _turned(skimage.data.astronaut(), SEEN, degrees)
    aligned = align_photo(photo, None, FACE)
    assert _error(aligned.points, transform_points(points, aligned.crop.transform)) < 0.15
    assert "degrees: turned upright" in aligned.status
    assert aligned.points[:2, 1].max() < aligned.points[2, 1] < aligned.points[3:, 1].min()


def test_upright_portraits_are_not_turned_and_others_are(shared):
    paths = sorted(path for path in (shared / "photos").iterdir() if path.suffix in (".jpg", ".png"))
    assert paths
    for path in paths:
        image, points = read_image(str(path)), read_points(str(path.with_suffix(".txt")))
        scale = 400.0 / max(image.shape[:2])
        image, points = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), points * scale
        aligned = align_photo(image, None, FACE)
        assert "turned" not in aligned.status, path
        assert _error(aligned.points, transform_points(points, aligned.crop.transform)) < 0.1, path
        for degrees in (45, 90, 150, 180, 270):
            photo, moved = _turned(image, points, degrees)
            aligned = align_photo(photo, None, FACE)
            assert _error(aligned.points, transform_points(moved, aligned.crop.transform)) < 0.15, path
