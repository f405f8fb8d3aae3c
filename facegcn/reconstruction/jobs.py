"""What test mode is to reconstruct: photos of a folder, or packed ones, each under the name of its results.

A job costs nothing; its photo is loaded when its turn comes, in a thread and some ahead of the networks, so that any
number of photos fits into memory and the networks need not wait for them.
"""

from __future__ import annotations

import functools
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from facegcn.errors import BinFileError, BrokenFile, PhotoError, Rejected
from facegcn.files import read_npz
from facegcn.landmarks import LANDMARK_COUNT, landmark_targets, points_beside
from facegcn.photos import packed_file
from facegcn.photos.alignment import align_photo, dense_of_crop
from facegcn.photos.choosing import LARGEST
from facegcn.photos.packed_photos import PackedPhotos
from facegcn.photos.packing import checked_rgba
from facegcn.photos.reading import opaque, read_image, read_photo
from facegcn.photos.skin import crop_mask
from facegcn.reconstruction.results import result_names, shown

#: Arrays of a made portrait's truth, as ``portraits.maker.Portrait`` describes them.
TRUTH_ARRAYS = ("landmarks", "albedo", "visible")
_BESIDE = (".lm68.txt", ".txt")  # files of points, see ``landmarks.points_beside``
_NO_SKIN = "its skin mask is empty"
_BATCHES_AHEAD = 2  # so many that the start of a program is time enough to load them
_BLOCK = 64  # packed records read at a time: looking one up costs more than reading it


class Photo(NamedTuple):
    """A photo that is ready for the networks.

    Attributes:
        rgba: (S, S, 4) uint8 aligned crop with skin alpha.
        targets: (73, 2) landmark targets, pixels of the crop, NaN where unknown.
        transform: (2, 3) photo pixels -> crop pixels; the identity for segmented input.
        truth: ``TRUTH_ARRAYS`` of a made portrait, or None.
        status: ``ok``, or what the user should know of the photo: ``alignment.AlignedPhoto.remarks``.
        remark: what the user should know of it, or "".
        dense: (468, 3) dense landmarks, x and y in pixels of the crop and trust; None where unknown.
        estimated: the skin mask was estimated: nobody gave it.
        original: gives the picture as it was, (h, w, 3) uint8; None: it is the crop.
    """

    rgba: np.ndarray
    targets: np.ndarray
    transform: np.ndarray = np.eye(2, 3, dtype=np.float32)
    truth: dict | None = None
    status: str = "ok"
    remark: str = ""
    dense: np.ndarray | None = None
    estimated: bool = False
    original: Callable[[], np.ndarray] | None = None

    def picture(self) -> np.ndarray:
        """The original photo (h, w, 3) uint8, read again: it may be large. Raises PhotoError as ``read_photo``."""
        return self.rgba[..., :3] if self.original is None else self.original()


@dataclass
class Job:
    """One photo on its way through test mode.

    Attributes:
        name: stem of the output files.
        load: gives the photo, or raises PhotoError.
        remark: what the user should know of its name, or "".
        status: "" until its turn came; then the photo's, or ``no face``, ``unreadable``, ``bad points``, ``no skin``,
            ``no crop``, ``failed``.
        message: why there is no result, and the cure; or a remark.
        written: whether its results are in the output folder.
        metrics: of the results.
        path: of the photo's file; "" where it has none of its own.
        stamp: of the file and those beside it, before it is read: see ``stamp``.
        suspect: it was under way when an earlier run was killed, perhaps by it: it is taken alone, after all others.
    """

    name: str
    load: Callable[[], Photo]
    remark: str = ""
    status: str = ""
    message: str = ""
    written: bool = False
    metrics: dict = field(default_factory=dict)
    path: str = ""
    stamp: list = field(default_factory=list)
    suspect: bool = False


