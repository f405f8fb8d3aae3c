"""The packed photos of a config: images, names, splits and landmark targets, ready for training."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from facegcn.backends import record_kernels
from facegcn.config import Config
from facegcn.errors import UserError
from facegcn.files import read_npz
from facegcn.landmarks import LANDMARK_COUNT, TARGET_COUNT, known_dense
from facegcn.photos import packed_file

_READERS = min(8, os.cpu_count() or 2)  # batches that are read at the same time


@dataclass
class PackedPhotos:
    """One packed file and what belongs to its records.

    Attributes:
        path: the ``.bin`` file.
        names: of the records.
        splits: record indices by name: ``train``, ``val``, ``test``.
        targets: (M, 73, 2) float32 landmark targets in pixels, NaN where unknown.
        truth: (T, N, 3) float16 true albedo in [-1, 1] of the made portraits among them; None where there is none.
        truth_row: (M,) int32 row of ``truth`` of each record, -1 = a photo, whose true albedo nobody knows.
        truth_folder: of the made portraits' truth, NAME.npz; "" where there is none.
        dense: (M, 468, 3) float32 dense landmarks, x and y in pixels and trust; NaN, NaN and 0 where unknown, and for
            all of them by default.
        second: (M, K) float32 coefficients of another picture of the same person, of made portraits; None where there
            is none.
    """

    path: str
    names: list[str]
    splits: dict[str, np.ndarray]
    targets: np.ndarray
    truth: np.ndarray | None = None
    truth_row: np.ndarray | None = None
    truth_folder: str = ""
    dense: np.ndarray | None = None
    second: np.ndarray | None = None

    def __post_init__(self):
        if self.truth_row is None:
            self.truth_row = np.full(len(self.names), -1, np.int32)
        if self.dense is None:
            self.dense = np.tile(known_dense(None), (len(self.names), 1, 1))

    def truth_of(self, indices, vertex_count: int) -> np.ndarray:
        """(len(indices), N, 3) float16 true albedo of some records, NaN for photos."""
        rows = self.truth_row[np.asarray(indices)]
        found = np.full((len(rows), vertex_count, 3), np.nan, np.float16)
        if self.truth is not None:
            found[rows >= 0] = self.truth[rows[rows >= 0]]
        return found

    @functools.cached_property
    def _reader(self) -> packed_file.Reader:
        return packed_file.Reader(self.path)

    def photos(self, indices) -> tf.Tensor:
        """(len(indices), H, W, 4) records in network range, see ``to_network_range``."""
        return to_network_range(self._reader(indices))

    def examples(self, indices, arrays, seed: int | None = None, first: int = 0, truth_vertices: int = 0) -> Examples:
        """Examples (picture, one row of each array) of some records; ``batches`` makes batches of them.

        Args:
            indices: records to take.
            arrays: arrays whose row i belongs to record i; they may be memory maps, since rows are read when asked for.
            seed: None = once, in order; otherwise endless, epoch by epoch, each a permutation of all the indices
                that depends on seed and epoch only.
            first: number of the first example: those before it are passed over without being read.
            truth_vertices: where above 0, each example ends with its true albedo (N, 3) float16, see ``truth_of``.
        """
        indices = np.asarray(indices, np.int64)

        def rows(chosen):
            truth = [self.truth_of(chosen, truth_vertices)] if truth_vertices else []
            return [*(np.asarray(array[chosen]) for array in arrays), *truth]

        place = _in_order(indices[first:]) if seed is None else _shuffled(indices, seed, first)
        return Examples([(self._reader, rows)], place, len(indices[first:]) if seed is None else None)


class Examples:
    """A series of examples, of which any can be read without those before it.

    Args:
        sources: (reader, function that gives the arrays' rows of some records) of each packed file.
        place: (B,) ascending numbers of examples -> the source (B,) and the record (B,) of each.
        count: of examples; None = endless.

    Attributes:
        count: as above.
        specs: TensorSpec of a batch's picture, and of each array's rows.
    """

    def __init__(self, sources, place, count: int | None):
        self.sources, self.place, self.count = sources, place, count
        reader, rows = sources[0]
        self.specs = [tf.TensorSpec((None, *reader.header.shape), tf.float32),
                      # What they are like is seen on none of them.
                      *(tf.TensorSpec((None, *found.shape[1:]), found.dtype) for found in rows(np.zeros(0, np.int64)))]
        self._buffers = reader.buffers

    def read(self, numbers: np.ndarray) -> list[np.ndarray]:
        """Pictures (B, H, W, 4) in network range, and rows of each array, of the examples with these numbers (B,)."""
        which, records = self.place(numbers)
        shapes = [(len(numbers), *spec.shape[1:]) for spec in self.specs]
        rgba8, rgba = (self._buffers.take(shapes[0], kind) for kind in (np.uint8, np.float32))
        arrays = [np.empty(shape, spec.dtype.as_numpy_dtype) for shape, spec in zip(shapes[1:], self.specs[1:])]
        for number, (reader, rows) in enumerate(self.sources):
            own = np.flatnonzero(which == number)
            reader.into(rgba8, own, records[own])
            for array, found in zip(arrays, rows(records[own]), strict=True):
                array[own] = found
        record_kernels.to_network_range(rgba8.reshape(-1), rgba.reshape(-1))
        return [rgba, *arrays]


def _in_order(indices: np.ndarray):
    return lambda numbers: (np.zeros(len(numbers), np.int64), indices[numbers])


def _shuffled(indices: np.ndarray, seed: int, first: int):
    """``Examples.place`` of endless epochs; no table but the orders of two epochs is kept."""
    @functools.lru_cache(maxsize=2)
    def order(epoch):
        return np.random.default_rng([seed, epoch]).permutation(indices)

    def place(numbers):
        epochs, places = np.divmod(first + numbers, len(indices))
        records = np.empty(len(numbers), np.int64)
        for epoch in range(epochs[0], epochs[-1] + 1) if len(numbers) else ():
            records[epochs == epoch] = order(epoch)[places[epochs == epoch]]
        return np.zeros(len(numbers), np.int64), records
    return place


def alternated(one: Callable[[int], Examples], other: Callable[[int], Examples], first: int) -> Examples:
    """Examples of two endless series in turn, from example ``first`` on; even ones are of the first series.

    Args:
        one, other: the series from the example of the given number on.
        first: number of the first example.
    """
    begins = (first + 1) // 2, first // 2
    series = one(begins[0]), other(begins[1])

    def place(numbers):
        turns, places = (first + numbers) % 2, (first + numbers) // 2
        which, records = np.empty((2, len(numbers)), np.int64)
        for turn, examples in enumerate(series):
            mine = turns == turn
            which[mine], records[mine] = examples.place(places[mine] - begins[turn])
            which[mine] += turn * len(series[0].sources)
        return which, records
    return Examples([*series[0].sources, *series[1].sources], place, None)


def batches(examples: Examples, batch_size: int, part: int = 0, parts: int = 1) -> tf.data.Dataset:
    """Batches (rgba in network range, rows) of ``PackedPhotos.examples``; a last short one is kept.

    Args:
        examples: the series.
        batch_size: examples of a batch.
        part, parts: which of how many parts of each batch to read, where several machines share them; of one size
            where ``parts`` divides ``batch_size``. Nothing of the other parts is read.
    """
    def read(step):
        begin = int(step) * batch_size
        size = batch_size if examples.count is None else min(batch_size, examples.count - begin)
        return examples.read(np.arange(begin + size * part // parts, begin + size * (part + 1) // parts))

    def tensors(step):
        # One call for a whole batch: a Python call for each record would cost more than the reading.
        found = tf.numpy_function(read, [step], [spec.dtype for spec in examples.specs], stateful=False)
        return tuple(tf.ensure_shape(rows, spec.shape) for rows, spec in zip(found, examples.specs))

    steps = (tf.data.Dataset.counter() if examples.count is None
             else tf.data.Dataset.range(-(-examples.count // batch_size)))
    return steps.map(tensors, num_parallel_calls=_READERS, deterministic=True).prefetch(2)


def to_network_range(rgba8) -> tf.Tensor:
    """uint8 RGBA (..., 4) -> float32, RGB in [-1, 1], alpha in [0, 1]."""
    return tf.cast(rgba8, tf.float32) * _TO_RANGE_SCALE + _TO_RANGE_OFFSET


_TO_RANGE_SCALE = np.float32([1 / 127.5] * 3 + [1 / 255])
_TO_RANGE_OFFSET = np.float32([-1, -1, -1, 0])


def albedo_truth(folder: str, names: list[str], vertex_count: int) -> tuple[np.ndarray | None, np.ndarray]:
    """True albedo of the records that have a file ``folder/NAME.npz``.

    Returns:
        (T, N, 3) float16 in [-1, 1], or None where no record has one; and (M,) int32, each record's row, -1 = none.

    Raises:
        UserError: a file holds the truth of a model with another number of vertices.
    """
    table, rows = [], np.full(len(names), -1, np.int32)
    for i, name in enumerate(names if folder else ()):
        path = os.path.join(folder, f"{name}.npz")
        if not os.path.exists(path):
            continue
        albedo = read_npz(path, ["albedo"])["albedo"]
        if albedo.shape != (vertex_count, 3):
            raise UserError(f"{path} holds the truth of another model ({len(albedo)} vertices, not {vertex_count}): "
                            "run create_bin.py with this config")
        rows[i] = len(table)
        table.append((albedo / 127.5 - 1.0).astype(np.float16))
    return (np.stack(table) if table else None), rows


def targets_of(points: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """(M, 73, 2) float32: ``landmarks.landmark_targets`` of many photos at once.

    Args:
        points: (M, 5, 2) alignment points, NaN where unknown.
        landmarks: (M, 68, 2) iBUG points likewise.
    """
    targets = np.full((len(points), TARGET_COUNT, 2), np.nan, np.float32)
    known = np.isfinite(landmarks).any(axis=(1, 2))
    targets[known, :LANDMARK_COUNT] = landmarks[known]
    targets[~known, LANDMARK_COUNT:] = points[~known]
    return targets


def read_packed(config: Config, vertex_count: int) -> PackedPhotos:
    """The packed photos of a config.

    Args:
        config: where they are.
        vertex_count: of the morphable model.

    Raises:
        UserError: the packed file is absent, broken or of another image size; says the cure.
    """
    path = config.path(config.bin_file)
    if not os.path.exists(path):
        raise UserError(f"there are no packed photos at {path}: run create_bin.py with the same config first")
    header, records = packed_file.read_header(path), packed_file.read_companion(path)
    if header.shape != (config.img_size, config.img_size, 4):
        raise UserError(f"{path} holds images of {header.height} x {header.width} x {header.channels}, the "
                        f"config asks for img_size {config.img_size}: pack again with create_bin.py")
    if not len(records.splits["train"]):
        raise UserError(f"no image of {path} is left for training ({len(records.names)} packed): pack more photos")
    targets = targets_of(records.points, records.landmarks)
    if records.truth_folder and not os.path.isdir(records.truth_folder):
        raise UserError(f"{path} holds made portraits, and the folder of their truth, {records.truth_folder}, is not "
                        "there: put it back, or pack again with create_bin.py")
    truth, truth_row = albedo_truth(records.truth_folder, records.names, vertex_count)
    # A made portrait's exact landmarks are for measuring; no photo comes with such.
    targets[truth_row >= 0] = np.nan
    return PackedPhotos(path, records.names, records.splits, targets, truth, truth_row, records.truth_folder,
                        records.dense)
