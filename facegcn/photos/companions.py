"""What comes along with a set of photos: a list of landmarks, and skin masks or label maps.

CelebA (Liu et al. 2015) lists five points a photo in one file; CelebAMask-HQ (Lee et al. 2020) has a binary
mask for each part of a face. Both are read as they are published.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import cv2
import numpy as np

from facegcn.errors import MaskError, UserError
from facegcn.morphable import FIVE_POINT_LANDMARKS, LANDMARK_COUNT
from facegcn.photos import reading

#: Parts of CelebAMask-HQ; their label is the place in this list, counted from 1. A later part hides earlier ones.
CELEBAMASK_PARTS = ("skin", "nose", "eye_g", "l_eye", "r_eye", "l_brow", "r_brow", "l_ear", "r_ear", "mouth", "u_lip",
                    "l_lip", "hair", "hat", "ear_r", "neck_l", "neck", "cloth")
_PHOTOS_A_FOLDER = 2000  # CelebAMask-HQ-mask-anno/0 has the parts of the photos 0 to 1999, and so on
_SMALLEST_MASK = 0.25  # of the photo's width: a smaller mask is taken for a mistake
_HEADER_LINES = 2  # of CelebA's list: the count, the names of the columns


@dataclass(frozen=True)
class MaskSource:
    """Where the skin masks of photos come from.

    Attributes:
        folder: of the user's masks: ``NAME.png`` as large as the photo, of its proportions, or as large as the
            crop; or CelebAMask-HQ's ``NAME_skin.png`` and so on. "" = none.
        labels: grey values that mean skin in these masks; () = everything above half.
        keep_features: for estimated masks, see ``skin.skin_mask``.
    """

    folder: str = ""
    labels: tuple[int, ...] = ()
    keep_features: bool = True


def label_numbers(text: str | None) -> tuple[int, ...]:
    """``"1,2,10"`` or ``"skin,nose"`` -> grey values; names are those of CelebAMask-HQ.

    Raises:
        UserError: an entry is neither a whole number nor such a name.
    """
    numbers = []
    for word in text.split(",") if text else ():
        word = word.strip()
        if word in CELEBAMASK_PARTS:
            numbers.append(CELEBAMASK_PARTS.index(word) + 1)
        elif word.isdigit():
            numbers.append(int(word))
        else:
            raise UserError(f"--skin-labels {text}: '{word}' is no whole number and no part of CelebAMask-HQ; write "
                            f"for example 1,2,10, or names out of {', '.join(CELEBAMASK_PARTS)}")
    return tuple(numbers)


# ---------------------------------------------------------------- landmarks
def read_landmark_list(path: str) -> dict[str, np.ndarray]:
    """Landmarks of many photos from one file, such as CelebA's ``list_landmarks_celeba.txt``.

    Each line is a file name and the x and y of 5 or 68 points, between spaces or commas, in the orders of
    ``reading.read_points``. The first two lines may be a count and the columns' names.

    Returns:
        (5, 2) or (68, 2) float32 by file name without its ending, pixels of the photo.

    Raises:
        UserError: absent, or a line is something else; names the line.
    """
    found = {}
    try:
        with open(path, encoding="utf-8") as file:
            lines = file.read().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--landmarks {path}: cannot be read: {error}") from error
    for number, line in enumerate(lines, 1):
        words = line.replace(",", " ").split()
        points = _points(words[1:])
        if points is not None:
            found[os.path.splitext(words[0])[0]] = points
        elif words and number > _HEADER_LINES:
            raise UserError(f"--landmarks {path}, line {number}: expected a file name and 10 numbers, x and y of "
                            f"{reading.POINT_ORDER}, or 136; got '{line[:80]}'")
    if not found:
        raise UserError(f"--landmarks {path}: no line has a file name and the numbers of 5 or 68 points")
    return found


def _points(words):
    """(P, 2) float32, or None when these are not the numbers of 5 or 68 points."""
    if len(words) not in (2 * len(FIVE_POINT_LANDMARKS), 2 * LANDMARK_COUNT):
        return None
    try:
        points = np.array([float(word) for word in words], np.float32).reshape(-1, 2)
    except ValueError:
        return None
    return points if np.isfinite(points).all() else None


# ---------------------------------------------------------------- masks
def own_mask(path: str, shape, crop: reading.Crop, source: MaskSource) -> np.ndarray | None:
    """The user's mask of a photo, carried into its crop.

    Args:
        path: of the photo.
        shape: (height, width) of the photo.
        crop: the aligned picture.
        source: where the masks are.

    Returns:
        (size, size) uint8, 255 = skin; or None where there is none.

    Raises:
        MaskError: unreadable, of other proportions than the photo, or parts without ``labels``.
    """
    if not source.folder:
        return None
    name = os.path.splitext(os.path.basename(path))[0]
    file = os.path.join(source.folder, name + ".png")
    if os.path.exists(file):
        mask = cv2.imread(file, cv2.IMREAD_UNCHANGED)
        if mask is None or mask.ndim != 2 or mask.dtype != np.uint8:
            raise MaskError(f"its mask {file} is no 8-bit grey PNG")
        skin = np.isin(mask, source.labels) if source.labels else _above_half(mask)
        if skin.shape == crop.inside.shape and skin.shape != tuple(shape):
            return np.where(skin & crop.inside, 255, 0).astype(np.uint8)
    else:
        labels, file = _merged_parts(source.folder, name)
        if labels is None:
            return None
        if not source.labels:
            raise MaskError(f"its mask comes in parts such as {file}: tell which of them are skin with --skin-labels "
                            "skin,nose,...")
        skin = np.isin(labels, source.labels)
    return _into_crop(np.where(skin, 255, 0).astype(np.uint8), shape, crop, file)


def _into_crop(mask, shape, crop, file):
    """Warps a mask of the photo's proportions; it may be smaller or larger than the photo."""
    scale = np.array(mask.shape) / shape  # rows, columns
    if scale.min() < _SMALLEST_MASK or abs(mask.shape[0] - mask.shape[1] * shape[0] / shape[1]) > 1:
        raise MaskError(f"its mask {file} is {mask.shape[1]} x {mask.shape[0]} pixels, the photo "
                        f"{shape[1]} x {shape[0]}: it must have the photo's proportions and a quarter of its width")
    transform = crop.transform.copy()
    transform[:, :2] = transform[:, :2] / scale[::-1]
    return reading.warp(mask, transform, len(crop.inside), nearest=True) * crop.inside


def _merged_parts(folder, name):
    """((H, W) uint8 label map, one of the files) of a photo's part masks, or (None, "")."""
    folders, names = [folder], [name]
    if name.isdigit():
        folders.append(os.path.join(folder, str(int(name) // _PHOTOS_A_FOLDER)))
        names.append(name.zfill(5))
    labels, some = None, ""
    for label, part in enumerate(CELEBAMASK_PARTS, 1):
        file = next((path for place in folders for stem in names
                     if os.path.exists(path := os.path.join(place, f"{stem}_{part}.png"))), None)
        if file is None:
            continue
        mask = cv2.imread(file, cv2.IMREAD_GRAYSCALE)
        if mask is None or labels is not None and mask.shape != labels.shape:
            raise MaskError(f"its mask {file} is no PNG, or not as large as the other parts")
        labels = np.zeros(mask.shape, np.uint8) if labels is None else labels
        labels[_above_half(mask)] = label
        some = file
    return labels, some


def _above_half(mask):
    """bool: above half of the range, which is 0..1 or 0..255."""
    return mask > (127 if mask.max() > 1 else 0)
