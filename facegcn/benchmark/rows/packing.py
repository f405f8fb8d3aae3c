"""The rows of packed files."""

from __future__ import annotations

import os
import tempfile

import numpy as np
import tensorflow as tf

from facegcn.benchmark.references import naive_dataset, naive_write
from facegcn.benchmark.rows.timing import Parts, Row, Sizes, compare
from facegcn.photos import packed_file
from facegcn.photos.packed_photos import to_network_range


def packing_rows(sizes: Sizes, parts: Parts) -> list[Row]:
    """Writing images that are in memory, and reading them as batches in the networks' range."""
    shape, count = (sizes.pixels, sizes.pixels, 4), sizes.images
    images = np.random.default_rng(0).integers(0, 256, (count, *shape), np.uint8)
    names = [f"{i:06d}" for i in range(count)]
    with tempfile.TemporaryDirectory() as folder:
        ours, naive = os.path.join(folder, "ours.bin"), os.path.join(folder, "naive.bin")
        write = compare(lambda: packed_file.write_bin(ours, names, images), lambda: naive_write(naive, images),
                        sizes.repetitions)
        fast = packed_file.dataset(ours, batch_size=sizes.batch).map(to_network_range, tf.data.AUTOTUNE)
        slow = naive_dataset(naive, count, shape, sizes.batch)
        read = compare(lambda: sum(1 for _ in fast), lambda: sum(1 for _ in slow), sizes.repetitions)
    return [Row(f"packing and reading, {count} images, {sizes.pixels} px", *np.add(write, read), ">= 10x"),
            Row("  packing", *write, ""), Row(f"  reading in batches of {sizes.batch}", *read, "")]
