"""The rows of packed files."""

from __future__ import annotations

import functools
import os
import tempfile

import cv2
import numpy as np
import tensorflow as tf
from PIL import Image

from facegcn.benchmark.references import naive_dataset, naive_write
from facegcn.benchmark.rows.timing import Parts, Row, Sizes, compare, compiled
from facegcn.config import Config
from facegcn.landmarks import write_points
from facegcn.photos import packed_file, packing
from facegcn.photos.packed_photos import PackedPhotos, batches

_POINTS = np.array([[.35, .4], [.65, .4], [.5, .55], [.4, .7], [.6, .7]])  # of a face, share of the picture's width


def packing_rows(sizes: Sizes, parts: Parts) -> list[Row]:
    """Writing images that are in memory, and an epoch of reading them as training does: batches in the networks' range
    in random order; when a program reads them for the first time, their checksums are tried, too."""
    shape, count = (sizes.pixels, sizes.pixels, 4), sizes.images
    images = np.random.default_rng(0).integers(0, 256, (count, *shape), np.uint8)
    names = [f"{i:06d}" for i in range(count)]
    with tempfile.TemporaryDirectory() as folder:
        ours, naive = os.path.join(folder, "ours.bin"), os.path.join(folder, "naive.bin")
        write = compare(lambda: packed_file.write_bin(ours, names, images), lambda: naive_write(naive, images),
                        sizes.repetitions)
        fast = _consumer(epoch(ours, names, sizes.batch))
        slow = _consumer(naive_dataset(naive, count, shape, sizes.batch))
        read = compare(fast, slow, sizes.repetitions)
        # One of them for each repetition, since a reader tries a checksum once.
        fresh = iter([_consumer(epoch(ours, names, sizes.batch)) for _ in range(sizes.repetitions + 1)])
        first = compare(lambda: next(fresh)(), slow, sizes.repetitions)
    return [Row(f"packing and reading, {count} images, {sizes.pixels} px", *np.add(write, read), ""),
            Row("  packing", *write, ""), Row(f"  reading in batches of {sizes.batch}", *read, ">= 10x"),
            Row("  reading for the first time", *first, ""), png_row(sizes)]


def png_row(sizes: Sizes) -> Row:
    """RGBA PNGs with points beside them, decoded, looked at and packed by two workers; in place of the reference, by
    one."""
    rng, count = np.random.default_rng(0), max(2, sizes.images // 8)
    grey = cv2.resize(rng.integers(0, 256, (16, 16, 4), np.uint8), (sizes.pixels, sizes.pixels))
    with tempfile.TemporaryDirectory() as folder:
        paths = [os.path.join(folder, f"{number:03d}.png") for number in range(count)]
        for path in paths:
            rgba = np.clip(grey + rng.normal(0, 4, grey.shape), 1, 255).astype(np.uint8)
            Image.fromarray(rgba).save(path)
            write_points(path[:-4] + ".txt", sizes.pixels * _POINTS)
        load = functools.partial(packing.load_segmented, size=sizes.pixels)

        def pack(workers):
            packing.pack(paths, load, Config(workers=workers), os.path.join(folder, "faces.bin"))
        times = compare(lambda: pack(2), lambda: pack(1), sizes.repetitions)
    return Row(f"  packing {count} PNGs, two workers beside one", *times, "")


def epoch(path: str, names: list[str], batch: int) -> tf.data.Dataset:
    """Batches (B, H, W, 4) of a packed file, nothing read before, as an epoch of training meets them."""
    packed = PackedPhotos(path, names, {}, np.zeros((len(names), 73, 2), np.float32))
    return batches(packed.examples(np.arange(len(names)), (), seed=0), batch).take(-(-len(names) // batch))


def _consumer(dataset: tf.data.Dataset):
    """A compiled function that takes all batches, as a compiled training step does: to hand each over to Python would
    cost more than to read it."""
    return compiled(lambda: dataset.reduce(np.int64(0), lambda count, *batch: count + 1))
