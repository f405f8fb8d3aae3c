"""Gather and scatter-add of rows, each the other's gradient.

TensorFlow's own gradient of a gather is a scatter in one thread that takes longer than all the
rest of a training step; here a compiled Numba loop does it on the CPU, and
``tf.math.unsorted_segment_sum`` on a GPU.

Letters: B images, N rows, C channels; an index of shape (M, K) is shared by the images.
"""

from __future__ import annotations

import functools
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import tensorflow as tf

from facegcn.backends import kernels

_TENSORFLOW_ALIGNMENT = 64  # bytes

BACKENDS = ("auto", "numba", "tensorflow")


def resolve_backend(backend: str = "auto") -> str:
    """The implementation to use: ``numba`` where TensorFlow computes on the CPU, ``tensorflow`` on a GPU.

    Args:
        backend: ``auto``, or one of the two by name.

    Raises:
        ValueError: an unknown name.
    """
    if backend not in BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(BACKENDS)}, got {backend!r}")
    if backend != "auto":
        return backend
    return "tensorflow" if tf.config.get_visible_devices("GPU") else "numba"


def map_images(function, count: int) -> None:
    """Calls ``function(image)`` for each image, in this thread and in others that are free; the function must release
    the GIL. It may call this one again."""
    images = iter(range(count))  # each thread takes the next one

    def work():
        for image in images:
            function(image)

    helpers = [_pool().submit(work) for _ in range(min(count, cores()) - 1)]
    try:
        work()
    finally:
        for helper in helpers:
            if not helper.cancel():  # it has begun
                helper.result()


@functools.cache
def cores() -> int:
    """How many cores we may use."""
    return (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()) or 1


@functools.cache
def _pool() -> ThreadPoolExecutor:
    """One worker for each core we may use.

    Python threads around compiled loops that release the GIL, instead of Numba's own parallel
    loops: those stop the process when two threads of TensorFlow enter them at once.
    """
    return ThreadPoolExecutor(max_workers=cores(), thread_name_prefix="facegcn-images")


def aligned_empty(shape: tuple, dtype) -> np.ndarray:
    """``np.empty`` at an address from which TensorFlow takes an array over without copying it."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    memory = np.empty(size + _TENSORFLOW_ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % _TENSORFLOW_ALIGNMENT
    return memory[start:start + size].view(dtype).reshape(shape)


def gather_rows(values, index, backend: str = "auto") -> tf.Tensor:
    """Rows of ``values``, with a fast gradient.

    Args:
        values: (B, N, C) float32 or float64.
        index: (M, K) int32 row numbers, 0-based.
        backend: see ``resolve_backend``.

    Returns:
        (B, M, K, C).
    """

    @tf.custom_gradient
    def gather(rows):
        def gradient(upstream):
            flat = tf.reshape(upstream, (tf.shape(rows)[0], -1, tf.shape(rows)[2]))
            flat.set_shape((rows.shape[0], None, rows.shape[2]))
            return scatter_rows(flat, tf.reshape(index, (-1, 1)), tf.shape(rows)[1], backend)

        return tf.gather(rows, index, axis=1), gradient

    gathered = gather(values)
    gathered.set_shape(values.shape[:1] + index.shape + values.shape[2:])
    return gathered


def scatter_rows(values, index, row_count, backend: str = "auto") -> tf.Tensor:
    """Adds each row of ``values`` to all the rows that its index names.

    Args:
        values: (B, M, C) float32 or float64.
        index: (M, K) int32 row numbers of the result, 0-based.
        row_count: number of rows N of the result.
        backend: see ``resolve_backend``.

    Returns:
        (B, N, C); rows that no index names are 0.
    """
    use_numba = resolve_backend(backend) == "numba"

    @tf.custom_gradient
    def scatter(rows):
        def gradient(upstream):
            return tf.reduce_sum(gather_rows(upstream, index, backend), axis=2)

        if use_numba:
            result = tf.numpy_function(_scatter_numpy, [rows, index, row_count], rows.dtype, stateful=False)
        else:
            result = _scatter_tensorflow(rows, index, row_count)
        result.set_shape((rows.shape[0], tf.get_static_value(row_count), rows.shape[2]))
        return result, gradient

    return scatter(values)


def _scatter_tensorflow(values, index, row_count) -> tf.Tensor:
    """``scatter_rows`` in TensorFlow operations."""
    shape = tf.shape(values)
    by_row = tf.reshape(tf.transpose(values, (1, 0, 2)), (shape[1], shape[0] * shape[2]))
    repeated = tf.repeat(by_row, tf.shape(index)[1], axis=0)
    sums = tf.math.unsorted_segment_sum(repeated, tf.reshape(index, (-1,)), row_count)
    return tf.transpose(tf.reshape(sums, (row_count, shape[0], shape[2])), (1, 0, 2))


def _scatter_numpy(values, index, row_count) -> np.ndarray:
    """``scatter_rows`` through the compiled loop."""
    check_index("index", index, row_count)
    result = np.zeros((values.shape[0], row_count, values.shape[2]), values.dtype)
    map_images(lambda image: kernels.scatter_rows(values[image], index, result[image]), values.shape[0])
    return result


def check_index(name: str, index: np.ndarray, row_count: int) -> None:
    """Raises ValueError if an index is outside 0 .. row_count - 1 (compiled loops do not look)."""
    if index.size and not 0 <= index.min() <= index.max() < row_count:
        raise ValueError(f"{name} has values in {index.min()}..{index.max()}, "
                         f"but there are only rows 0..{row_count - 1}")
