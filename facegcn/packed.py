"""The packed photos of a config: images, names, splits and landmark targets, ready for training."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from facegcn import binfile
from facegcn.config import Config, UserError
from facegcn.fitting import landmark_targets


@dataclass
class PackedPhotos:
    """One packed file and what belongs to its records.

    Attributes:
        path: the ``.bin`` file.
        names: of the records.
        splits: record indices by name: ``train``, ``val``, ``test``.
        targets: (M, 73, 2) float32 landmark targets in pixels, NaN where unknown.
    """

    path: str
    names: list[str]
    splits: dict[str, np.ndarray]
    targets: np.ndarray

    def photos(self, indices) -> tf.Tensor:
        """(len(indices), H, W, 4) records in network range, see ``to_network_range``."""
        return to_network_range(binfile.read_records(self.path, indices))

    def examples(self, indices, arrays, buffer_size: int = 0, seed: int = 0) -> tf.data.Dataset:
        """Unbatched (rgba in network range, one row of each array) of some records.

        Args:
            indices: records to take.
            arrays: arrays whose row i belongs to record i.
            buffer_size: 0 = once, in order; otherwise endless, shuffled with a buffer of this size.
            seed: of the shuffling.
        """
        indices = np.asarray(indices)
        rows = tf.data.Dataset.from_tensor_slices(tuple(np.asarray(a)[indices] for a in arrays))
        data = tf.data.Dataset.zip(binfile.dataset(self.path, indices), rows)
        if buffer_size:
            data = data.shuffle(buffer_size, seed=seed).repeat()
        return data.map(lambda rgba8, row: (to_network_range(rgba8), *row), num_parallel_calls=2)


def to_network_range(rgba8) -> tf.Tensor:
    """uint8 RGBA (..., 4) -> float32, RGB in [-1, 1], alpha in [0, 1]."""
    rgba = tf.cast(rgba8, tf.float32)
    return tf.concat([rgba[..., :3] / 127.5 - 1.0, rgba[..., 3:] / 255.0], axis=-1)


def read_packed(config: Config) -> PackedPhotos:
    """The packed photos of a config.

    Raises:
        UserError: the packed file is absent, broken or of another image size; says the cure.
    """
    path = config.path(config.bin_file)
    if not os.path.exists(path):
        raise UserError(f"there are no packed photos at {path}: run create_bin.py with the same config first")
    try:
        header = binfile.read_header(path)
        names, splits = binfile.read_names(path), binfile.read_split(path)
        points, landmarks = binfile.read_landmarks(path)
    except binfile.BinFileError as error:
        raise UserError(str(error)) from None
    if header.shape != (config.img_size, config.img_size, 4):
        raise UserError(f"{path} holds images of {header.height} x {header.width} x {header.channels}, the "
                        f"config asks for img_size {config.img_size}: pack again with create_bin.py")
    if not len(splits["train"]):
        raise UserError(f"no image of {path} is left for training ({len(names)} packed): pack more photos")
    return PackedPhotos(path, names, splits, np.stack(
        [landmark_targets(*pair) for pair in zip(points, landmarks)]))
