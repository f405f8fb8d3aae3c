"""Clips: weights of named expressions over time, and their CSV files.

A file has a header and one row for each moment. ``time`` in seconds or ``frame`` counts the moments; the other columns
are any of ARKit's names (``facegcn.blendshapes.ARKIT_NAMES``), and headYaw, headPitch, headRoll in radians. What
Epic's app Live Link Face exports is read as it is: Timecode, BlendShapeCount, 52 names that begin with capitals, three
angles of the head and six of the eyes (which are left alone, since eyeLook... says the same).
"""

from __future__ import annotations

import csv
import difflib
import io
import re
from dataclasses import dataclass

import numpy as np

from facegcn import files
from facegcn.blendshapes import ARKIT_NAMES
from facegcn.errors import UserError, log

FRAME_RATE = 30.0  # of ``frame`` where nothing else is said
HEAD_COLUMNS = ("headPitch", "headYaw", "headRoll")  # rotation about x, y, z, as ``Clip.head``

_CLOCKS = ("time", "frame", "timecode")
_LEFT_ALONE = ("BlendShapeCount", *(f"{side}Eye{turn}" for side in ("Left", "Right") for turn in (
    "Yaw", "Pitch", "Roll")))
_KNOWN = {name.lower(): name for name in (*_CLOCKS, *HEAD_COLUMNS, *ARKIT_NAMES, *_LEFT_ALONE)}
_COUNT = _LEFT_ALONE[0]
_TIMECODE = re.compile(r"(\d+):(\d+):(\d+)[:;](\d+(?:\.\d+)?)")
_TIMECODE_RATES = (24.0, 25.0, 30.0, 50.0, 60.0, 120.0)  # frames a second that cameras count
_WIDEST_TURN = 2 * np.pi  # radians; a head that turns more is meant in degrees
_LONGEST = 30 * 86400.0  # seconds
_SHOWN = 40  # signs of a cell in a message
_ROUNDING = 1e-3  # weights beyond 0 and 1 by no more are not worth a word


@dataclass
class Clip:
    """Weights of named expressions over time.

    Attributes:
        times: (T,) float64, seconds, strictly increasing.
        names: A of ``ARKIT_NAMES``.
        weights: (T, A) float64 in [0, 1].
        head: (T, 3) radians about x, y and z (pitch, yaw, roll) by the right-hand rule, as ``geometry.rotate`` takes
            them: positive pitch looks down, positive yaw to the person's left, positive roll leans the head to the
            left of the picture; or None where the clip does not tell.
    """

    times: np.ndarray
    names: tuple[str, ...]
    weights: np.ndarray
    head: np.ndarray | None = None

    @property
    def duration(self) -> float:
        """Seconds from the first moment to the last."""
        return float(self.times[-1] - self.times[0])

    def weights_of(self, names) -> np.ndarray:
        """Weights (T, len(names)) in the order of ``names``; 0 for those that the clip does not have."""
        columns = {name: k for k, name in enumerate(self.names)}
        return np.stack([self.weights[:, columns[name]] if name in columns else np.zeros(len(self.times))
                         for name in names], axis=1)

    def lost(self, names) -> list[str]:
        """Names that the clip moves and that are not among ``names``, which a model has."""
        return [name for name, moves in zip(self.names, self.weights.any(axis=0)) if moves and name not in names]


# ---------------------------------------------------------------- reading
def read_clip(path: str, frame_rate: float | None = None) -> Clip:
    """Reads a clip; begins at its first moment, as time 0.

    Weights outside [0, 1] are clipped, with a warning.

    Args:
        path: the CSV file.
        frame_rate: frames a second, for files that count frames; None takes 30 for ``frame``, and for a timecode the
            first of 24, 25, 30, 50, 60, 120 that is above its largest frame number.

    Raises:
        UserError: the file is absent or no text; has no rows; a column is unknown or there twice; a row is too short
            or too long; a value is no finite number; time does not increase (one message each, with the line's number);
            or it goes over more than a month.
    """
    if frame_rate is not None and not 0 < frame_rate < np.inf:
        raise UserError(f"the frame rate of {path} is {frame_rate:g}: it must be above 0")
    lines, rows = _rows(path)
    columns = _columns(path, rows[0])
    rows, lines = _seen(path, rows[1:], lines[1:], columns)
    clock = next(name for name in _CLOCKS if name in columns)
    numbers = {name: _numbers(path, lines, name, [row[k] for row in rows])
               for name, k in columns.items() if name not in _LEFT_ALONE and name != "timecode"}
    times = _times(path, lines, clock, numbers.get(clock), [row[columns[clock]] for row in rows], frame_rate)
    with np.errstate(invalid="ignore", over="ignore"):
        times = times - times[0]
    if not (np.abs(times) < _LONGEST).all():  # also where the first moment is too far for any later one to differ
        raise UserError(f"{path}: its {clock} goes over more than {_LONGEST / 86400:g} days")
    later = np.flatnonzero(np.diff(times) <= 0)
    if later.size:
        raise UserError(f"{path}, line {lines[later[0] + 1]}: {clock} does not increase; every row must be later than "
                        "the one before")
    names = tuple(name for name in ARKIT_NAMES if name in numbers)
    weights = np.stack([numbers[name] for name in names], axis=1) if names else np.zeros((len(times), 0))
    return Clip(times, names, _clipped(path, names, weights), _head(path, lines, numbers))


