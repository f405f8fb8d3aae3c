"""How rows are timed, of what sizes and on what mesh.

Ours and theirs are timed in turn, so that other work on the machine disturbs both alike.

Letters: N vertices, F triangles.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import tensorflow as tf

EMBEDDING = 3840  # features of a photo [paper]
STEP_REPETITIONS = 3  # of what takes seconds


class Parts(NamedTuple):
    """The root modules' functions that are timed; ``__main__`` gives them, as no library imports a root module.

    Attributes:
        hierarchy: ``mesh_sampling.generate_transform_matrices``.
        adjacency: ``mesh_sampling.adjacency``.
        graph_laplacian: ``mesh_sampling.graph_laplacian``.
        network: ``model.build_texture_network``.
        critic: ``model.build_critic``.
    """

    hierarchy: Callable
    adjacency: Callable
    graph_laplacian: Callable
    network: Callable
    critic: Callable


@dataclass(frozen=True)
class Sizes:
    """How much work the rows do: vertices, picture width, images a batch, columns of the product,
    images packed, vertices of the mesh the naive decimation gets, features of a photo, timings
    whose median counts; config of test mode, and the folder of its photos, "" for made ones."""

    vertices: int = 35_721
    pixels: int = 224
    batch: int = 4
    columns: int = 64
    images: int = 256
    small_mesh: int = 576
    embedding: int = EMBEDDING
    repetitions: int = 5
    config: str = ""
    photos: str = ""


class Row(NamedTuple):
    """One line of the table; times in seconds, ``naive`` None where it would take too long."""

    work: str
    ours: float
    naive: float | None
    bar: str


def compare(ours, naive, repetitions: int) -> tuple[float, float]:
    """Median seconds of two functions called in turn, after one call each that is not counted."""
    times = np.zeros((repetitions + 1, 2))
    for row in times:
        for column, function in enumerate((ours, naive)):
            start = time.perf_counter()
            function()
            row[column] = time.perf_counter() - start
    return tuple(np.median(times[1:], axis=0))


def compiled(function):
    """A function of tensors as a graph, traced at its first call."""
    return tf.function(function, autograph=False)


def bumpy_mesh(vertices: int) -> tuple[np.ndarray, np.ndarray]:
    """A face-sized bulge on a square grid: about ``vertices`` points (N, 3) float64 in decimetre, and
    triangles (F, 3) int32; 35,721 vertices have 70,688 triangles."""
    side = round(vertices ** 0.5)
    u, v = np.meshgrid(np.linspace(-1, 1, side), np.linspace(1, -1, side))
    x, y = 0.75 * np.sin(1.35 * u), 0.95 * np.sin(1.3 * v)
    z = 0.75 * np.cos(1.35 * u) * np.cos(v) + 0.01 * np.random.default_rng(0).normal(size=u.shape) / side
    index = np.arange(side * side).reshape(side, side)
    a, b, c, d = (part.ravel() for part in (index[:-1, :-1], index[:-1, 1:], index[1:, :-1], index[1:, 1:]))
    triangles = np.concatenate([np.stack([a, c, b], axis=1), np.stack([b, c, d], axis=1)])
    return np.stack([x, y, z], axis=-1).reshape(-1, 3), triangles.astype(np.int32)
