"""Keras callbacks of every training here: progress, statistics, a stop that names a bad loss."""

from __future__ import annotations

import math
import os
import time

import keras
import tensorflow as tf
from tqdm import tqdm

from facegcn.errors import TrainingStopped


class StopOnNonFinite(keras.callbacks.Callback):
    """Raises TrainingStopped at the first step with a non-finite term, and names the term."""

    def on_train_batch_end(self, batch, logs=None):
        bad = [name for name, value in (logs or {}).items() if not math.isfinite(value)]
        if bad:
            first = next((name for name in bad if name not in ("total", "loss")), bad[0])
            raise TrainingStopped(
                f"training stopped at step {batch}: the loss term '{first}' is not finite. "
                "Lower the learning rate (--lr, in stage rec rec_lr), or continue from the last checkpoint (--restore)")


class StatsLog(keras.callbacks.Callback):
    """Means of every term: a line each ``log_steps`` to ``write``; epoch means replace Keras's logs.

    Args:
        write: called with keyword values, for example RunFolder.stats.
        stage: name of the stage, part of each line.
        log_steps: training steps between lines.
        first_step: steps done before, by a run that is continued.
    """

    def __init__(self, write, stage: str, log_steps: int, first_step: int = 0):
        super().__init__()
        self._write, self._stage, self._log_steps = write, stage, log_steps
        self._window, self._epoch_sums, self._validation = {}, {}, {}
        self._step, self._epoch = first_step, 0
        self._start = time.time()

    def on_test_begin(self, logs=None):
        self._validation = {}

    def on_test_batch_end(self, batch, logs=None):
        _add(self._validation, logs)

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch, self._epoch_sums = epoch, {}

    def on_train_batch_end(self, batch, logs=None):
        self._step += 1
        _add(self._window, logs)
        _add(self._epoch_sums, logs)
        if self._step % self._log_steps == 0:
            self._write(stage=self._stage, epoch=self._epoch, step=self._step,
                        seconds=round(time.time() - self._start, 1), **_means(self._window))
            self._window = {}

    def on_epoch_end(self, epoch, logs=None):
        logs.update(_means(self._epoch_sums))
        # Keras gives the last validation batch's terms; these are the means of all of them.
        validation = {f"val_{name}": value for name, value in _means(self._validation).items()
                      if f"val_{name}" in logs}
        logs.update(validation)
        if validation:
            self._write(stage=self._stage, epoch=epoch, step=self._step, **validation)


class Progress(keras.callbacks.Callback):
    """One tqdm bar over all steps, showing the epoch and the running total loss."""

    def __init__(self, label: str, steps: int, first_step: int = 0):
        super().__init__()
        self._bar = tqdm(total=steps, initial=first_step, desc=label, unit="step", dynamic_ncols=True,
                         mininterval=1.0)
        self._mean = None

    def on_train_batch_end(self, batch, logs=None):
        self._mean = logs["total"] if self._mean is None else 0.95 * self._mean + 0.05 * logs["total"]
        self._bar.set_postfix(loss=f"{self._mean:.4f}", refresh=False)
        self._bar.update(1)
        if self._bar.n == self._bar.total:
            self._bar.close()


class SaveCheckpoints(keras.callbacks.Callback):
    """After each epoch: a TensorFlow checkpoint to continue from, and the network's weights to test with.

    Args:
        manager: tf.train.CheckpointManager whose checkpoint holds ``network`` and a variable ``epoch``.
        weights_path: the network's weights, ``.weights.h5``.
    """

    def __init__(self, manager: tf.train.CheckpointManager, weights_path: str):
        super().__init__()
        self._manager, self._weights_path = manager, weights_path

    def on_epoch_end(self, epoch, logs=None):
        self._manager.checkpoint.epoch.assign(epoch + 1)
        self._manager.save()
        partial = self._weights_path.replace(".weights.h5", ".partial.weights.h5")
        self._manager.checkpoint.network.save_weights(partial)
        os.replace(partial, self._weights_path)


class SaveEvery(keras.callbacks.Callback):
    """Writes a TensorFlow checkpoint every so many steps.

    Args:
        manager: tf.train.CheckpointManager whose checkpoint holds a variable ``step``.
        steps: training steps between checkpoints.
    """

    def __init__(self, manager: tf.train.CheckpointManager, steps: int):
        super().__init__()
        self._manager, self._steps = manager, steps

    def on_train_batch_end(self, batch, logs=None):
        step = self._manager.checkpoint.step
        if int(step.assign_add(1)) % self._steps == 0:
            self._manager.save()


def _add(sums: dict, logs: dict) -> None:
    for name, value in logs.items():
        total, count = sums.get(name, (0.0, 0))
        sums[name] = (total + value, count + 1)


def _means(sums: dict) -> dict[str, float]:
    return {name: round(total / count, 6) for name, (total, count) in sums.items()}
