"""Normalisation layers of the critic: values, moving averages, and derivatives of derivatives."""

import numpy as np
import pytest
import tensorflow as tf

from facegcn.networks.normalization import BatchNorm, ImageNorm

LAYERS = [(BatchNorm, {"training": True}, (0, 1, 2)), (ImageNorm, {}, (1, 2, 3))]


@pytest.mark.parametrize("layer_class, call, axes", LAYERS)
def test_values(layer_class, call, axes, rng):
    x = rng.normal(size=(3, 4, 5, 6)) * 2 + 1
    layer = layer_class()
    layer.build(x.shape)
    layer.beta.assign(rng.normal(size=6))
    expected = (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + 0.001)
    if layer_class is ImageNorm:
        layer.gamma.assign(rng.normal(size=6))
        expected = expected * layer.gamma.numpy()
    np.testing.assert_allclose(layer(np.float32(x), **call), expected + layer.beta.numpy(), atol=1e-5)


@pytest.mark.parametrize("layer_class, call, axes", LAYERS)
def test_second_derivatives_equal_finite_differences(layer_class, call, axes, rng):
    """Of a penalty on the gradient; Keras' own layers fail here, their variance holds the mean constant.

    The penalty's weights matter: the gradients of a group sum to zero, which hides the error of an even penalty.
    """
    layer = layer_class(dtype="float64")
    x, move, slope, weight = (rng.normal(size=(2, 3, 3, 2)) for _ in range(4))
    layer.build(x.shape)

    def penalty(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            score = tf.reduce_sum(tf.sin(layer(x, **call)) * slope)
        return tf.reduce_sum(tf.square(tape.gradient(score, x)) * weight)

    point = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(point)
        value = penalty(point)
    along = float(tf.reduce_sum(tape.gradient(value, point) * move))
    difference = (penalty(tf.constant(x + 1e-5 * move)) - penalty(tf.constant(x - 1e-5 * move))) / 2e-5
    assert along == pytest.approx(float(difference), rel=1e-6)


def test_moving_averages_are_used_outside_training(rng):
    layer = BatchNorm(momentum=0.7)
    x = np.float32(rng.normal(size=(4, 3, 3, 2)) * 3 + 2)
    layer(x, training=True)
    np.testing.assert_allclose(layer.moving_mean, 0.3 * x.mean((0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(layer.moving_variance, 0.7 + 0.3 * x.var((0, 1, 2)), rtol=1e-5)
    expected = (x - layer.moving_mean.numpy()) / np.sqrt(layer.moving_variance.numpy() + 0.001)
    np.testing.assert_allclose(layer(x), expected, rtol=1e-4, atol=1e-5)
    assert {weight.name for weight in layer.trainable_weights} == {"beta"}


@pytest.mark.parametrize("layer", [BatchNorm(momentum=0.7, epsilon=0.1, name="a"), ImageNorm(epsilon=0.2, name="b")])
def test_config_makes_the_same_layer(layer):
    assert type(layer).from_config(layer.get_config()).get_config() == layer.get_config()
