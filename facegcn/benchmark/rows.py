"""The rows of the benchmark: what is timed, and beside what.

Ours and theirs are timed in turn, so that other work on the machine disturbs both alike.

Letters: B images, N vertices, F triangles, E features of a photo, C refiner channels.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from facegcn import camera
from facegcn.benchmark.references import (
    NaiveChebConv,
    coo_tensor,
    naive_dataset,
    naive_decimate,
    naive_draw,
    naive_network,
    naive_rasterize,
    naive_write,
)
from facegcn.geometry import rotate
from facegcn.graph import ChebConv, SparseProduct
from facegcn.mesh.decimation import decimate
from facegcn.photos import packed_file
from facegcn.photos.packed_photos import to_network_range
from facegcn.rasterizer import interpolate, rasterize

EMBEDDING = 3840  # features of a photo [paper]
COLOR_SETS = 4  # drawn in a training step [released code]
STEP_REPETITIONS = 3  # of what takes seconds
#: The texture networks whose training step is timed: the shipped worlds' and the paper's.
NETWORKS = {"resnet, residual head, de-lit": dict(kind="resnet", residual=True, refiner_channels=17),
            "resnet, the paper's head": dict(kind="resnet", residual=False, refiner_channels=7)}


class Parts(NamedTuple):
    """The root modules' functions that are timed; ``__main__`` gives them, as no library imports a root module.

    Attributes:
        hierarchy: ``mesh_sampling.generate_transform_matrices``.
        adjacency: ``mesh_sampling.adjacency``.
        graph_laplacian: ``mesh_sampling.graph_laplacian``.
        network: ``model.build_texture_network``.
    """

    hierarchy: Callable
    adjacency: Callable
    graph_laplacian: Callable
    network: Callable


@dataclass(frozen=True)
class Sizes:
    """How much work the rows do: vertices, picture width, images a batch, columns of the product,
    images packed, vertices of the mesh the naive decimation gets, features of a photo, timings
    whose median counts."""

    vertices: int = 35_721
    pixels: int = 224
    batch: int = 4
    columns: int = 64
    images: int = 256
    small_mesh: int = 576
    embedding: int = EMBEDDING
    repetitions: int = 5


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


def _compiled(function):
    return tf.function(function, autograph=False)


# ---------------------------------------------------------------- the mesh
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


def hierarchy_rows(sizes: Sizes, parts: Parts) -> list[Row]:
    """The whole hierarchy; and one decimation to a quarter of a small mesh, beside the naive one."""
    small, large = bumpy_mesh(sizes.small_mesh), bumpy_mesh(sizes.vertices)
    target = -(-len(small[0]) // 4)
    ours, naive = compare(lambda: decimate(*small, target), lambda: naive_decimate(*small, target),
                          sizes.repetitions)
    levels = len(parts.hierarchy(*large).downsamples)
    whole, _ = compare(lambda: parts.hierarchy(*large), lambda: None, min(sizes.repetitions, STEP_REPETITIONS))
    return [Row(f"mesh hierarchy, {len(large[0]):,} vertices, {levels} levels", whole, None, "<= 5 s"),
            Row(f"  decimation, {len(small[0]):,} vertices to {target:,}", ours, naive, "")]


# ---------------------------------------------------------------- drawing
def posed(vertices, batch: int) -> tf.Tensor:
    """Clip coordinates (B, N, 4) of the mesh turned a little further in each image."""
    angles = np.zeros((batch, 3), np.float32)
    angles[:, 1] = np.linspace(-0.5, 0.5, batch)
    world = rotate(tf.constant(np.repeat(vertices[None], batch, axis=0), tf.float32), tf.constant(angles))
    return camera.clip_coordinates(world, 1, 1)


def draw(clip, triangles, color_sets, pixels: int) -> list:
    """Pictures (B, H, W, 3) of each colour set (B, N, 3), from one rasterization."""
    drawn = rasterize(clip, triangles, pixels, pixels)
    return [interpolate(colors, triangles, drawn) for colors in color_sets]


def rasterize_rows(sizes: Sizes, parts: Parts) -> list[Row]:
    """One rasterization, and the drawing of all colour sets of a training step."""
    vertices, triangles = bumpy_mesh(sizes.vertices)
    clip, triangles = posed(vertices, sizes.batch), tf.constant(triangles)
    sets = [tf.random.stateless_uniform((sizes.batch, len(vertices), 3), (0, i)) for i in range(COLOR_SETS)]
    ours = _compiled(lambda: rasterize(clip, triangles, sizes.pixels, sizes.pixels))
    naive = _compiled(lambda: naive_rasterize(clip, triangles, sizes.pixels, sizes.pixels))
    draw_sets = _compiled(lambda: draw(clip, triangles, sets, sizes.pixels))
    # Compiled together, TensorFlow would find that the rasterizations are the same.
    naive_draw_one = _compiled(lambda colors: naive_draw(clip, triangles, [colors], sizes.pixels))
    work = f"{sizes.batch} x {sizes.pixels} px, {len(triangles):,} triangles"
    return [Row(f"rasterize {work}", *compare(ours, naive, sizes.repetitions), "3x a C++ kernel"),
            Row(f"  {COLOR_SETS} colour sets, drawn",
                *compare(draw_sets, lambda: [naive_draw_one(colors) for colors in sets],
                         sizes.repetitions), "")]


# ---------------------------------------------------------------- graph layers
def laplacian_rows(sizes: Sizes, parts: Parts) -> list[Row]:
    """One product with the Laplacian, and a graph convolution with its gradient, compiled."""
    vertices, triangles = bumpy_mesh(sizes.vertices)
    matrix = parts.graph_laplacian(parts.adjacency(triangles, len(vertices)))
    width = sizes.columns // sizes.batch
    x = tf.random.stateless_normal((len(vertices), sizes.columns), (0, 1))
    ours, naive = SparseProduct(matrix, symmetric=True), coo_tensor(matrix)
    product = compare(_compiled(lambda: ours(x)),
                      _compiled(lambda: tf.sparse.sparse_dense_matmul(naive, x)), sizes.repetitions)
    fast, slow = (layer(3, matrix, vertex_major=True) for layer in (ChebConv, NaiveChebConv))
    by_vertex = tf.reshape(x, (len(vertices), sizes.batch, width))
    both = compare(_gradient(fast, by_vertex), _gradient(slow, by_vertex), sizes.repetitions)
    return [Row(f"L x, {len(vertices):,} vertices, {sizes.columns} columns", *product, ">= 8x"),
            Row(f"  graph convolution {width} to 3, both directions", *both, "")]


def _gradient(layer, x):
    layer.build(x.shape)

    @tf.function
    def run():
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(tf.square(layer(x)))
        return tape.gradient(loss, [x, layer.kernel])
    return run


# ---------------------------------------------------------------- training step
def training_step(network, draw_sets, clip, triangles, pixels: int):
    """A function that trains the network on one batch and returns the loss; to be compiled or not."""
    batch, count = clip.shape[:2]
    embedding = tf.random.stateless_normal((batch, network.inputs[0].shape[1]), (0, 3))
    known = tf.random.stateless_uniform((batch, count, network.inputs[1].shape[2]), (0, 2), -1.0, 1.0)
    photo = tf.random.stateless_uniform((batch, pixels, pixels, 3), (0, 4), -1.0, 1.0)
    optimizer = keras.optimizers.Adam(1e-4, clipnorm=5.0)
    optimizer.build(network.trainable_variables)

    def step():
        with tf.GradientTape() as tape:
            fine, coarse = network([embedding, known], training=True), known[..., :3]
            pictures = draw_sets(clip, triangles, [coarse, coarse * 0.8, fine, fine * 0.8], pixels)
            loss = (tf.reduce_mean(tf.abs(fine - coarse))
                    + tf.add_n([tf.reduce_mean(tf.abs(picture - photo)) for picture in pictures]))
        gradients = tape.gradient(loss, network.trainable_variables)
        optimizer.apply_gradients(zip(gradients, network.trainable_variables))
        return loss
    return step


def step_rows(sizes: Sizes, parts: Parts) -> list[Row]:
    """A training step of each texture network: ours compiled, the naive one run op by op.

    The frozen networks, whose results we cache, are left out of both. Compiled, the naive step
    would take a fraction of its time: TensorFlow then merges its equal rasterizations too.
    """
    vertices, triangles = bumpy_mesh(sizes.vertices)
    hierarchy = parts.hierarchy(vertices, triangles)
    scene = posed(vertices, sizes.batch), tf.constant(triangles), sizes.pixels
    rows = []
    for name, options in NETWORKS.items():
        network = parts.network(hierarchy=hierarchy, embedding_dim=sizes.embedding, **options)
        ours, naive = training_step(network, draw, *scene), training_step(naive_network(network), naive_draw, *scene)
        times = compare(_compiled(ours), naive, min(sizes.repetitions, STEP_REPETITIONS))
        rows.append(Row(f"training step, {name}", *times, ">= 5x"))
    return rows


# ---------------------------------------------------------------- packed images
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


#: What ``--rows`` names.
ROWS = {"rasterize": rasterize_rows, "laplacian": laplacian_rows, "step": step_rows,
        "hierarchy": hierarchy_rows, "packing": packing_rows}
