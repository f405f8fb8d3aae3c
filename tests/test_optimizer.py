"""The optimiser and the weight decay against the formulas, step by step."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from facegcn.networks.weight_decay import HalfSquares
from facegcn.training.optimizer import adam


@pytest.mark.parametrize("clip_norm", [1e9, 0.5])
def test_adam_is_that_of_the_paper_with_tensorflow_1s_epsilon(rng, clip_norm):
    start, gradients = rng.normal(size=(3, 4)), rng.normal(size=(5, 3, 4))
    weight = keras.Variable(start.astype(np.float32))
    optimizer = adam(0.01, clip_norm)
    optimizer.build([weight])
    expected, m, v = start.copy(), np.zeros((3, 4)), np.zeros((3, 4))
    for number, gradient in enumerate(gradients, start=1):
        optimizer.apply_gradients([(tf.constant(gradient, tf.float32), weight)])
        gradient = gradient * min(1.0, clip_norm / np.linalg.norm(gradient))
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient ** 2
        expected -= 0.01 * (m / (1 - 0.9 ** number)) / (np.sqrt(v / (1 - 0.999 ** number)) + 1e-8)
        np.testing.assert_allclose(weight.numpy(), expected, rtol=1e-4, atol=1e-6)
    for kept, wanted in ((optimizer._momentums[0], m), (optimizer._velocities[0], v)):
        np.testing.assert_allclose(kept.numpy(), wanted, rtol=1e-4, atol=1e-8)
    assert optimizer.iterations.numpy() == 5


def test_adam_takes_the_checkpoints_of_keras_own(tmp_path, rng):
    """Runs that were begun with it continue."""
    gradient = tf.constant(rng.normal(size=4), tf.float32)

    def after(optimizer, restored=None, steps=2):
        weight = keras.Variable(np.ones(4, np.float32))
        optimizer.build([weight])
        checkpoint = tf.train.Checkpoint(optimizer=optimizer, weight=weight.value)
        if restored:
            checkpoint.restore(restored).assert_existing_objects_matched()
        for _ in range(steps):
            optimizer.apply_gradients([(gradient, weight)])
        return checkpoint, weight.numpy()

    keras_own = keras.optimizers.Adam(0.1, epsilon=1e-8, clipnorm=5.0)
    path = after(keras_own)[0].save(str(tmp_path / "adam"))
    whole = after(adam(0.1, 5.0), steps=4)[1]
    np.testing.assert_allclose(after(adam(0.1, 5.0), path)[1], whole, rtol=1e-5)


def test_weight_decay_is_half_the_squares(rng):
    x = tf.constant(rng.normal(size=(7, 3)), tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(x)
        decay = HalfSquares(0.3)(x)
    assert float(decay) == pytest.approx(0.15 * float(np.sum(np.square(x.numpy()))), rel=1e-6)
    np.testing.assert_allclose(tape.gradient(decay, x), 0.3 * x, rtol=1e-6)
    assert HalfSquares(**HalfSquares(0.3).get_config()).factor == 0.3
