"""The rows of how a training step's time grows with the mesh, the picture, the batch and the networks' widths."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import tensorflow as tf

from facegcn.benchmark.rows.drawing import draw, posed
from facegcn.benchmark.rows.steps import training_step
from facegcn.benchmark.rows.timing import STEP_REPETITIONS, Parts, Row, Sizes, bumpy_mesh, compare, compiled

#: Of a triangle mesh's Laplacian, in each row: the vertex and six neighbours.
_NEIGHBOURS = 7
_FORWARD_AND_BACKWARD = 3  # times the forward pass: as much again for the inputs' and for the weights' gradients
#: What each scene changes of the middle one, whose sizes are half the other rows' vertices, their pictures and batch.
SCENES = {"vertices": (0.25, 0.5, 1.0), "pixels": (0.5, 2.0), "batch": (1, 8), "wide": (True,)}


def step_growth_rows(sizes: Sizes, parts: Parts) -> list[Row]:
    """Training steps (``steps.training_step``) of one thing changed at a time, with the operations of each counted."""
    middle = replace(sizes, vertices=sizes.vertices // 2)
    scenes = ([(replace(sizes, vertices=round(sizes.vertices * share)), False) for share in SCENES["vertices"]]
              + [(replace(middle, pixels=round(sizes.pixels * share)), False) for share in SCENES["pixels"]]
              + [(replace(middle, batch=batch), False) for batch in SCENES["batch"]]
              + [(middle, wide) for wide in SCENES["wide"]])
    return [_measure(scene, wide, parts) for scene, wide in scenes]


def step_operations(network, batch: int) -> tuple[float, int]:
    """Floating-point operations of a training step of the networks, and their number of weights.

    A product of matrices counts two for each multiplication; sparse products count for a triangle mesh. What is left
    out (colours, light, rasterizer, Adam) is a few operations for each value that is read and written, so that its
    time is that of memory.

    Args:
        network: of ``model.build_texture_network``.
        batch: photos a step.
    """
    found = 0.0
    for layer in network.layers:
        for weight in layer.weights:
            if len(weight.shape) != 2:
                continue
            # Dense layers have no vertices; graph convolutions (N, B, F) or (B, N, F), with N alone known.
            rows = next((size for size in layer.output.shape[:2] if size), 1) if len(layer.output.shape) == 3 else 1
            found += 2.0 * batch * rows * np.prod(weight.shape)
            if rows > 1:
                found += 2.0 * batch * rows * _NEIGHBOURS * weight.shape[0]
    return _FORWARD_AND_BACKWARD * found, sum(int(np.prod(weight.shape)) for weight in network.trainable_weights)


def _measure(sizes: Sizes, wide: bool, parts: Parts) -> Row:
    vertices, triangles = bumpy_mesh(sizes.vertices)
    network = parts.network(kind="resnet", residual=True, refiner_channels=17, wide=wide,
                            hierarchy=parts.hierarchy(vertices, triangles), embedding_dim=sizes.embedding)
    step = training_step(network, draw, posed(vertices, sizes.batch), tf.constant(triangles), sizes.pixels)
    operations, weights = step_operations(network, sizes.batch)
    time = compare(compiled(step), lambda: None, min(sizes.repetitions, STEP_REPETITIONS))[0]
    return Row(f"step{', wide' * wide}, {sizes.batch} x {sizes.pixels} px, {len(vertices):,} vertices", time, None,
               f"{operations / 1e9:.1f} GFLOP, {weights / 1e6:.1f} million weights")
