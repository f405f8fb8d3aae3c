"""Keras callbacks of every training here: progress, statistics, a stop that names a bad loss."""

from __future__ import annotations

import math
import time

import keras
from tqdm import tqdm

from facegcn.errors import TrainingStopped, log
from facegcn.files import written_whole
from facegcn.training.checkpoints import Checkpoints, TrainingState
from facegcn.training.interruption import StopRequest


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
        state: the stage's TrainingState, whose steps and sums are kept here; None for a new one.
    """

    def __init__(self, write, stage: str, log_steps: int, state: TrainingState | None = None):
        super().__init__()
        self._write, self._stage, self._log_steps = write, stage, log_steps
        self._state = state or TrainingState()
        self._validation, self._epoch = {}, 0
        self._start = time.monotonic()

    def on_test_begin(self, logs=None):
        self._validation = {}

    def on_test_batch_end(self, batch, logs=None):
        _add(self._validation, logs)

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        state = self._state
        state.step, state.in_epoch = state.step + 1, state.in_epoch + 1
        _add(state.window, logs)
        _add(state.epoch_sums, logs)
        if state.step % self._log_steps == 0:
            self._write(stage=self._stage, epoch=self._epoch, step=state.step,
                        seconds=round(time.monotonic() - self._start, 1), **_means(state.window))
            state.window = {}

    def on_epoch_end(self, epoch, logs=None):
        logs.update(_means(self._state.epoch_sums))
        # Keras gives the last validation batch's terms; these are the means of all of them.
        validation = {f"val_{name}": value for name, value in _means(self._validation).items()
                      if f"val_{name}" in logs}
        logs.update(validation)
        if validation:
            self._write(stage=self._stage, epoch=epoch, step=self._state.step, **validation)
        self._state.end_epoch()


class Progress:
    """One tqdm bar over all steps, with the running total loss; its closing line is logged instead of it.

    Args:
        label: what the line begins with.
        steps: of the whole stage.
        first_step: steps done before.
    """

    def __init__(self, label: str, steps: int, first_step: int = 0):
        self._label, self._mean, self._start, self._first = label, None, time.monotonic(), first_step
        self._bar = tqdm(total=steps, initial=first_step, desc=label, unit="step", dynamic_ncols=True,
                         mininterval=1.0, leave=False)

    def __enter__(self) -> Progress:
        return self

    def step(self, loss: float) -> None:
        """One step is done."""
        self._mean = loss if self._mean is None else 0.95 * self._mean + 0.05 * loss
        self._bar.set_postfix(loss=f"{self._mean:.4f}", refresh=False)
        self._bar.update(1)

    def __exit__(self, *_) -> None:
        self._bar.close()
        if self._mean is not None:
            log.info("%s: %d steps in %.0f s, loss %.4f", self._label, self._bar.n - self._first,
                     time.monotonic() - self._start, self._mean)


class ShowProgress(keras.callbacks.Callback):
    """Moves a ``Progress`` bar."""

    def __init__(self, progress: Progress):
        super().__init__()
        self._progress = progress

    def on_train_batch_end(self, batch, logs=None):
        self._progress.step(logs["total"])


class SaveCheckpoints(keras.callbacks.Callback):
    """Saves after each epoch, now and then within it, and before the program obeys Ctrl-C or SIGTERM.

    It comes behind the callbacks that keep the TrainingState.

    Args:
        checkpoints: of the stage.
        stop: an open StopRequest.
        weights_path: the network's weights to test with, ``.weights.h5``, written after each epoch; None = none.
        network: whose weights these are.
    """

    def __init__(self, checkpoints: Checkpoints, stop: StopRequest, weights_path: str | None = None, network=None):
        super().__init__()
        self._checkpoints, self._stop = checkpoints, stop
        self._weights_path, self._network = weights_path, network

    def on_train_batch_end(self, batch, logs=None):
        self._stop.awaited = True
        if batch + 1 == self.params["steps"]:  # what belongs to the epoch's end is not done yet
            return
        if self._stop.asked or self._checkpoints.due():
            self._checkpoints.save()
        self._stop.obey()

    def on_test_begin(self, logs=None):
        self._stop.awaited = False
        self._stop.obey()

    def on_epoch_end(self, epoch, logs=None):
        self._checkpoints.save()
        if self._weights_path:
            with written_whole(self._weights_path) as partial:
                self._network.save_weights(partial)
        self._stop.obey()


def _add(sums: dict, logs: dict) -> None:
    for name, value in logs.items():
        total, count = sums.get(name, (0.0, 0))
        sums[name] = (total + value, count + 1)


def _means(sums: dict) -> dict[str, float]:
    return {name: round(total / count, 6) for name, (total, count) in sums.items()}
