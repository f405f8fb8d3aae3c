"""Adam as the texture networks are trained with it, in few passes over the weights.

The dense layers of a texture network hold most of its ten million weights and more: the twenty operations that Keras
needs for each of them are a good part of a training step.
"""

from __future__ import annotations

import keras
import tensorflow as tf

_EPSILON = 1e-8  # TensorFlow 1's [released code]; Keras' own of 1e-7 would slow the weights whose gradients are small


class Adam(keras.optimizers.Adam):
    """Keras' Adam, given gradients that are those of all replicas already, so that they are clipped as such."""

    def _all_reduce_sum_gradients(self, grads_and_vars):
        """Keras would add them up here, behind the clipping."""
        return grads_and_vars


class OnePassAdam(Adam):
    """Keras' Adam with TensorFlow's fused kernel, and with gradients clipped in two passes; the same formulas.

    It has no ``amsgrad`` and no sparse gradients.
    """

    def update_step(self, gradient, variable, learning_rate):
        """Moves one variable, and its two moments."""
        index = self._get_variable_index(variable)
        step = tf.cast(tf.convert_to_tensor(self.iterations) + 1, variable.dtype)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle, m=self._momentums[index].value.handle, v=self._velocities[index].value.handle,
            beta1_power=self.beta_1 ** step, beta2_power=self.beta_2 ** step,
            lr=tf.cast(learning_rate, variable.dtype), beta1=self.beta_1, beta2=self.beta_2, epsilon=self.epsilon,
            grad=tf.cast(gradient, variable.dtype))

    def _clip_by_norm(self, values, axes=None):
        """Keras' hook for ``clipnorm``."""
        length = tf.sqrt(2.0 * tf.nn.l2_loss(values))
        return values * (self.clipnorm / tf.maximum(length, self.clipnorm))


def adam(learning_rate, clip_norm: float) -> Adam:
    """Adam with TensorFlow 1's epsilon, 1e-8; each variable's gradient is clipped to a norm [released code].

    Args:
        learning_rate: a number or a Keras schedule.
        clip_norm: greatest norm of a variable's gradient.
    """
    return OnePassAdam(learning_rate, epsilon=_EPSILON, clipnorm=clip_norm)
