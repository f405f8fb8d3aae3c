"""Films, frame by frame: what a file's header says of its length and rate is not believed.

A film is read through once, without its pictures, to learn how many frames there are and when each is shown: headers
count wrongly, rates vary, and the end of a file may be missing. After that its frames are read again in their order as
often as wanted, one at a time, so that a film of any length fits into memory.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import cv2
import numpy as np
from tqdm import tqdm

from facegcn.errors import UserError, log

ENDINGS = (".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v")
_USUAL_RATE = 30.0  # frames a second of a film that does not tell
_RATES = (0.5, 1000.0)  # frames a second that are believed
_MISSING = 0.02  # share of the frames that a header counts which may be missing without a word
# FFmpeg's own messages name no cure. OpenCV reads the level once, when it first meets a film; -8 is none.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")


def is_film(path: str) -> bool:
    """Whether a file's name ends as a film's does."""
    return path.lower().endswith(ENDINGS)


@dataclass(frozen=True)
class Film:
    """A film that can be read.

    Attributes:
        path: the file.
        times: (T,) float64 seconds at which each frame is shown, strictly rising, the first 0.
        size: width and height of its frames, pixels, as they are shown: a flag of rotation is heeded.
    """

    path: str
    times: np.ndarray
    size: tuple[int, int]

    def __len__(self) -> int:
        return len(self.times)

    @property
    def step(self) -> float:
        """Usual seconds from frame to frame: the median; 1 / 30 of a single frame."""
        return float(np.median(np.diff(self.times))) if len(self) > 1 else 1.0 / _USUAL_RATE

    def frames(self, chosen=None) -> Iterator[tuple[int, np.ndarray]]:
        """Numbers of frames and their pictures (h, w, 3) uint8 RGB, in their order.

        A frame that cannot be decoded, or has another size, is passed over.

        Args:
            chosen: which frames; default: all.
        """
        wanted = set(range(len(self)) if chosen is None else map(int, chosen))
        with _opened(self.path) as capture:
            for index in range(max(wanted, default=-1) + 1):
                if not capture.grab():
                    return
                if index in wanted:
                    there, picture = capture.retrieve()
                    if there and picture.shape[1::-1] == self.size:
                        yield index, cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)


def open_film(path: str) -> Film:
    """Reads through a film.

    Raises:
        UserError: there is no such file, it is no film that can be read, or has no frame.
    """
    if not os.path.isfile(path):
        raise UserError(f"there is no file {path}")
    with _opened(path) as capture:
        promised, rate = capture.get(cv2.CAP_PROP_FRAME_COUNT), capture.get(cv2.CAP_PROP_FPS)
        moments, size = [], None
        for _ in tqdm(iter(capture.grab, False), desc="reading the film", unit="frame", dynamic_ncols=True,
                      total=int(promised) if 0 < promised < 1e9 else None):
            moments.append(capture.get(cv2.CAP_PROP_POS_MSEC) / 1000.0)
            if size is None:
                there, picture = capture.retrieve()
                size = picture.shape[1::-1] if there else None
    if size is None:
        raise UserError(f"{path} has no frame that can be read: the film is broken, or of a kind that OpenCV does not "
                        "know; convert it to MP4")
    if promised > 0 and len(moments) < (1.0 - _MISSING) * promised:
        log.warning("%s: its end is missing or broken: %d of %d frames can be read", path, len(moments), promised)
    return Film(path, rising(np.array(moments), rate), size)


def rising(moments: np.ndarray, rate: float) -> np.ndarray:
    """Times (T,) of frames, from 0 on and strictly rising.

    Args:
        moments: (T,) seconds that the film gives; where they do not rise they are not believed.
        rate: frames a second by its header, which counts where the moments do not.
    """
    step = 1.0 / (rate if np.isfinite(rate) and _RATES[0] <= rate <= _RATES[1] else _USUAL_RATE)
    moments = np.asarray(moments, np.float64)
    steps = np.diff(moments)
    believed = np.isfinite(steps) & (steps > 0)
    if believed.sum() * 2 < len(steps):  # the film does not tell
        return np.arange(len(moments)) * step
    usual = float(np.median(steps[believed])) if believed.any() else step
    return np.concatenate([[0.0], np.cumsum(np.where(believed, steps, usual))])


@contextmanager
def _opened(path):
    """OpenCV's reader of a film, closed at the end; OpenCV's own messages are not shown, either."""
    before = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    capture = cv2.VideoCapture(os.path.abspath(path), cv2.CAP_FFMPEG)  # no patterns of pictures, no addresses
    try:
        if not capture.isOpened():
            raise UserError(f"{path} is no film that can be read: it is broken, or of a kind that OpenCV does not "
                            "know; convert it to MP4")
        capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 1)
        yield capture
    finally:
        capture.release()
        cv2.utils.logging.setLogLevel(before)
