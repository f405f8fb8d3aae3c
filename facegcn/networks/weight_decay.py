"""The texture networks' weight decay, in one pass over the weights each way."""

from __future__ import annotations

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable("facegcn")
class HalfSquares(keras.regularizers.Regularizer):
    """factor * sum(x^2) / 2, as TensorFlow 1's layers had it [released code].

    Args:
        factor: at least 0.
    """

    def __init__(self, factor: float):
        self.factor = factor

    def __call__(self, x):
        return self.factor * tf.nn.l2_loss(tf.convert_to_tensor(x))

    def get_config(self):
        """Everything the constructor takes."""
        return {"factor": self.factor}
