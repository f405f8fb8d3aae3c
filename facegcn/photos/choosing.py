"""Which face of a photo is meant: ``--face largest``, ``center``, or a number."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from facegcn.errors import PhotoError, UserError
from facegcn.photos.detection import Face

LARGEST, CENTER = "largest", "center"
_MOST = 1000


def face_choice(text: str) -> str | int:
    """``largest``, ``center``, or a number from 1 on, out of the flag's text.

    Raises:
        UserError: it is something else.
    """
    if text in (LARGEST, CENTER):
        return text
    if text.isdecimal() and 1 <= int(text) <= _MOST:
        return int(text)
    raise UserError(f"--face {text}: write {LARGEST}, {CENTER}, or a number; faces are counted from the left, from 1")


def choose(faces: Sequence[Face], choice: str | int, shape) -> tuple[Face, str]:
    """The face that is meant, and what the user should know of it: "" for the only one.

    Of a largest or most central face's rivals only those count that are found as surely: what is half a face, or a
    picture of one, does not win by its size. A number may mean any.

    Args:
        faces: at least one, the largest first.
        choice: see ``face_choice``; numbers count from the left, by the middle of the box.
        shape: (H, W) of the photo.

    Raises:
        PhotoError: there are not so many faces.
    """
    ordered = sorted(faces, key=lambda face: face.box[0] + face.box[2] / 2.0)
    if isinstance(choice, int):
        if choice > len(faces):
            raise PhotoError(f"--face {choice}: {_counted(len(faces))} found; they are counted from the left, from 1",
                             "no face")
        chosen, words = ordered[choice - 1], ""
    else:
        surest = max(face.confidence for face in faces)
        sure = [face for face in faces if face.confidence >= surest]
        chosen = sure[0] if choice == LARGEST else min(sure, key=lambda face: _from_middle(face, shape))
        words = "the largest used, " if choice == LARGEST else "the most central used, "
    if len(faces) == 1:
        return chosen, ""
    number = next(place for place, face in enumerate(ordered, 1) if face is chosen)
    return chosen, f"several faces, {words}number {number} of {len(faces)} from the left"


def _counted(count: int) -> str:
    return "only one face was" if count == 1 else f"only {count} faces were"


def _from_middle(face: Face, shape) -> float:
    left, top, width, height = face.box
    return float(np.hypot(left + (width - shape[1]) / 2.0, top + (height - shape[0]) / 2.0))
