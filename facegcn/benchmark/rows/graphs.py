"""The rows of the graph layers."""

from __future__ import annotations

import tensorflow as tf

from facegcn.benchmark.references import NaiveChebConv, coo_tensor
from facegcn.benchmark.rows.timing import Parts, Row, Sizes, bumpy_mesh, compare, compiled
from facegcn.graph import ChebConv, SparseProduct


def laplacian_rows(sizes: Sizes, parts: Parts) -> list[Row]:
    """One product with the Laplacian, and a graph convolution with its gradient, compiled."""
    vertices, triangles = bumpy_mesh(sizes.vertices)
    matrix = parts.graph_laplacian(parts.adjacency(triangles, len(vertices)))
    width = sizes.columns // sizes.batch
    x = tf.random.stateless_normal((len(vertices), sizes.columns), (0, 1))
    ours, naive = SparseProduct(matrix, symmetric=True), coo_tensor(matrix)
    product = compare(compiled(lambda: ours(x)),
                      compiled(lambda: tf.sparse.sparse_dense_matmul(naive, x)), sizes.repetitions)
    fast, slow = (layer(3, matrix, vertex_major=True) for layer in (ChebConv, NaiveChebConv))
    by_vertex = tf.reshape(x, (len(vertices), sizes.batch, width))
    both = compare(_gradient(fast, by_vertex), _gradient(slow, by_vertex), sizes.repetitions)
    return [Row(f"L x, {len(vertices):,} vertices, {sizes.columns} columns", *product, ">= 8x"),
            Row(f"  graph convolution {width} to 3, both directions", *both, ">= 8x")]


def _gradient(layer, x):
    layer.build(x.shape)

    @tf.function
    def run():
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(tf.square(layer(x)))
        return tape.gradient(loss, [x, layer.kernel])
    return run
