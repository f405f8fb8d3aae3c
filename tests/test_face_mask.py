"""Masks by dense landmarks: painted faces with and without things in front of them, whose truth is known."""

import cv2
import numpy as np
import pytest
import skimage.data

from facegcn.landmarks import DENSE_COUNT
from facegcn.photos import face_regions
from facegcn.photos.alignment import align_photo
from facegcn.photos.face_mask import face_mask
from facegcn.photos.refinement import refine_mask
from facegcn.photos.skin import crop_mask

SIZE, SKIN, HAIR, WALL, CLOTH = 224, (205, 150, 125), (45, 32, 24), (70, 110, 150), (150, 190, 220)
FIVE = np.array([[-0.32, 0.28, 0.2], [0.32, 0.28, 0.2], [0, -0.03, 0.57], [-0.25, -0.42, 0.28], [0.25, -0.42, 0.28]])


def _ring(count, x, y, width, height, start=0.0):
    """(count, 2) points on an ellipse, clockwise in the picture."""
    angles = np.radians(start) + np.linspace(0, 2 * np.pi, count, endpoint=False)
    return np.stack([x + width / 2 * np.cos(angles), y + height / 2 * np.sin(angles)], axis=1)


def _dense():
    """Landmarks of the painted face: those that regions are made of lie where they belong."""
    points = np.tile((112.0, 112.0), (DENSE_COUNT, 1))
    points[list(face_regions.OVAL)] = _ring(36, 112, 122, 138, 190, -90.0)
    for side, x in enumerate((79, 145)):
        points[list(face_regions.EYES[side])] = _ring(16, x, 88, 34, 14)
        points[list(face_regions.BROWS[side])] = _ring(10, x, 66, 44, 11)
    points[list(face_regions.NOSTRILS)] = _ring(8, 112, 136, 30, 10)
    points[list(face_regions.LIPS)], points[list(face_regions.INNER_LIPS)] = (
        _ring(20, 112, 170, 56, 20), _ring(20, 112, 170, 46, 4))
    for rows, x, y in zip(face_regions.SAFE, (76, 148, 112, 112), (130, 130, 115, 50)):
        points[list(rows)] = _ring(4, x, y, 16, 14)
    points[2], points[195] = (112, 140), (112, 112)
    for row, place in zip((6, 122, 351), ((112, 88), (104, 90), (120, 90))):
        points[row] = place
    return np.column_stack([points, np.ones(DENSE_COUNT)]).astype(np.float32)


def _painted(skin=SKIN, shade=0.0, thing=None):
    """(image, truth): a face with hair, and what covers it; truth: bool, face in sight."""
    image, truth = np.full((SIZE, SIZE, 3), WALL, np.float64), np.zeros((SIZE, SIZE), bool)

    def paint(colour, face, *ellipse, line=-1):
        area = np.zeros((SIZE, SIZE), np.uint8)
        cv2.ellipse(area, (ellipse[:2], ellipse[2:], 0.0), 1, line)
        image[area > 0], truth[area > 0] = colour, face

    paint(HAIR, False, 112, 95, 190, 230)
    paint(skin, True, 112, 122, 138, 190)
    for x in (79, 145):
        paint((60, 42, 34), True, x, 66, 44, 11)
        paint((235, 230, 228), True, x, 88, 34, 14)
        paint((60, 40, 30), True, x, 88, 13, 13)
    paint((150, 60, 66), True, 112, 170, 56, 20)
    if thing == "mask":
        paint(CLOTH, False, 112, 178, 110, 90)
    elif thing == "frames":
        for x in (79, 145):
            paint((25, 25, 30), False, x, 90, 56, 46, line=3)
    elif thing == "sunglasses":
        for x in (79, 145):
            paint((25, 25, 30), False, x, 84, 62, 50)
    elif thing == "ball":
        paint((40, 160, 60), False, 65, 150, 50, 50)
    light = 1.0 - shade * np.clip((np.indices((SIZE, SIZE))[1] - 60) / 110, 0, 1)
    noise = np.random.default_rng(0).normal(0, 3, image.shape)
    return np.clip(image * light[..., None] + noise, 0, 255).astype(np.uint8), truth


def _overlap(mask, truth):
    return (mask & truth).sum() / (mask | truth).sum()


