"""Keras callbacks of every training here: progress, statistics, a stop that names a bad loss."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import keras
import tensorflow as tf
from tqdm import tqdm

from facegcn.errors import TrainingStopped, log
from facegcn.files import require_room, written_whole
from facegcn.training.checkpoints import Checkpoints, TrainingState
from facegcn.training.finite import BatchPart, Norms, cause, names_of
from facegcn.training.interruption import StopRequest

MOST_SKIPPED = 20  # bad batches in a row; more are no accident
_SLOWER = "Lower the learning rate (--lr, in stage rec rec_lr)"
_OVERHEAD = 4096  # bytes of a variable in HDF5, besides its numbers


class StopOnNonFinite(keras.callbacks.Callback):
    """Stops at the first step with a non-finite number, or passes over its batch; says what it was, of which records.

    It comes before the callbacks that keep the TrainingState; of a batch that is passed over they get no terms.

    Args:
        state: the stage's TrainingState.
        batch_now: gives the batch of the step that is under way.
        norms: of the networks that are trained.
        restored: variables to be put back where a batch is passed over; None = no batch is.
    """

    def __init__(self, state: TrainingState, batch_now: Callable[[], list[BatchPart]], norms: list[Norms],
                 restored: list | None = None):
        super().__init__()
        self._state, self._batch_now, self._norms = state, batch_now, norms
        self._restored, self._before = restored, []
        self._skipped = self._in_a_row = 0

    def on_train_batch_begin(self, batch, logs=None):
        if self._restored is not None:  # not copied here: a variable that is also held elsewhere copies when it changes
            self._before = [tf.convert_to_tensor(variable) for variable in self._restored]

    def on_train_batch_end(self, batch, logs=None):
        if all(math.isfinite(value) for value in (logs or {}).values()):
            self._in_a_row, self._before = 0, []
            return
        parts = self._batch_now()
        found = cause(logs, self._norms, parts)
        where = f"step {self._state.step + 1}: {found.text}; its batch: {names_of(parts)}"
        if self._restored is None or found.lasting:
            raise TrainingStopped(
                f"training stopped at {where}. {_SLOWER}, continue from the last checkpoint (--restore)"
                + ("" if found.lasting else ", or pass over such batches with --set skip_bad_batches=true"))
        for variable, value in zip(self._restored, self._before):
            variable.assign(value)
        self._skipped, self._in_a_row = self._skipped + 1, self._in_a_row + 1
        log.warning("passed over the batch of %s (%d so far)", where, self._skipped)
        if self._in_a_row == MOST_SKIPPED:
            raise TrainingStopped(
                f"training stopped: {MOST_SKIPPED} batches in a row had to be passed over, the last at {where}. "
                f"{_SLOWER}, or mend or leave out what is named; --restore continues from the last checkpoint")
        logs.clear()


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


class EpochBoard(keras.callbacks.TensorBoard):
    """TensorBoard's events of each epoch.

    Keras's own makes tensors of each batch's numbers, too, even where it writes none of them, and TensorFlow keeps each
    Python number that it ever made an eager tensor of: 7 KB a step, gigabytes in a long training.
    """

    def on_train_batch_end(self, batch, logs=None):
        """Writes nothing."""


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

    def step(self, loss: float | None) -> None:
        """One step is done; None where its batch was passed over."""
        if loss is not None:
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
        self._progress.step(logs.get("total"))


class SaveCheckpoints(keras.callbacks.Callback):
    """Saves after each epoch, now and then within it, and before Ctrl-C or SIGTERM is obeyed.

    It comes behind the callbacks that keep the TrainingState.

    Args:
        checkpoints: of the stage.
        stop: an open StopRequest.
        validated: epochs until each validation, as Keras counts them; None = there is none. A validation may take long,
            and whoever is stopped in it loses no more than a step.
        weights_path: the network's weights to test with, ``.weights.h5``, written after each epoch; None = none.
        network: whose weights these are.
    """

    def __init__(self, checkpoints: Checkpoints, stop: StopRequest, validated: int | None = None,
                 weights_path: str | None = None, network=None):
        super().__init__()
        self._checkpoints, self._stop, self._validated, self._epoch = checkpoints, stop, validated, 0
        self._weights_path, self._network = weights_path, network

    def on_train_batch_end(self, batch, logs=None):
        self._stop.awaited = True
        left = self.params["steps"] - batch - 1
        if not left:  # what belongs to the epoch's end is not done yet
            return
        before_validation = left == 1 and self._validated and (self._epoch + 1) % self._validated == 0
        if self._stop.asked or before_validation or self._checkpoints.due():
            self._checkpoints.save()
        self._stop.obey()

    def on_train_begin(self, logs=None):
        self._rest()  # the first step compiles for long

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch = epoch

    def on_test_begin(self, logs=None):
        self._rest()

    def on_test_end(self, logs=None):
        self._stop.awaited = True  # the epoch is about to be saved

    def _rest(self):
        """What follows is long, and nothing in it need be saved."""
        self._stop.awaited = False
        self._stop.obey()

    def on_epoch_end(self, epoch, logs=None):
        self._checkpoints.save()
        if self._weights_path:
            variables = self._network.weights
            require_room(self._weights_path, sum(4 * math.prod(variable.shape) + _OVERHEAD for variable in variables))
            with written_whole(self._weights_path) as partial:
                self._network.save_weights(partial)
        self._stop.obey()


def _add(sums: dict, logs: dict) -> None:
    for name, value in logs.items():
        total, count = sums.get(name, (0.0, 0))
        sums[name] = (total + value, count + 1)


def _means(sums: dict) -> dict[str, float]:
    return {name: round(total / count, 6) for name, (total, count) in sums.items()}
