"""Normalisation layers of the image critic, differentiable twice.

The gradient penalty of WGAN-GP is trained, so the critic's gradient is itself differentiated.
``tf.nn.moments``, and with it Keras' own normalisation layers, takes the mean inside the variance as
a constant: exact for the first derivative, wrong for the second. Here it is not.

Letters: B images, H W pixels, C channels.
"""

from __future__ import annotations

import keras
import tensorflow as tf

from facegcn import replicas


def moments(x, axes) -> tuple[tf.Tensor, tf.Tensor]:
    """Mean and variance over ``axes``, which stay with length 1; exact in every derivative.

    With axis 0 among them, over the images of all replicas.
    """
    def mean_of(values):
        mean = tf.reduce_mean(values, axes, keepdims=True)
        return replicas.mean(mean) if 0 in axes else mean

    mean = mean_of(x)
    return mean, mean_of(tf.square(x - mean))


class BatchNorm(keras.layers.Layer):
    """Batch normalisation of (B, H, W, C) with an offset per channel and no scale [released code].

    In training the moments are those of the batch, all replicas' parts of it together, else moving averages of them.
    """

    def __init__(self, momentum: float = 0.9, epsilon: float = 0.001, **kwargs):
        """
        Args:
            momentum: share of the old moving average that a training batch leaves, in [0, 1).
            epsilon: added to the variance.
        """
        super().__init__(**kwargs)
        self.momentum, self.epsilon = momentum, epsilon

    def build(self, input_shape):
        shape = (input_shape[-1],)
        self.beta = self.add_weight(name="beta", shape=shape, initializer="zeros")
        self.moving_mean = self.add_weight(name="moving_mean", shape=shape, initializer="zeros", trainable=False)
        self.moving_variance = self.add_weight(name="moving_variance", shape=shape, initializer="ones",
                                               trainable=False)

    def call(self, x, training=False):
        """Normalises (B, H, W, C); a training call also moves the averages."""
        if training:
            mean, variance = moments(x, (0, 1, 2))
            for average, now in ((self.moving_mean, mean), (self.moving_variance, variance)):
                average.assign(average * self.momentum + tf.reshape(now, (-1,)) * (1.0 - self.momentum))
        else:
            mean, variance = tf.convert_to_tensor(self.moving_mean), tf.convert_to_tensor(self.moving_variance)
        return (x - mean) * tf.math.rsqrt(variance + self.epsilon) + self.beta

    def get_config(self):
        """Everything the constructor takes."""
        return {**super().get_config(), "momentum": self.momentum, "epsilon": self.epsilon}


class ImageNorm(keras.layers.Layer):
    """Layer normalisation over all values of one image, then a scale and an offset per channel [ours]."""

    def __init__(self, epsilon: float = 0.001, **kwargs):
        """
        Args:
            epsilon: added to the variance.
        """
        super().__init__(**kwargs)
        self.epsilon = epsilon

    def build(self, input_shape):
        self.gamma = self.add_weight(name="gamma", shape=(input_shape[-1],), initializer="ones")
        self.beta = self.add_weight(name="beta", shape=(input_shape[-1],), initializer="zeros")

    def call(self, x):
        """Normalises (B, H, W, C)."""
        mean, variance = moments(x, (1, 2, 3))
        return (x - mean) * tf.math.rsqrt(variance + self.epsilon) * self.gamma + self.beta

    def get_config(self):
        """Everything the constructor takes."""
        return {**super().get_config(), "epsilon": self.epsilon}