class PhotosAhead:
    """Jobs whose photos one thread loads, in their order and some ahead of who takes them; not those that are done.

    Loading begins at once. A context manager: when it ends, for whatever reason, no more are loaded, and the one that
    was begun is waited for.

    Args:
        jobs: whose photos are wanted.
        batch_size: photos that are taken together; twice as many are loaded ahead.
        begun: is told of each photo before it is loaded.

    Attributes:
        jobs, batch_size: the same.
    """

    def __init__(self, jobs: Sequence[Job], batch_size: int, begun: Callable[[Job], None] | None = None):
        self.jobs, self.batch_size, self._begun = jobs, batch_size, begun
        self._pool = ThreadPoolExecutor(1, "facegcn-photos")
        left = [job for job in jobs if not job.status]
        self._left, self._ahead = iter([job for job in left if not job.suspect]), deque()
        self._suspects = [job for job in left if job.suspect]
        for _ in range(_BATCHES_AHEAD * batch_size):
            self._load_another()

    def _load_another(self) -> None:
        job = next(self._left, None)
        if job is not None:
            self._ahead.append((job, self._pool.submit(self._load, job)))

    def _load(self, job) -> Photo:
        if self._begun is not None:
            self._begun(job)
        return job.load()

    def __iter__(self) -> Iterator[tuple[Job, Future]]:
        """Jobs and their photos to come: ``result()`` waits for one, and raises what loading it raised."""
        while self._ahead:
            taken = self._ahead.popleft()
            self._load_another()
            yield taken

    def alone(self) -> Iterator[tuple[Job, Future]]:
        """The suspects likewise, none of which is loaded before it is taken."""
        for job in self._suspects:
            yield job, self._pool.submit(self._load, job)

    def __enter__(self) -> PhotosAhead:
        return self

    def __exit__(self, *_) -> None:
        self._pool.shutdown(cancel_futures=True)
        self._ahead.clear()


def photo_jobs(paths: Sequence[str], morphable, size: int, segmented: bool = False,
               face: str | int = LARGEST) -> list[Job]:
    """Jobs of image files.

    Args:
        paths: of the files.
        morphable: the MorphableModel, for alignment.
        size: width of the crops, pixels.
        segmented: every file is an aligned crop whose alpha marks the skin, whoever made it.
        face: which of several faces, see ``choosing.face_choice``.
    """
    files = [os.path.basename(path) for path in paths]
    stems, endings = ([os.path.splitext(file)[part] for file in files] for part in (0, 1))
    how = (morphable, size, segmented, face)
    return [Job(name, functools.partial(load_photo, path, *how), _renamed(file, stem, name), path=path,
                stamp=stamp(path))
            for path, file, stem, name in zip(paths, files, stems, result_names(stems, endings))]


def stamp(path: str) -> list:
    """What changes when a photo or the points beside it do: names, sizes and times of change."""
    stem = os.path.splitext(path)[0]
    beside = [stem + ending for ending in _BESIDE]
    truth = os.path.join(os.path.dirname(path), "truth", f"{os.path.basename(stem)}.npz")
    found = []
    for file in (path, *beside, truth):
        try:
            about = os.stat(file)
        except (OSError, ValueError):
            continue
        found.append([os.path.basename(file), about.st_size, about.st_mtime_ns])
    return found


