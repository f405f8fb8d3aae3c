"""Keras callbacks of every training here: progress, statistics, a stop that names a bad loss."""

from __future__ import annotations

import math
import time

import keras
import tensorflow as tf
from tqdm import tqdm

from facegcn.config import UserError


class TrainingStopped(UserError):
    """A loss term became infinite or not a number."""


class StopOnNonFinite(keras.callbacks.Callback):
    """Raises TrainingStopped at the first step with a non-finite term, and names the term."""

    def on_train_batch_end(self, batch, logs=None):
        bad = [name for name, value in (logs or {}).items() if not math.isfinite(value)]
        if bad:
            first = next((name for name in bad if name not in ("total", "loss")), bad[0])
            raise TrainingStopped(
                f"training stopped at step {batch}: the loss term '{first}' is not finite. "
                "Lower the learning rate (--lr), or continue from the last checkpoint (--restore)")


class StatsLog(keras.callbacks.Callback):
    """Means of every term: a line each ``log_steps`` to ``write``; epoch means replace Keras's logs.

    Args:
        write: called with keyword values, for example RunFolder.stats.
        stage: name of the stage, part of each line.
        log_steps: training steps between lines.
    """

    def __init__(self, write, stage: str, log_steps: int):
        super().__init__()
        self._write, self._stage, self._log_steps = write, stage, log_steps
        self._window, self._epoch_sums, self._step, self._epoch = {}, {}, 0, 0
        self._start = time.time()

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch, self._epoch_sums = epoch, {}

    def on_train_batch_end(self, batch, logs=None):
        self._step += 1
        for sums in (self._window, self._epoch_sums):
            for name, value in logs.items():
                total, count = sums.get(name, (0.0, 0))
                sums[name] = (total + value, count + 1)
        if self._step % self._log_steps == 0:
            self._write(stage=self._stage, epoch=self._epoch, step=self._step,
                        seconds=round(time.time() - self._start, 1), **_means(self._window))
            self._window = {}

    def on_epoch_end(self, epoch, logs=None):
        logs.update(_means(self._epoch_sums))
        validation = {k: v for k, v in logs.items() if k.startswith("val_")}
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
    """Writes a TensorFlow checkpoint after each epoch, and keeps the last two.

    Args:
        manager: tf.train.CheckpointManager whose checkpoint holds a variable ``epoch``.
    """

    def __init__(self, manager: tf.train.CheckpointManager):
        super().__init__()
        self._manager = manager

    def on_epoch_end(self, epoch, logs=None):
        self._manager.checkpoint.epoch.assign(epoch + 1)
        self._manager.save()


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


def _means(sums: dict) -> dict[str, float]:
    return {name: round(total / count, 6) for name, (total, count) in sums.items()}
