"""The skin mask: on a painted face whose truth is known, and on real photos."""

import cv2
import numpy as np
import pytest
import skimage.data

from facegcn.landmarks import points_beside
from facegcn.photos import reading
from facegcn.photos.skin import crop_mask, skin_mask

POINTS = np.array([[79.0, 84], [145, 84], [112, 115], [86, 155], [138, 155]], np.float32)
HAIR, BROW, LIPS, WALL = (45, 32, 24), (60, 42, 34), (150, 60, 66), (70, 110, 150)


def _painted(skin=(205, 150, 125), shade=0.0, glasses=False):
    """(image, truth): a face 224 px wide on a wall, with hair, eyes, brows and lips; truth: labels."""
    image = np.full((224, 224, 3), WALL, np.float64)
    parts = np.zeros((224, 224), np.uint8)

    def paint(label, colour, *ellipse):
        area = np.zeros((224, 224), np.uint8)
        cv2.ellipse(area, (ellipse[:2], ellipse[2:], 0.0), 1, -1)
        image[area > 0], parts[area > 0] = colour, label

    paint(1, HAIR, 112, 95, 190, 230)
    paint(2, skin, 112, 122, 142, 196)
    for x in (79, 145):
        paint(3, BROW, x, 62, 44, 11)
        paint(4, (235, 230, 228), x, 84, 34, 14)
        paint(4, (60, 40, 30), x, 84, 13, 13)
        if glasses:
            paint(6, (25, 25, 30), x, 84, 62, 50)
    paint(5, LIPS, 112, 157, 56, 18)
    light = 1.0 - shade * np.clip((np.indices((224, 224))[1] - 60) / 110, 0, 1)
    noise = np.random.default_rng(0).normal(0, 3, image.shape)
    return np.clip(image * light[..., None] + noise, 0, 255).astype(np.uint8), parts


@pytest.mark.parametrize("skin", [(205, 150, 125), (120, 78, 55), (235, 200, 185)])
@pytest.mark.parametrize("shade", [0.0, 0.4])
def test_skin_and_features_stay_and_hair_and_wall_go(skin, shade):
    image, parts = _painted(skin, shade)
    mask = skin_mask(image, POINTS)
    assert mask.dtype == np.uint8 and set(np.unique(mask)) == {0, 255}
    for label, least in ((2, 0.9), (4, 0.95), (5, 0.9)):
        assert (mask[parts == label] > 0).mean() > least, label
    for label in (0, 1):
        assert (mask[parts == label] > 0).mean() < 0.05, label


def test_skin_alone_leaves_out_eyes_brows_and_lips():
    image, parts = _painted()
    mask = skin_mask(image, POINTS, keep_features=False)
    assert (mask[parts == 2] > 0).mean() > 0.85
    for label in (3, 4, 5):
        assert (mask[parts == label] > 0).mean() < 0.3, label


def test_dark_glasses_go_although_eyes_would_stay():
    image, parts = _painted(glasses=True)
    assert (skin_mask(image, POINTS)[parts == 6] > 0).mean() < 0.1


def test_landmarks_place_the_features():
    image, parts = _painted()
    landmarks = np.zeros((68, 2), np.float32)
    for label, side, rows in ((4, 0, slice(36, 42)), (4, 1, slice(42, 48)), (3, 0, slice(17, 22)),
                              (3, 1, slice(22, 27)), (5, None, slice(48, 60))):
        where = np.argwhere(parts == label)[:, ::-1].astype(np.float32)
        if side is not None:
            where = where[(where[:, 0] > 112) == bool(side)]
        hull = cv2.convexHull(where)[:, 0]
        landmarks[rows] = hull[np.linspace(0, len(hull) - 1, rows.stop - rows.start).astype(int)]
    mask = skin_mask(image, POINTS, landmarks)
    for label in (3, 4, 5):
        assert (mask[parts == label] > 0).mean() > 0.95, label


def test_points_outside_the_picture_give_no_skin_and_no_error():
    mask = skin_mask(_painted()[0], POINTS + 1000.0)
    assert not mask.any()


def test_a_cut_out_photo_keeps_its_own_alpha_and_photos_end_without_skin():
    image, parts = _painted()
    face = np.array([[-0.32, 0.28, 0.2], [0.32, 0.28, 0.2], [0, -0.03, 0.57], [-0.25, -0.42, 0.28],
                     [0.25, -0.42, 0.28]])
    cut = np.dstack([image, np.where(parts == 2, 255, 0).astype(np.uint8)])
    aligned = reading.align_photo(cut, POINTS, face)
    own = crop_mask(cut, aligned)
    assert own[parts == 2].size and not own[int(aligned.points[0, 1]), int(aligned.points[0, 0])]
    narrow = image[:, 60:]
    aligned = reading.align_photo(narrow, POINTS - (60, 0), face)
    mask = crop_mask(narrow, aligned)
    assert mask.any() and not aligned.crop.inside.all() and not mask[~aligned.crop.inside].any()


def test_the_astronauts_face_is_kept_and_her_suit_and_fringe_are_not():
    image = skimage.data.astronaut()
    points = np.array([[203, 101], [246, 103], [224, 127], [203, 140], [245, 140]], np.float32)
    mask = skin_mask(image[20:244, 110:334], points - (110, 20))
    whole = np.zeros(image.shape[:2], np.uint8)
    whole[20:244, 110:334] = mask
    for x, y in ((222, 122), (195, 132), (250, 130), (222, 165), (224, 146), (203, 101), (246, 103)):
        assert whole[y, x], f"({x}, {y}) is on her face"
    for x, y in ((220, 40), (180, 70), (270, 80), (300, 200), (130, 220)):
        assert not whole[y, x], f"({x}, {y}) is not skin"


def test_real_photos_keep_cheeks_and_drop_the_corners(shared):
    five = np.array([[-0.32, 0.28, 0.2], [0.32, 0.28, 0.2], [0, -0.03, 0.57], [-0.25, -0.42, 0.28],
                     [0.25, -0.42, 0.28]])
    paths = sorted(str(p) for p in (shared / "photos").iterdir() if p.suffix in (".jpg", ".png"))
    assert paths
    for path in paths:
        aligned = reading.align_photo(reading.read_image(path), points_beside(path), five)
        mask = crop_mask(reading.read_image(path), aligned)
        eye_to_mouth = aligned.points[:2] + 0.55 * (aligned.points[3:] - aligned.points[:2])
        for x, y in [*eye_to_mouth, aligned.points[2]]:
            assert mask[round(float(y)), round(float(x))], path
        assert 0.12 < (mask > 0).mean() < 0.5, path
        assert not mask[[0, 0, -1, -1], [0, -1, 0, -1]].any(), path
