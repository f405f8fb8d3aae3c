"""The packed photos of a config: images, names, splits and landmark targets, ready for training."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from facegcn.config import Config
from facegcn.errors import UserError
from facegcn.files import read_npz
from facegcn.landmarks import known_dense, landmark_targets
from facegcn.photos import packed_file

_READ_TOGETHER = 32  # records fetched by one call


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

    def photos(self, indices) -> tf.Tensor:
        """(len(indices), H, W, 4) records in network range, see ``to_network_range``."""
        return to_network_range(packed_file.read_records(self.path, indices))

    def examples(self, indices, arrays, seed: int | None = None, first: int = 0,
                 truth_vertices: int = 0) -> tf.data.Dataset:
        """Single (uint8 rgba, one row of each array) of some records; ``batches`` makes batches of them.

        Args:
            indices: records to take.
            arrays: arrays whose row i belongs to record i; they may be memory maps, since rows are read when asked for.
            seed: None = once, in order; otherwise endless, epoch by epoch, each a permutation of all the indices
                that depends on seed and epoch only.
            first: number of the first example: those before it are passed over without being read.
            truth_vertices: where above 0, each example ends with its true albedo (N, 3) float16, see ``truth_of``.
        """
        read = packed_file.reader(self.path)

        def rows_of(chosen):
            truth = [self.truth_of(chosen, truth_vertices)] if truth_vertices else []
            return [read(chosen), *(np.asarray(array[chosen]) for array in arrays), *truth]

        # What they are like is seen on none of them.
        specs = [tf.TensorSpec((None, *rows.shape[1:]), rows.dtype) for rows in rows_of(np.zeros(0, np.int64))]

        def gather(chosen):
            found = tf.numpy_function(rows_of, [chosen], [spec.dtype for spec in specs], stateful=False)
            return tuple(tf.ensure_shape(rows, spec.shape) for rows, spec in zip(found, specs))

        # One call fetches many records: a Python call each would cost more than the copy.
        return (_order(np.asarray(indices, np.int64), seed, first).batch(_READ_TOGETHER)
                .map(gather, num_parallel_calls=2, deterministic=True).unbatch())


def _order(indices: np.ndarray, seed: int | None, first: int) -> tf.data.Dataset:
    """The record indices of ``PackedPhotos.examples``, int64 scalars."""
    if seed is None:
        return tf.data.Dataset.from_tensor_slices(indices[first:])

    def permuted(epoch):
        return np.random.default_rng([seed, int(epoch)]).permutation(indices)

    def epoch_of(epoch):
        order = tf.numpy_function(permuted, [epoch], tf.int64, stateful=False)
        return tf.data.Dataset.from_tensor_slices(tf.ensure_shape(order, indices.shape))

    epoch, passed = divmod(first, len(indices))
    return tf.data.Dataset.counter(epoch).flat_map(epoch_of).skip(passed)


def alternated(one: Callable[[int], tf.data.Dataset], other: Callable[[int], tf.data.Dataset],
               first: int) -> tf.data.Dataset:
    """Examples of two endless series in turn, from example ``first`` on; even ones are of the first series.

    Args:
        one, other: the series from the example of the given number on.
        first: number of the first example.
    """
    turns = tf.data.Dataset.counter(first).map(lambda number: number % 2)
    return tf.data.Dataset.choose_from_datasets([one((first + 1) // 2), other(first // 2)], turns)


def batches(examples: tf.data.Dataset, batch_size: int) -> tf.data.Dataset:
    """Batches (rgba in network range, rows) of ``PackedPhotos.examples``; a last short one is kept."""
    # Converted after batching: one call for many images is several times cheaper.
    return (examples.batch(batch_size)
            .map(lambda rgba8, *rows: (to_network_range(rgba8), *rows), num_parallel_calls=2).prefetch(2))


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
    for i, name in enumerate(names):
        path = os.path.join(folder, f"{name}.npz")
        if not folder or not os.path.exists(path):
            continue
        albedo = read_npz(path, ["albedo"])["albedo"]
        if albedo.shape != (vertex_count, 3):
            raise UserError(f"{path} holds the truth of another model ({len(albedo)} vertices, not {vertex_count}): "
                            "run create_bin.py with this config")
        rows[i] = len(table)
        table.append((albedo / 127.5 - 1.0).astype(np.float16))
    return (np.stack(table) if table else None), rows


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
    targets = np.stack([landmark_targets(*pair) for pair in zip(records.points, records.landmarks)])
    if records.truth_folder and not os.path.isdir(records.truth_folder):
        raise UserError(f"{path} holds made portraits, and the folder of their truth, {records.truth_folder}, is not "
                        "there: put it back, or pack again with create_bin.py")
    truth, truth_row = albedo_truth(records.truth_folder, records.names, vertex_count)
    # A made portrait's exact landmarks are for measuring; no photo comes with such.
    targets[truth_row >= 0] = np.nan
    return PackedPhotos(path, records.names, records.splits, targets, truth, truth_row, records.truth_folder,
                        records.dense)
