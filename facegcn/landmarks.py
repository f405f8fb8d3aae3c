"""Points on faces: their orders, their files, and what a fit is pulled to.

Points are pixels, x right, y down, (0, 0) the picture's top left corner (so the first pixel's centre is
(0.5, 0.5), as in ``camera.to_pixels``). 68 points are in iBUG order; five are the eyes' middles, the nose's tip
and the corners of the mouth.
"""

from __future__ import annotations

import os

import numpy as np

from facegcn.errors import PhotoError, UserError

LANDMARK_COUNT = 68  # iBUG / Multi-PIE order
#: Landmark indices whose mean gives each of the five alignment points: left eye, right eye (as seen in the picture,
#: 0-based iBUG order), nose tip, left and right mouth corner.
FIVE_POINT_LANDMARKS = ((36, 37, 38, 39, 40, 41), (42, 43, 44, 45, 46, 47), (30,), (48,), (54,))
POINT_ORDER = ("left eye, right eye, nose tip, left mouth corner, right mouth corner "
               "(left = left in the picture)")
#: Landmark targets are the 68 iBUG points followed by the five alignment points.
TARGET_COUNT = LANDMARK_COUNT + len(FIVE_POINT_LANDMARKS)
_HEADER_LINES = 2  # of CelebA's list: the count, the names of the columns


def five_points(points: np.ndarray) -> np.ndarray:
    """(5, D) alignment points of (5, D) or (68, D) points; D is 2 in a picture, 3 on a model."""
    if len(points) == len(FIVE_POINT_LANDMARKS):
        return points
    return np.stack([points[list(group)].mean(axis=0) for group in FIVE_POINT_LANDMARKS])


def landmark_targets(points, points68=None) -> np.ndarray:
    """(73, 2) float32 pixel targets, NaN where unknown.

    Args:
        points: (5, 2) alignment points, or None; NaN where unknown.
        points68: (68, 2) iBUG points, or None, or NaN; when known they make the five superfluous.
    """
    targets = np.full((TARGET_COUNT, 2), np.nan, np.float32)
    if points68 is not None and np.isfinite(points68).any():
        targets[:LANDMARK_COUNT] = points68
    elif points is not None:
        targets[LANDMARK_COUNT:] = points
    return targets


# ---------------------------------------------------------------- the file beside a photo
def read_points(path: str) -> np.ndarray:
    """Reads a landmark file: 5 or 68 rows of ``x y`` or ``x,y``.

    Five rows are left eye, right eye, nose tip, left and right mouth corner (left = left in the
    picture); 68 rows are in iBUG order. Blank lines and lines that start with # are passed over.

    Returns:
        (5, 2) or (68, 2) float32, pixels of the photo.

    Raises:
        PhotoError: absent, a row is not two finite numbers, or another number of rows.
    """
    try:
        with open(path, encoding="utf-8") as file:
            lines = [line.strip() for line in file]
    except (OSError, UnicodeDecodeError) as error:
        raise PhotoError(f"{path}: cannot be read: {error}", "bad points") from error
    rows = []
    for number, line in enumerate(lines, 1):
        if not line or line.startswith("#"):
            continue
        try:
            row = [float(value) for value in line.replace(",", " ").split()]
        except ValueError:
            row = []
        if len(row) != 2 or not np.isfinite(row).all():
            raise PhotoError(f"{path}, line {number}: expected 'x y', got '{line}'", "bad points")
        rows.append(row)
    if len(rows) not in (len(FIVE_POINT_LANDMARKS), LANDMARK_COUNT):
        raise PhotoError(f"{path}: has {len(rows)} points, expected 5 ({POINT_ORDER}) or 68 (iBUG order)",
                         "bad points")
    return np.array(rows, np.float32)


def write_points(path: str, points: np.ndarray) -> None:
    """Writes points (P, 2), one ``x y`` a line, as ``read_points`` reads them."""
    np.savetxt(path, points, fmt="%.2f")


def points_beside(path: str) -> np.ndarray | None:
    """Points of the file beside a photo: ``NAME.lm68.txt``, else ``NAME.txt``, else None.

    Raises:
        PhotoError: as ``read_points``.
    """
    stem = os.path.splitext(path)[0]
    for candidate in (f"{stem}.lm68.txt", f"{stem}.txt"):
        if os.path.exists(candidate):
            return read_points(candidate)
    return None


# ---------------------------------------------------------------- lists of many photos
def read_landmark_list(path: str) -> dict[str, np.ndarray]:
    """Landmarks of many photos from one file, such as CelebA's ``list_landmarks_celeba.txt``.

    Each line is a file name and the x and y of 5 or 68 points, between spaces or commas, in the orders of
    ``read_points``. The first two lines may be a count and the columns' names.

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
                            f"{POINT_ORDER}, or 136; got '{line[:80]}'")
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
