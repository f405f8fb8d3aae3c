"""Skin and left/right pairs of a Basel Face Model, from its companion files or from its mean face."""

from __future__ import annotations

import numpy as np
from scipy.spatial import Delaunay

from facegcn.errors import UserError
from facegcn.mesh.symmetry import mirror_pairs

_MIDDLE_LANDMARKS = (8, 27, 28, 29, 30, 33, 51, 57)  # chin, nose, lips: on the middle line of a face
_PAIR_TOLERANCE = 0.02  # decimetre: largest asymmetry of a pair that is found in the mean face
_LIST_TOLERANCE = 0.1  # decimetre: mean asymmetry of a list's pairs; above it they are no mirror pairs
_FACE_PARTS = ((range(17, 22), 0.03), (range(22, 27), 0.03), (range(36, 42), 0.03), (range(42, 48), 0.03),
               (range(48, 60), 0.02), (range(31, 36), 0.02))  # brows, eyes, lips, nostrils: landmarks, margin


def crop_pairs(rows: np.ndarray, crop: np.ndarray | None, mean_shape: np.ndarray) -> tuple[np.ndarray, str]:
    """A symmetry list in the numbers of the crop.

    The published list counts the whole model's vertices; lists cut to the crop exist too, and both can
    count from 0 or from 1. So each reading is tried, and the one whose pairs mirror each other best on the
    mean face, on average, is taken. (Neighbours along a column of the mesh follow each other in number on
    both sides, so a list that is read one off is wrong at the columns' ends only.) Order and repetition of
    the rows are kept; a row with a vertex outside the crop is dropped, as in the released code's own
    preparation.

    Args:
        rows: (P, 2) vertex numbers of the list.
        crop: (N,) for each vertex of the crop its number, from 0, in the whole model; None when unknown.
        mean_shape: (N, 3) of the crop, decimetre.

    Returns:
        (Q, 2) int32 vertices of the crop, counted from 0, and what the list was taken for.

    Raises:
        UserError: no reading leaves pairs within the crop, or under none do its pairs mirror each other.
    """
    best = (np.inf, None, "")
    for text, numbering in (("of the whole model", crop), ("of the crop", np.arange(len(mean_shape)))):
        if numbering is None:
            continue
        place = np.full(max(rows.max(), numbering.max()) + 2, -1)
        place[numbering] = np.arange(len(numbering))
        for base in (0, 1):
            if rows.min() < base or text == "of the crop" and rows.max() - base >= len(mean_shape):
                continue
            pairs = place[rows - base]
            pairs = pairs[(pairs >= 0).all(axis=1)]
            error = _asymmetry(pairs, mean_shape)
            if error < best[0]:
                best = (error, pairs, f"vertex numbers {text}, counted from {base}")
    error, pairs, reading = best
    if pairs is None:
        raise UserError("the symmetry list does not belong to this face: however its numbers are read, none of its "
                        "pairs lies within the face. Take the official face05_symlist.txt, or none")
    if error > _LIST_TOLERANCE:
        raise UserError("the symmetry list does not belong to this face: however its numbers are read, its pairs do "
                        f"not mirror each other (best mean distance {10 * error:.1f} cm, at most "
                        f"{10 * _LIST_TOLERANCE:.1f} cm is possible). Take the official face05_symlist.txt, or none")
    return pairs.astype(np.int32), reading


def found_pairs(mean_shape: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """(P, 2) int32 mirror pairs found in the mean face, smaller x first.

    Args:
        mean_shape: (N, 3) decimetre.
        landmarks: (68,) iBUG.

    Raises:
        UserError: less than half of the vertices find a partner: the face is not symmetric enough.
    """
    middle = mean_shape[list(landmarks[list(_MIDDLE_LANDMARKS)]), 0].mean()
    for _ in range(2):  # the first pairs tell the middle better than eight landmarks
        pairs = mirror_pairs(mean_shape - (middle, 0, 0), _PAIR_TOLERANCE)
        middle = mean_shape[pairs, 0].mean() if len(pairs) else middle
    if 4 * len(pairs) < len(mean_shape):
        raise UserError(f"only {2 * len(pairs):,} of {len(mean_shape):,} vertices have a mirror image in the mean "
                        "face, too few to go by: put the official face05_symlist.txt and select_vertex_id.mat beside "
                        "the other files")
    return pairs


def skin_by_landmarks(mean_shape: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """(S,) int32 vertices of the skin, seen from the front: within the landmarks, outside brows, eyes, lips, nostrils.

    Args:
        mean_shape: (N, 3) decimetre.
        landmarks: (68,) iBUG.
    """
    flat = mean_shape[:, :2]
    skin = Delaunay(flat[landmarks]).find_simplex(flat) >= 0
    for part, margin in _FACE_PARTS:
        corners = flat[landmarks[list(part)]]
        ring = np.concatenate([corners + margin * np.array(step) for step in ((1, 1), (1, -1), (-1, 1), (-1, -1))])
        skin &= Delaunay(ring).find_simplex(flat) < 0
    return np.flatnonzero(skin).astype(np.int32)


def _asymmetry(pairs, points) -> float:
    """Mean distance between one side and the other side's mirror image, decimetre; infinite without pairs."""
    pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    if not len(pairs):
        return np.inf
    left, right = points[pairs[:, 0]], points[pairs[:, 1]]
    middle = np.median((left[:, 0] + right[:, 0]) / 2)
    return float(np.linalg.norm(left * (-1, 1, 1) + (2 * middle, 0, 0) - right, axis=1).mean())
