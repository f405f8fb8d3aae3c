"""The skin masks or label maps that come along with a set of photos.

CelebAMask-HQ (Lee et al. 2020) has a binary mask for each part of a face; it is read as published.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import cv2
import numpy as np

from facegcn.errors import MaskError, UserError
from facegcn.photos import reading

#: Parts of CelebAMask-HQ; their label is the place in this list, counted from 1. A later part hides earlier ones.
CELEBAMASK_PARTS = ("skin", "nose", "eye_g", "l_eye", "r_eye", "l_brow", "r_brow", "l_ear", "r_ear", "mouth", "u_lip",
                    "l_lip", "hair", "hat", "ear_r", "neck_l", "neck", "cloth")
_PHOTOS_A_FOLDER = 2000  # CelebAMask-HQ-mask-anno/0 has the parts of the photos 0 to 1999, and so on
_SMALLEST_MASK = 0.25  # of the photo's width: a smaller mask is taken for a mistake


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
