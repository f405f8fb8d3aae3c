"""One person followed through a film: pose, expression and light of every frame, in numbers alone.

Each frame is fitted by itself (``frame_fitting``), beginning where the one before ended; nothing of it is kept but
about a hundred numbers. Afterwards they are smoothed in time, together with how well each frame knew them.

Letters: T frames, Ke expression components.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from scipy.spatial.transform import Rotation
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from facegcn.errors import UserError
from facegcn.landmark_fitting import angles_of, rotation
from facegcn.photos.frames import Film
from facegcn.photos.tracking import FaceTracker
from facegcn.reconstruction.film_camera import FilmCamera
from facegcn.reconstruction.frame_fitting import Fitted, FrameFitter
from facegcn.smoothing import smoothed

MISSING, SEEN, FILLED = 0, 1, 2  # of a frame: no face; a face; none, but so shortly that it is known all the same
GAP = 0.5  # seconds without a face that are filled
_CHECK_EVERY = 0.5  # seconds of the film from one look at who it is to the next


@dataclasses.dataclass
class Track:
    """A person in every frame.

    Attributes:
        times: (T,) seconds.
        state: (T,) uint8 ``MISSING``, ``SEEN`` or ``FILLED``.
        exp: (T, Ke) float32 expression; NaN where nothing is known, as in all below.
        angles, translation: (T, 3) of the head before the film's camera, radians and decimetre.
        gamma: (T, 27) light.
        residual: (T,) mean distance of the landmarks from the face's, pixels of a 224 crop; NaN where not seen.
        precision: (T,) of the head's angles by the landmark fit, relative; 0 where not seen.
    """

    times: np.ndarray
    state: np.ndarray
    exp: np.ndarray
    angles: np.ndarray
    translation: np.ndarray
    gamma: np.ndarray
    residual: np.ndarray
    precision: np.ndarray

    @classmethod
    def empty(cls, times, expressions: int) -> Track:
        """Nothing seen yet."""
        count = len(times)
        unknown = [np.full((count, width), np.nan, np.float32) for width in (expressions, 3, 3, 27)]
        return cls(times, np.zeros(count, np.uint8), *unknown, np.full(count, np.nan, np.float32),
                   np.zeros(count, np.float32))

    def see(self, index: int, fitted: Fitted) -> None:
        """Takes what a frame says."""
        self.state[index], self.residual[index], self.precision[index] = SEEN, fitted.residual, fitted.precision
        for name in ("exp", "angles", "translation", "gamma"):
            getattr(self, name)[index] = getattr(fitted, name)

    def unsee(self, frames: slice) -> None:
        """Forgets what frames said: it was somebody else's."""
        self.state[frames], self.precision[frames] = MISSING, 0.0
        for name in ("exp", "angles", "translation", "gamma", "residual"):
            getattr(self, name)[frames] = np.nan

    @property
    def known(self) -> np.ndarray:
        """(T,) bool: seen or filled."""
        return self.state != MISSING

    # ---------------------------------------------------------------- in time
    def smoothed(self) -> Track:
        """The same without the measurements' noise; short gaps are filled, and what is missing longer parts the film in
        pieces that know nothing of each other."""
        result = dataclasses.replace(self, **{name: np.full_like(getattr(self, name), np.nan) for name in (
            "exp", "angles", "translation", "gamma")}, state=np.zeros_like(self.state))
        for piece in self._pieces():
            seen = self.state[piece] == SEEN
            result.state[piece] = np.where(seen, SEEN, FILLED)
            weights = self._weights(piece, seen)
            for name in ("exp", "translation", "gamma"):
                getattr(result, name)[piece] = smoothed(self.times[piece], getattr(self, name)[piece], weights)
            result.angles[piece] = _smoothed_angles(self.times[piece], self.angles[piece], weights)
        return result

    def _pieces(self) -> list[slice]:
        """Frames from one that is seen to another, without gaps longer than ``GAP``."""
        seen = np.flatnonzero(self.state == SEEN)
        if not seen.size:
            return []
        # Between frames k and l that are seen, the face is away for less than the time from one to the other.
        away = np.where(np.diff(seen) > 1, np.diff(self.times[seen]), 0.0)
        return [slice(group[0], group[-1] + 1) for group in np.split(seen, np.flatnonzero(away > GAP) + 1)]

    def _weights(self, piece, seen):
        """Relative precision of frames; one whose landmarks fit worse than usual counts less."""
        usual = np.nanmedian(self.residual)
        worse = np.maximum(np.where(seen, self.residual[piece], usual) / max(usual, 1e-6), 1.0)
        return np.where(seen, self.precision[piece] / worse ** 2, 0.0)


def _smoothed_angles(times, angles, weights):
    """Angles (T, 3), smoothed as turns from their mean, where no axis is another than the others."""
    seen = weights > 0
    turns = Rotation.from_matrix(np.stack([rotation(row)[0] for row in np.where(seen[:, None], angles, 0.0)]))
    middle = turns[seen].mean()
    moved = smoothed(times, (turns * middle.inv()).as_rotvec(), weights)
    return np.stack([angles_of(turn) for turn in (Rotation.from_rotvec(moved) * middle).as_matrix()])


# ---------------------------------------------------------------- frame by frame
def track_film(film: Film, fitter, person, camera: FilmCamera) -> tuple[Track, np.ndarray]:
    """The person in all frames of a film, and the picture (h, w, 3) of the person's best frame.

    Args:
        film: read frame by frame.
        fitter: ``fitting.CoefficientFitter``; its model has an embedding of dense landmarks.
        person: ``video_person.FilmPerson``.
        camera: of the film.

    Raises:
        UserError: the person is in no frame; or the film cannot be read again.
    """
    track, kept = Track.empty(film.times, fitter.morphable.part_sizes[1]), None
    # Frames are fitted one at a time, in products so small that threads would only wait for each other.
    with threadpool_limits(1, user_api="blas"), tqdm(
            total=len(film), desc="following the face", unit="frame", dynamic_ncols=True) as bar:
        follower = _Follower(FrameFitter(fitter, person, camera), track)
        for index, picture in film.frames():
            kept = picture if index == person.best else kept
            follower.see(index, picture)
            bar.update(index + 1 - bar.n)
    if not (track.state == SEEN).any():
        raise UserError(f"{film.path}: the person of the frames that were looked at could not be followed; give a film "
                        "that shows one face in plain sight")
    if kept is None:
        raise UserError(f"{film.path} could not be read a second time: is it being written?")
    return track, kept


class _Follower:
    """Fills a track, frame by frame."""

    def __init__(self, fitter: FrameFitter, track: Track):
        self._fitter, self._track = fitter, track
        self._tracker = FaceTracker(fitter.is_person)
        self._sure = (-np.inf, -1)  # when, and in which frame, it was last made sure who it is

    def see(self, index: int, picture) -> None:
        """The next frame (h, w, 3)."""
        time = self._track.times[index]
        found = self._tracker(picture, time)
        if found is None or found.anew:
            self._fitter.forget()
        fitted = None if found is None else self._fitter.fit(picture, found.dense)
        if fitted is None:
            return
        if found.anew or time - self._sure[0] >= _CHECK_EVERY:
            if not found.anew and not self._fitter.explains():  # a cut to another face in the same place
                self._track.unsee(slice(self._sure[1] + 1, index))
                self._tracker.lose()
                self._fitter.forget()
                return
            self._sure = (time, index)
        self._track.see(index, fitted)
