"""The rows of a training step."""

from __future__ import annotations

import keras
import tensorflow as tf

from facegcn.benchmark.references import naive_draw, naive_network
from facegcn.benchmark.rows.drawing import draw, posed
from facegcn.benchmark.rows.timing import STEP_REPETITIONS, Parts, Row, Sizes, bumpy_mesh, compare, compiled

#: The texture networks whose training step is timed: the shipped worlds' and the paper's.
NETWORKS = {"resnet, residual head, de-lit": dict(kind="resnet", residual=True, refiner_channels=17),
            "resnet, the paper's head": dict(kind="resnet", residual=False, refiner_channels=7)}


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
        times = compare(compiled(ours), naive, min(sizes.repetitions, STEP_REPETITIONS))
        rows.append(Row(f"training step, {name}", *times, "<= 0.5 s"))
    return rows