def _rows(path):
    """The rows that are not empty, and their line numbers."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(io.StringIO(file.read()), strict=True)
            found = [(reader.line_num, [cell.strip() for cell in row]) for row in reader if any(map(str.strip, row))]
    except OSError as error:
        raise UserError(f"the clip {path} cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"the clip {path} is no CSV text file: {error}") from error
    if len(found) < 2:
        raise UserError(f"the clip {path} is empty: it needs a header and a row for each moment")
    return [line for line, _ in found], [row for _, row in found]


def _columns(path, header):
    """Place of each column by its name here; refuses names that are unknown, missing or there twice."""
    unknown = [name for name in header if name.lower() not in _KNOWN]
    if unknown:
        shown = []
        for name in unknown[:10]:
            name = name[:_SHOWN]
            near = difflib.get_close_matches(name.lower(), _KNOWN, n=2, cutoff=0.5)
            shown.append(repr(name) + (f" (near: {', '.join(_KNOWN[key] for key in near)})" if near else ""))
        raise UserError(f"the clip {path} has unknown columns: {', '.join(shown)}"
                        + f" and {len(unknown) - 10} more" * (len(unknown) > 10)
                        + "; known are time or frame, headYaw, headPitch, headRoll and ARKit's 52 blendshapes, parted "
                        "by commas")
    names = [_KNOWN[name.lower()] for name in header]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(f"the clip {path} has the column {twice[0]} twice")
    if not set(_CLOCKS) & set(names):
        raise UserError(f"the clip {path} has no column that tells time: add 'time' in seconds, or 'frame'")
    if not set(names) & {*ARKIT_NAMES, *HEAD_COLUMNS}:
        raise UserError(f"the clip {path} tells of nothing but time: add a column such as jawOpen")
    return {name: k for k, name in enumerate(names)}


def _seen(path, rows, lines, columns):
    """The rows that hold a face: Live Link Face writes a count of 0 where it saw none."""
    if _COUNT in columns:
        kept = [k for k, row in enumerate(rows) if len(row) <= columns[_COUNT] or row[columns[_COUNT]] != "0"]
        if len(kept) < len(rows):
            log.warning("warning: %s: %s rows without a face are left out", path, len(rows) - len(kept))
        rows, lines = [rows[k] for k in kept], [lines[k] for k in kept]
        if not rows:
            raise UserError(f"the clip {path} saw no face in any row")
    for row, line in zip(rows, lines):
        if len(row) != len(columns):
            raise UserError(f"{path}, line {line}: {len(row)} values, but the header has {len(columns)} columns")
    return rows, lines


def _numbers(path, lines, name, cells):
    """Finite numbers of one column."""
    try:
        values = np.array([float(cell) for cell in cells])
    except ValueError:
        values = np.array([_number(cell) for cell in cells])
    wrong = np.flatnonzero(~np.isfinite(values))
    if wrong.size:
        raise UserError(f"{path}, line {lines[wrong[0]]}: {name} is {cells[wrong[0]][:_SHOWN]!r}, expected a number")
    return values


def _number(cell):
    try:
        return float(cell)
    except ValueError:
        return np.nan


def _times(path, lines, clock, numbers, cells, frame_rate):
    """Seconds of each row."""
    if clock == "time":
        return numbers
    if clock == "frame":
        return numbers / (frame_rate or FRAME_RATE)
    parts = [_TIMECODE.fullmatch(cell) for cell in cells]
    if not all(parts):
        wrong = parts.index(None)
        raise UserError(f"{path}, line {lines[wrong]}: the timecode is {cells[wrong][:_SHOWN]!r}, expected "
                        "hours:minutes:seconds:frames")
    hours, minutes, seconds, frames = np.array([part.groups() for part in parts], np.float64).T
    rate = frame_rate or next((rate for rate in _TIMECODE_RATES if rate > np.floor(frames.max())), None)
    if rate is None or np.floor(frames.max()) >= rate:
        raise UserError(f"{path}, line {lines[frames.argmax()]}: the timecode counts frame {frames.max():g} of a "
                        f"second{'' if rate is None else f', but the frame rate is {rate:g}'}")
    return hours * 3600 + minutes * 60 + seconds + frames / rate


def _clipped(path, names, weights):
    outside = np.maximum(-weights, weights - 1).max(axis=0, initial=0.0)
    worst = [name for name, beyond in zip(names, outside) if beyond > _ROUNDING]
    if worst:
        log.warning("warning: %s: %s go%s beyond 0 to 1 (%.3g to %.3g) and are clipped", path,
                    ", ".join(worst[:5]) + f" and {len(worst) - 5} more" * (len(worst) > 5), "es" * (len(worst) == 1),
                    weights.min(), weights.max())
    return np.clip(weights, 0.0, 1.0)


def _head(path, lines, numbers):
    """Angles (T, 3) about x, y and z, or None."""
    given = [name for name in HEAD_COLUMNS if name in numbers]
    if not given:
        return None
    for name in given:
        far = np.abs(numbers[name]) > _WIDEST_TURN
        if far.any():
            raise UserError(f"{path}, line {lines[far.argmax()]}: {name} is {numbers[name][far.argmax()]:g}, expected "
                            "radians (degrees times 0.01745)")
    still = np.zeros(len(lines))
    return np.stack([numbers.get(name, still) for name in HEAD_COLUMNS], axis=1)


# ---------------------------------------------------------------- writing
def write_clip(path: str, clip: Clip) -> None:
    """Writes a clip as CSV with ``time``; whole or not at all, to the microsecond and six digits.

    Raises:
        UserError: its folder cannot be made.
        OSError: as ``files.written_whole``.
    """
    head = clip.head if clip.head is not None else np.zeros((len(clip.times), 0))
    header = ["time", *clip.names, *(HEAD_COLUMNS if clip.head is not None else ())]
    rows = zip(clip.times.tolist(), np.hstack([clip.weights, head]).tolist())
    lines = [",".join(header), *(",".join([f"{time:.6f}", *(f"{value:.6g}" for value in row)]) for time, row in rows)]
    files.write_text(path, "\n".join(lines) + "\n")


# ---------------------------------------------------------------- a clip made here
def sample_clip(frame_rate: float = FRAME_RATE) -> Clip:
    """Six seconds that begin and end neutral: blinks, a smile, the jaw, vowels, brows, gaze, a nod and a turn.

    Args:
        frame_rate: moments a second.
    """
    times = np.arange(round(6 * frame_rate) + 1) / frame_rate
    moves = {}

    def add(stems, begin, top, end, amount, until=None):
        """Up from ``begin`` to ``top``, held ``until``, down at ``end``; seconds."""
        wave = amount * _hump(times, begin, top, top if until is None else until, end)
        for name in stems:
            moves[name] = moves.get(name, 0) + wave

    for begin in (0.3, 2.75, 5.2):
        add(_both("eyeBlink"), begin, begin + 0.1, begin + 0.3, 1.0)
    add(_both("mouthSmile"), 0.7, 1.1, 1.9, 0.8, until=1.5)
    add(_both("cheekSquint"), 0.7, 1.1, 1.9, 0.4, until=1.5)
    add(["jawOpen"], 1.9, 2.15, 2.45, 0.55)
    add(["mouthFunnel"], 2.35, 2.55, 2.8, 0.7)
    add(["jawOpen"], 2.35, 2.55, 2.8, 0.15)
    add(["mouthPucker"], 2.75, 2.95, 3.2, 0.7)
    add(["browInnerUp", *_both("browOuterUp"), *_both("eyeWide")], 3.1, 3.35, 3.9, 0.7, until=3.6)
    add(["eyeLookOutLeft", "eyeLookInRight"], 3.8, 4.0, 4.4, 0.8, until=4.2)
    add(["eyeLookInLeft", "eyeLookOutRight"], 4.3, 4.5, 4.9, 0.8, until=4.7)
    add(_both("browDown"), 4.8, 5.05, 5.5, 0.6)
    head = np.stack([0.16 * (_hump(times, 0.9, 1.15, 1.15, 1.4) + _hump(times, 1.35, 1.6, 1.6, 1.9)),
                     0.25 * (_hump(times, 3.8, 4.05, 4.2, 4.4) - _hump(times, 4.3, 4.55, 4.7, 4.95)),
                     0.1 * _hump(times, 5.0, 5.3, 5.5, 5.9)], axis=1)
    names = tuple(name for name in ARKIT_NAMES if name in moves)
    return Clip(times, names, np.clip(np.stack([moves[name] for name in names], axis=1), 0, 1), head)


def _both(stem):
    return [f"{stem}Left", f"{stem}Right"]


def _hump(times, begin, top, until, end):
    """0 before ``begin`` and after ``end``, 1 between ``top`` and ``until``, smooth between."""
    rise = np.clip((times - begin) / (top - begin), 0, 1)
    fall = np.clip((end - times) / (end - until), 0, 1)
    share = np.minimum(rise, fall)
    return share * share * (3 - 2 * share)