@pytest.mark.parametrize("skin", [SKIN, (120, 78, 55), (235, 200, 185)])
@pytest.mark.parametrize("shade", [0.0, 0.4])
@pytest.mark.parametrize("thing", [None, "mask", "sunglasses", "ball"])
def test_the_face_stays_and_what_covers_it_goes(skin, shade, thing):
    image, truth = _painted(skin, shade, thing)
    bare = _painted(skin, shade)[1]
    mask = face_mask(image, _dense())
    assert mask.dtype == bool and _overlap(mask, truth) > 0.93
    if thing is not None:
        assert mask[bare & ~truth].mean() < 0.12


def test_frames_go_and_eyes_behind_clear_glasses_stay():
    image, truth = _painted(thing="frames")
    mask, regions = face_mask(image, _dense()), face_regions.FaceRegions(_dense(), (SIZE, SIZE))
    # Where frames cross the brows, the brow's place wins.
    frames = _painted()[1] & ~truth & ~np.any(regions.brows, axis=0)
    assert mask[frames].mean() < 0.1 and _overlap(mask, truth) > 0.9
    for x in (79, 145):
        assert mask[88, x - 10:x + 10].all()


def test_skin_alone_leaves_out_eyes_and_lips():
    image, _ = _painted()
    mask = face_mask(image, _dense(), keep_features=False)
    assert not mask[88, 79] and not mask[88, 145] and not mask[170, 112] and mask[130, 76]


def test_the_same_picture_gives_the_same_mask_and_is_not_changed():
    image, _ = _painted(thing="ball")
    before = image.copy()
    first = face_mask(image, _dense())
    assert (first == face_mask(image, _dense())).all() and (image == before).all()


def test_landmarks_of_no_use_are_refused_or_passed_over():
    image, _ = _painted()
    for broken in (_dense()[:100], np.full((DENSE_COUNT, 3), np.nan)):
        with pytest.raises(ValueError, match="expected finite landmarks"):
            face_mask(image, broken)
    with pytest.raises(ValueError, match="expected an image"):
        face_mask(image[..., 0], _dense())
    hidden = _dense() * (1, 1, 0)
    assert face_mask(image, hidden) is None
    outside = face_mask(image, _dense() + (1000, 0, 0))
    assert outside is None or not outside.any()


def _refined(thing, **options):
    image, truth = _painted(thing=thing)
    bare, face = _painted()
    render = np.float32(bare) * (0.8, 0.82, 0.78)  # exposure and tint a little off
    rgba = np.dstack([image, np.where(face, 255, 0).astype(np.uint8)])
    return refine_mask(rgba, render, face, dense=_dense(), **options) > 0, truth, face


@pytest.mark.parametrize("thing", ["mask", "sunglasses", "ball"])
def test_what_the_fit_cannot_explain_leaves_the_mask(thing):
    mask, truth, face = _refined(thing)
    assert mask[face & ~truth].mean() < 0.15 and mask[truth].mean() > 0.93


def test_a_face_that_is_explained_stays_whole():
    mask, _, face = _refined(None)
    assert (mask == face).all()


def test_a_refined_mask_never_grows_and_needs_landmarks():
    image, _ = _painted()
    alpha = np.zeros((SIZE, SIZE), np.uint8)
    alpha[60:180, 60:160] = 255
    rgba, covered = np.dstack([image, alpha]), np.ones((SIZE, SIZE), bool)
    assert not (refine_mask(rgba, image, covered, dense=_dense())[alpha == 0]).any()
    assert (refine_mask(rgba, np.zeros_like(image), covered) == alpha).all()
    with pytest.raises(ValueError, match="expected a picture"):
        refine_mask(rgba, image[:100], covered)


def test_a_photo_with_dense_landmarks_is_masked_by_them():
    image = skimage.data.astronaut()
    points = np.array([[203, 101], [246, 103], [224, 127], [203, 140], [245, 140]], np.float32)
    aligned = align_photo(image, points, FIVE)
    assert aligned.dense is not None
    mask = crop_mask(aligned)
    assert (mask > 0).tolist() == (face_mask(aligned.crop.image, aligned.dense) & aligned.crop.inside).tolist()
    assert set(np.unique(mask)) == {0, 255}
    for x, y in aligned.points:
        assert mask[round(float(y)), round(float(x))]


def test_a_thing_before_an_eye_is_not_kept_for_the_eye():
    image, _ = _painted()
    cv2.circle(image, (172, 72), 18, (250, 230, 20), -1)  # over the outer half of a brow
    thing = np.zeros((SIZE, SIZE), np.uint8)
    cv2.circle(thing, (172, 72), 16, 1, -1)
    assert face_mask(image, _dense())[thing > 0].mean() < 0.1
