"""The factor of a loss whose gradients pass through float16, which holds nothing below 6e-8 and above 65,504.

Micikevicius et al. 2018: gradients are computed of the loss times a factor and divided by it in float32. The factor is
halved when they were too large for float16 (such a step changes no weight), and doubled after many steps without.
"""

from __future__ import annotations

import tensorflow as tf

from facegcn.errors import UserError

_FIRST, _LEAST = 2.0 ** 15, 1.0
_PATIENCE = 2000  # steps until a larger factor is tried


class LossScale:
    """The factor of one loss; none, and no operation, where gradients do not pass through float16.

    Args:
        precision: see ``networks.precision.PRECISIONS``.
    """

    def __init__(self, precision: str):
        self._factor = self._good = None
        if precision == "mixed_float16":
            self._factor = tf.Variable(_FIRST, trainable=False, name="loss_scale")
            self._good = tf.Variable(0, trainable=False, name="good_steps")

    def gradients(self, tape: tf.GradientTape, loss, variables) -> list:
        """As ``tape.gradient(loss, variables)``; some are not finite where the factor was too large."""
        if self._factor is None:
            return tape.gradient(loss, variables)
        factor = tf.convert_to_tensor(self._factor)
        return [None if scaled is None else scaled / factor
                for scaled in tape.gradient(loss, variables, output_gradients=factor)]

    def apply(self, optimizer, gradients, variables, norm) -> tf.Tensor:
        """Moves the variables, unless the factor was too large; the norm of the step, 0 where nothing was moved.

        A norm that is not finite though the factor is 1 is returned as it is: then it is not the factor's fault.

        Args:
            optimizer: built for the variables.
            gradients: of ``gradients``.
            norm: of all of them together.
        """
        if self._factor is None:
            optimizer.apply_gradients(zip(gradients, variables))
            return norm
        finite = tf.math.is_finite(norm)

        def move():
            optimizer.apply_gradients(zip(gradients, variables))
            self._good.assign_add(1)
            return tf.constant(0.0)

        def shrink():
            self._good.assign(0)
            at_least = tf.equal(self._factor, _LEAST)
            self._factor.assign(tf.maximum(self._factor / 2.0, _LEAST))
            return tf.where(at_least, norm, 0.0)

        left = tf.cond(finite, move, shrink)
        grown = tf.equal(self._good, _PATIENCE)
        self._factor.assign(tf.where(grown, self._factor * 2.0, self._factor))
        self._good.assign(tf.where(grown, 0, self._good))
        return tf.where(finite, norm, left)

    def numbers(self) -> list[float]:
        """What a run that is continued needs of it; ``[]`` without a factor."""
        return [] if self._factor is None else [float(self._factor.numpy()), int(self._good.numpy())]

    def take(self, numbers: list[float]) -> None:
        """Takes over what ``numbers`` gave, if both have a factor."""
        if numbers and self._factor is not None:
            self._factor.assign(numbers[0])
            self._good.assign(int(numbers[1]))


def check_devices(precision: str, replicas: int) -> None:
    """Raises UserError where several devices would have to agree on a factor."""
    if precision == "mixed_float16" and replicas > 1:
        raise UserError("precision=mixed_float16 trains on one device only: set precision=mixed_bfloat16, whose "
                        "gradients need no common factor, or leave --devices out")
