"""What the replicas of a training step know of each other: a step on several devices is one step on the whole batch.

Each replica gets an equal part of the batch. Means over the batch are then means over the replicas; what is divided by
a sum over the batch, and what is drawn at random for it, goes through here. With one replica, and outside of a
replica's step, everything here gives back what it is given, and adds nothing to the graph.
"""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf


def count() -> int:
    """Replicas that take part in the step that is being traced; 1 outside of one."""
    context = tf.distribute.get_replica_context()
    return 1 if context is None else context.num_replicas_in_sync


def mean(values):
    """Mean over the replicas of each tensor in a structure; differentiable, any number of times.

    What depends on it in one replica is part of the gradient in all of them: the gradients' own mean is then the
    gradient of the mean of the replicas' losses.

    Args:
        values: tensors of the same shape in each replica, or None. It must not be called inside tf.cond or a loop: all
            replicas meet here.
    """
    if count() == 1:
        return values
    flat = tf.nest.flatten(values)
    there = [value for value in flat if value is not None]
    means = iter(tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.MEAN, there))
    return tf.nest.pack_sequence_as(values, [None if value is None else next(means) for value in flat])


def drawn(size, draw: Callable) -> tf.Tensor:
    """Random numbers for this replica's part of the batch: a part of the ones that a single process draws for all.

    Args:
        size: examples of this replica's part, scalar integer.
        draw: makes numbers (n, ...) for a batch of n, the same ones in every replica.
    """
    replicas = count()
    if replicas == 1:
        return draw(size)
    place = tf.distribute.get_replica_context().replica_id_in_sync_group * size
    return draw(size * replicas)[place:place + size]
