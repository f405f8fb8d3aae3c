"""How fast the costly parts are, each beside a plain reference, in one run.

    python -m facegcn.benchmark [--rows rasterize,laplacian,step,hierarchy,packing] [--vertices 35721]

The references are in ``facegcn.benchmark.references``. Ours and theirs are timed in turn, so that other
work on the machine disturbs both alike.

Letters: B images, N vertices, F triangles, E features of a photo.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import tempfile
import time
from dataclasses import dataclass
from typing import NamedTuple

import keras
import numpy as np
import scipy.sparse as sp
import tensorflow as tf
from keras import layers, ops

from facegcn import camera
from facegcn.benchmark.references import (
    NaiveChebConv,
    NaiveMeshPool,
    coo_tensor,
    naive_dataset,
    naive_decimate,
    naive_draw,
    naive_rasterize,
    naive_write,
)
from facegcn.geometry import rotate
from facegcn.graph import ChebConv, MeshPool, SparseProduct
from facegcn.mesh.closest_point import closest_points
from facegcn.mesh.decimation import decimate
from facegcn.photos import packed_file
from facegcn.photos.packed_photos import to_network_range
from facegcn.rasterizer import interpolate, rasterize

LEVELS, ORDER = 4, 6  # coarser meshes, Chebyshev terms [paper]
EMBEDDING = 3840  # features of a photo [paper]
COLOUR_SETS = 4  # drawn in a training step [released code]
SMALLEST_MESH = 576  # vertices; below, the coarsest of five meshes has no triangle


@dataclass(frozen=True)
class Sizes:
    """How much work the rows do: vertices, picture width, images a batch, columns of the product,
    images packed, vertices of the mesh the naive decimation gets, timings whose median counts."""

    vertices: int = 35_721
    pixels: int = 224
    batch: int = 4
    columns: int = 64
    images: int = 256
    small_mesh: int = SMALLEST_MESH
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


class Levels(NamedTuple):
    """A mesh hierarchy's matrices, as mesh_sampling.py describes them."""

    laplacians: list
    downsamples: list
    upsamples: list


