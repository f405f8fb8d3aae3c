"""Numbers that went bad: which weight, gradient, record or loss term of a training step is not finite.

A step keeps the norms of its weights and gradients, which costs one pass over them; what is wrong is looked for only
when something is, in the batch as the packed file gives it once more.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import tensorflow as tf

_NAMED_RECORDS = 8  # of a batch, in a message


class Norms:
    """Lengths of a network's weights before its latest step, and of their gradients in it.

    Args:
        network: its trainable variables are looked at.
    """

    def __init__(self, network):
        self._variables = network.trainable_variables
        # Each replica keeps its own; whoever looks sees their mean, which is not finite where one of them is not.
        self._found = tf.Variable(np.zeros((2, len(self._variables)), np.float32), trainable=False,
                                  synchronization=tf.VariableSynchronization.ON_READ,
                                  aggregation=tf.VariableAggregation.MEAN, name="norms")

    def note(self, gradients, fresh=True) -> tf.Tensor:
        """Keeps the lengths, before the gradients are applied; returns that of all gradients together, before clipping.

        Args:
            gradients: of each variable, or None.
            fresh: False where the step before belongs to the same batch: if that was bad, its lengths stay.
        """
        found = tf.stack([tf.stack([_length(value) for value in values]) for values in (self._variables, gradients)])
        kept = found
        if fresh is not True:
            whole = tf.reduce_all(tf.math.is_finite(tf.convert_to_tensor(self._found)))
            kept = tf.where(whole | fresh, found, self._found)
        self._found.assign(kept)
        return tf.norm(found[1])

    def bad_weight(self) -> str | None:
        """Name of the first weight that was not finite before the step."""
        return self._first_bad(0)

    def bad_gradient(self) -> str | None:
        """Name of the first weight whose gradient was not finite."""
        return self._first_bad(1)

    def _first_bad(self, row: int) -> str | None:
        bad = np.flatnonzero(~np.isfinite(tf.convert_to_tensor(self._found).numpy()[row]))
        return self._variables[bad[0]].path if len(bad) else None


def _length(value) -> tf.Tensor:
    return tf.constant(0.0) if value is None else tf.sqrt(2.0 * tf.nn.l2_loss(tf.cast(value, tf.float32)))


class BatchPart(NamedTuple):
    """Records of a batch, and what the step gets of each.

    Attributes:
        names: of the records, as text or UTF-8.
        arrays: (len(names), ...) by what they are in words, where only finite numbers belong.
    """

    names: list
    arrays: dict[str, np.ndarray]


def name_rows(names: list[str]) -> np.ndarray:
    """Names as an array of bytes, one of the arrays of ``packed_photos.PackedPhotos.examples``."""
    return np.array([name.encode() for name in names])


class Cause(NamedTuple):
    """Why a step is bad.

    Attributes:
        text: what is not finite, in words.
        lasting: it was so before the step: to pass over the batch does not help.
    """

    text: str
    lasting: bool


def cause(terms: dict[str, float], norms: list[Norms], parts: list[BatchPart]) -> Cause:
    """The first thing that went wrong in a step with a term that is not finite.

    Args:
        terms: loss terms and the gradient's norm.
        norms: of the networks that the step trains.
        parts: its batch.
    """
    for network in norms:
        if weight := network.bad_weight():
            return Cause(f"the weight '{weight}' is not finite", True)
    for part in parts:
        names = _as_text(part.names)
        for what, array in part.arrays.items():
            finite = np.isfinite(array.reshape(len(array), -1)).all(axis=1)
            if not finite.all():
                return Cause(f"the {what} of {_listed([names[i] for i in np.flatnonzero(~finite)])} "
                             f"{'is' if what == 'photo' else 'are'} not finite", False)
    bad = [name for name, value in terms.items() if not math.isfinite(value)]
    losses = [name for name in bad if name not in ("total", "loss") and not name.endswith("gradient_norm")]
    if losses:
        return Cause(f"the loss term '{losses[0]}' is not finite", False)
    for network in norms:
        if weight := network.bad_gradient():
            return Cause(f"the gradient of '{weight}' is not finite", False)
    return Cause(f"'{bad[0]}' is not finite", False)


def names_of(parts: list[BatchPart]) -> str:
    """The records of a batch, in words."""
    return _listed([name for part in parts for name in _as_text(part.names)])


def _as_text(names) -> list[str]:
    return [name.decode() if isinstance(name, bytes) else name for name in names]


def _listed(names: list[str]) -> str:
    more = len(names) - _NAMED_RECORDS
    return ", ".join(names[:_NAMED_RECORDS]) + (f" and {more} more" if more > 0 else "")