def packed_jobs(packed: PackedPhotos, indices, vertex_count: int) -> list[Job]:
    """Jobs of packed photos, a made portrait's with its truth.

    Args:
        packed: the packed photos.
        indices: which records.
        vertex_count: of the morphable model.
    """
    reader = functools.cache(packed_file.Reader)  # opened when the first job is loaded

    @functools.lru_cache(maxsize=1)  # jobs are loaded in their order
    def block(number):
        return reader(packed.path)(indices[number * _BLOCK:(number + 1) * _BLOCK])

    def load(place):
        index = indices[place]
        truth, remark = _truth(packed.truth_folder, packed.names[index], vertex_count)
        try:
            record = block(place // _BLOCK)[place % _BLOCK]
        except BinFileError:  # a damaged record does not spoil its neighbours
            record = reader(packed.path)([index])[0]
        return Photo(record, packed.targets[index], truth=truth, remark=remark, dense=_known(packed.dense[index]))
    wanted = [packed.names[i] for i in indices]
    return [Job(name, functools.partial(load, place), _renamed(record, record, name))
            for place, (record, name) in enumerate(zip(wanted, result_names(wanted)))]


def _known(dense: np.ndarray) -> np.ndarray | None:
    """Packed dense landmarks, or None where they are unknown."""
    return dense if dense[:, 2].any() else None


def _renamed(file: str, stem: str, name: str) -> str:
    """Says so where the results cannot be called as the photo is."""
    return "" if name in (stem, file) else f"named so because no result can be called {shown(file)}"


def load_photo(path: str, morphable, size: int, segmented: bool = False, face: str | int = LARGEST) -> Photo:
    """Reads one image: what says that it is an aligned crop of ours as it is, any other photo aligned and masked.

    Args:
        path: the file.
        morphable, size, segmented, face: as for ``photo_jobs``.

    Raises:
        PhotoError: it cannot be used; says why.
    """
    photo = read_photo(path)
    points = points_beside(path)
    if segmented or photo.is_crop(size):
        try:
            checked_rgba(photo.image, size)
        except Rejected as error:
            raise PhotoError(str(error), "no crop") from error
        folder, file = os.path.split(path)
        truth, remark = _truth(os.path.join(folder, "truth"), os.path.splitext(file)[0], morphable.vertex_count)
        # A made portrait's exact landmarks are for measuring; no photo comes with such.
        targets = landmark_targets(None) if truth or remark else _targets(points)
        return Photo(photo.image, targets, truth=truth, remark=remark, dense=dense_of_crop(photo.image, points))
    return photo_of(photo.image, points, functools.partial(_original, path), morphable, size, face)


def photo_of(image: np.ndarray, points: np.ndarray | None, original: Callable[[], np.ndarray], morphable, size: int,
             face: str | int = LARGEST) -> Photo:
    """A picture of any kind, aligned and masked.

    Args:
        image: (h, w, 3) or (h, w, 4) uint8.
        points: the user's (``landmarks.points_beside``), or None.
        original: gives the picture again, as ``Photo.original``.
        morphable, size, face: as for ``photo_jobs``.

    Raises:
        PhotoError: no face is found in it, or none that can be used; says why.
    """
    aligned = align_photo(image, points, morphable.five_points, size, face)
    mask = crop_mask(aligned)
    if not mask.any():
        raise PhotoError(_NO_SKIN, "no skin")
    return Photo(np.concatenate([aligned.crop.image, mask[..., None]], axis=-1),
                 landmark_targets(aligned.points, aligned.landmarks), aligned.crop.transform, status=aligned.status,
                 dense=aligned.dense, estimated=True, original=original)


def _original(path: str) -> np.ndarray:
    """The picture of a file, without transparency."""
    return opaque(read_image(path))


def _targets(points: np.ndarray | None) -> np.ndarray:
    """(73, 2) targets of a segmented crop's 5 or 68 points, or of none."""
    if points is None or len(points) != LANDMARK_COUNT:
        return landmark_targets(points)
    return landmark_targets(None, points)


def _truth(folder: str, name: str, vertex_count: int) -> tuple[dict | None, str]:
    """A made portrait's truth where the folder has one that can be used, and why one that is there cannot."""
    file = os.path.join(folder, f"{name}.npz")
    if not folder or not os.path.exists(file):
        return None, ""
    try:
        truth = read_npz(file, TRUTH_ARRAYS)
    except BrokenFile as error:
        return None, f"not compared with its truth: {error}"
    shapes = {"landmarks": (LANDMARK_COUNT, 2), "albedo": (vertex_count, 3), "visible": (vertex_count,)}
    if any(truth[key].shape != shape or truth[key].dtype.kind not in "biuf" for key, shape in shapes.items()):
        return None, f"not compared with its truth: {file} is of another face model"
    return truth, ""