def build_levels(vertices, triangles) -> Levels:
    """The mesh hierarchy of the paper: four levels, each with a quarter of the vertices."""
    levels = Levels([_laplacian(triangles, len(vertices))], [], [])
    for _ in range(LEVELS):
        fine = vertices
        kept, triangles = decimate(fine, triangles, -(-len(fine) // 4))
        vertices = fine[kept]
        ids, weights = closest_points(fine, vertices, triangles)
        places = np.repeat(np.arange(len(fine)), 3), triangles[ids].ravel()
        levels.laplacians.append(_laplacian(triangles, len(kept)))
        levels.downsamples.append(sp.identity(len(fine), format="csr")[kept])
        levels.upsamples.append(sp.csr_matrix((weights.ravel(), places), shape=(len(fine), len(kept))))
    return levels


def _laplacian(triangles, count: int) -> sp.csr_matrix:
    """I - D^-1/2 A D^-1/2 of the graph whose edges weigh as much as they have triangles."""
    ends = np.concatenate([triangles.ravel(), np.roll(triangles, -1, axis=1).ravel()])
    starts = np.roll(ends, len(ends) // 2)
    weights = sp.csr_matrix((np.ones(len(ends), np.float32), (starts, ends)), shape=(count, count))
    scale = sp.diags(1.0 / np.sqrt(np.maximum(np.asarray(weights.sum(axis=0)).ravel(), 1.0)))
    return (sp.identity(count) - scale @ weights @ scale).tocsr().astype(np.float32)


def hierarchy_rows(sizes: Sizes) -> list[Row]:
    """The whole hierarchy; and one decimation to a quarter of a small mesh, beside the naive one."""
    small, large = bumpy_mesh(sizes.small_mesh), bumpy_mesh(sizes.vertices)
    target = -(-len(small[0]) // 4)
    ours, naive = compare(lambda: decimate(*small, target), lambda: naive_decimate(*small, target),
                          sizes.repetitions)
    whole, _ = compare(lambda: build_levels(*large), lambda: None, min(sizes.repetitions, 3))
    return [Row(f"mesh hierarchy, {len(large[0]):,} vertices, {LEVELS} levels", whole, None, "<= 5 s"),
            Row(f"  decimation, {len(small[0]):,} vertices to {target:,}", ours, naive, "")]


# ---------------------------------------------------------------- drawing
def posed(vertices, batch: int) -> tf.Tensor:
    """Clip coordinates (B, N, 4) of the mesh turned a little further in each image."""
    angles = np.zeros((batch, 3), np.float32)
    angles[:, 1] = np.linspace(-0.5, 0.5, batch)
    world = rotate(tf.constant(np.repeat(vertices[None], batch, axis=0), tf.float32), tf.constant(angles))
    return camera.clip_coordinates(world, 1, 1)


def draw(clip, triangles, colour_sets, pixels: int) -> list:
    """Pictures (B, H, W, 3) of each colour set (B, N, 3), from one rasterization."""
    drawn = rasterize(clip, triangles, pixels, pixels)
    return [interpolate(colours, triangles, drawn) for colours in colour_sets]


def rasterize_rows(sizes: Sizes) -> list[Row]:
    """One rasterization, and the drawing of all colour sets of a training step."""
    vertices, triangles = bumpy_mesh(sizes.vertices)
    clip, triangles = posed(vertices, sizes.batch), tf.constant(triangles)
    sets = [tf.random.stateless_uniform((sizes.batch, len(vertices), 3), (0, i)) for i in range(COLOUR_SETS)]
    ours = _compiled(lambda: rasterize(clip, triangles, sizes.pixels, sizes.pixels))
    naive = _compiled(lambda: naive_rasterize(clip, triangles, sizes.pixels, sizes.pixels))
    draw_sets = _compiled(lambda: draw(clip, triangles, sets, sizes.pixels))
    # Compiled together, TensorFlow would find that the rasterizations are the same.
    naive_draw_one = _compiled(lambda colours: naive_draw(clip, triangles, [colours], sizes.pixels))
    work = f"{sizes.batch} x {sizes.pixels} px, {len(triangles):,} triangles"
    return [Row(f"rasterize {work}", *compare(ours, naive, sizes.repetitions), "3x a C++ kernel"),
            Row(f"  {COLOUR_SETS} colour sets, drawn",
                *compare(draw_sets, lambda: [naive_draw_one(colours) for colours in sets],
                         sizes.repetitions), "")]


# ---------------------------------------------------------------- graph layers
def laplacian_rows(sizes: Sizes) -> list[Row]:
    """One product with the Laplacian, and a graph convolution with its gradient, compiled."""
    vertices, triangles = bumpy_mesh(sizes.vertices)
    matrix, width = _laplacian(triangles, len(vertices)), sizes.columns // sizes.batch
    x = tf.random.stateless_normal((len(vertices), sizes.columns), (0, 1))
    ours, naive = SparseProduct(matrix, symmetric=True), coo_tensor(matrix)
    product = compare(_compiled(lambda: ours(x)),
                      _compiled(lambda: tf.sparse.sparse_dense_matmul(naive, x)), sizes.repetitions)
    fast, slow = ChebConv(3, matrix, ORDER, vertex_major=True), NaiveChebConv(3, matrix)
    by_vertex = tf.reshape(x, (len(vertices), sizes.batch, width))
    both = compare(_gradient(fast, by_vertex), _gradient(slow, tf.transpose(by_vertex, (1, 0, 2))),
                   sizes.repetitions)
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
def texture_network(levels: Levels, plain: bool, embedding: int = EMBEDDING) -> keras.Model:
    """The paper's texture network (``resnet``), of naive layers or, vertex-major, of ours:
    [embedding (B, E), known (B, N, 7)] -> (B, N, 3)."""
    options = {} if plain else {"vertex_major": True}
    conv, pool = (NaiveChebConv, NaiveMeshPool) if plain else (ChebConv, MeshPool)

    def turned(x):
        return x if plain else ops.transpose(x, (1, 0, 2))

    def block(x, filters, level):
        matrix, shortcut = levels.laplacians[level], x
        if x.shape[-1] != filters:
            shortcut = conv(filters, matrix, 1, use_bias=False, **options)(x)
        y = conv(filters, matrix, ORDER, "elu", **options)(x)
        return ops.elu(conv(filters, matrix, ORDER, **options)(y) + shortcut)

    inputs = keras.Input((embedding,)), keras.Input((levels.laplacians[0].shape[0], 7))
    coarsest = levels.laplacians[-1].shape[0]
    decoded = turned(ops.reshape(layers.Dense(coarsest * 32, "relu")(inputs[0]), (-1, coarsest, 32)))
    for level, filters in zip(range(LEVELS - 1, -1, -1), (16, 16, 16, 3)):
        decoded = block(pool(levels.upsamples[level], **options)(decoded), filters, level)
    refined = pool(levels.downsamples[0], **options)(block(turned(inputs[1]), 16, 0))
    refined = block(block(refined, 32, 1), 32, 1)
    refined = block(block(pool(levels.upsamples[0], **options)(refined), 16, 0), 3, 0)
    features = ops.concatenate([decoded, refined], axis=-1)
    head = conv(3, levels.laplacians[0], ORDER, "tanh", use_bias=False, **options)
    return keras.Model(inputs, turned(head(features)))


def training_step(network, draw_sets, clip, triangles, pixels: int):
    """A function that trains the network on one batch and returns the loss; to be compiled or not."""
    batch, count = clip.shape[:2]
    known = tf.random.stateless_uniform((batch, count, 7), (0, 2), -1.0, 1.0)
    embedding = tf.random.stateless_normal((batch, network.inputs[0].shape[1]), (0, 3))
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


def step_rows(sizes: Sizes) -> list[Row]:
    """A training step of the texture network: ours compiled, the naive one run op by op.

    The frozen networks, whose results we cache, are left out of both. Compiled, the naive step
    would take a fraction of its time: TensorFlow then merges its equal rasterizations too.
    """
    vertices, triangles = bumpy_mesh(sizes.vertices)
    levels = build_levels(vertices, triangles)
    scene = posed(vertices, sizes.batch), tf.constant(triangles), sizes.pixels
    ours = _compiled(training_step(texture_network(levels, plain=False), draw, *scene))
    naive = training_step(texture_network(levels, plain=True), naive_draw, *scene)
    return [Row(f"training step, resnet, batch {sizes.batch}, {len(vertices):,} vertices",
                *compare(ours, naive, min(sizes.repetitions, 3)), ">= 5x")]


# ---------------------------------------------------------------- packed images
def packing_rows(sizes: Sizes) -> list[Row]:
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


# ---------------------------------------------------------------- the table
ROWS = {"rasterize": rasterize_rows, "laplacian": laplacian_rows, "step": step_rows,
        "hierarchy": hierarchy_rows, "packing": packing_rows}


def line(row: Row) -> str:
    """One line of the table."""
    naive, ratio = ("", "") if row.naive is None else (_duration(row.naive), f"{row.naive / row.ours:.1f}x")
    return f"{row.work:52s}{_duration(row.ours):>10s}{naive:>10s}{ratio:>8s}   {row.bar}".rstrip()


def _duration(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1e3:.1f} ms"


def peak_memory() -> int:
    """The largest resident memory of this process so far, bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def main(arguments=None) -> int:
    """Prints the table; returns the exit code."""
    parser = argparse.ArgumentParser(description="Time the costly parts beside plain references.")
    parser.add_argument("--rows", default=",".join(ROWS), help=f"comma-separated, of {', '.join(ROWS)}")
    parser.add_argument("--vertices", type=int, default=Sizes.vertices, help="vertices of the mesh")
    options = parser.parse_args(arguments)
    names = options.rows.split(",")
    for name in names:
        if name not in ROWS:
            parser.error(f"--rows: there is no row '{name}'; choose from {', '.join(ROWS)}")
    if options.vertices < SMALLEST_MESH:
        parser.error(f"--vertices {options.vertices}: at least {SMALLEST_MESH} are needed")
    print(f"TensorFlow {tf.__version__}, {os.cpu_count()} cores; medians, ours and naive timed in turn")
    print(f"{'work':52s}{'ours':>10s}{'naive':>10s}{'ratio':>8s}   bar")
    for name in names:
        for row in ROWS[name](Sizes(vertices=options.vertices)):
            print(line(row), flush=True)
    print(f"peak memory of this process, references included: {peak_memory() / 1e9:.2f} GB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
