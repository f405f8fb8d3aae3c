"""Checkpoints of a training stage: saved with all that its next step depends on, and mended when damaged."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import shutil
import time

import tensorflow as tf

from facegcn.errors import BrokenFile, UserError, log, refusal
from facegcn.files import write_text

_KEPT = 2  # the newest, and one before it for the case that the newest is damaged
_INDEX, _DATA = re.compile(r"(ckpt-\d+)\.index"), re.compile(r"(ckpt-\d+)\.data-\d+-of-\d+")
_HALF = re.compile(r"ckpt-\d+(_temp.*|.*\.tempstate.*)|checkpoint\.tmp.*")
#: What TensorFlow raises for a checkpoint whose files are cut or do not belong together.
_DAMAGE = (tf.errors.OpError, IndexError, ValueError, RuntimeError, LookupError, UnicodeDecodeError)


class TrainingState(tf.train.experimental.PythonState):
    """How far a stage is, and the sums of means that are not written yet; part of its checkpoints.

    Attributes:
        step: training steps done.
        epoch: epochs done.
        in_epoch: steps done of the epoch that is under way.
        steps: of an epoch; 0 = not known yet.
        window, epoch_sums: (sum, count) of every term since the last line of statistics, and in this epoch.
        loss_scales: the trainer's LossScales; their numbers are kept where they have any.
    """

    _FIELDS = ("step", "epoch", "in_epoch", "steps", "window", "epoch_sums")

    def __init__(self, step: int = 0, epoch: int = 0, loss_scales=()):
        self.loss_scales = loss_scales
        self.step, self.epoch, self.in_epoch, self.steps = step, epoch, 0, 0
        self.window: dict[str, tuple[float, int]] = {}
        self.epoch_sums: dict[str, tuple[float, int]] = {}

    def serialize(self) -> str:
        """As JSON, which keeps every digit of a sum."""
        found = {name: getattr(self, name) for name in self._FIELDS}
        if any(numbers := [scale.numbers() for scale in self.loss_scales]):
            found["loss_scales"] = numbers
        return json.dumps(found)

    def deserialize(self, string_value) -> None:
        """Takes over what ``serialize`` gave."""
        found = json.loads(string_value)
        for scale, numbers in zip(self.loss_scales, found.pop("loss_scales", ())):
            scale.take(numbers)
        for name, value in found.items():
            setattr(self, name, value)

    def end_epoch(self) -> None:
        """The epoch that was under way is done."""
        self.epoch, self.in_epoch, self.epoch_sums = self.epoch + 1, 0, {}


class Checkpoints:
    """The checkpoints of one stage in a folder.

    Attributes:
        state: a TrainingState, restored and saved with the rest.

    Args:
        folder: made with the first checkpoint; damaged ones in it are passed over with a warning.
        state: where a new training begins.
        seconds: age of the newest checkpoint, in seconds, at which another is due.
        writes: False where another process of the training saves them.
        parts: networks and optimisers by name; their variables must have been built.

    Raises:
        UserError: there are checkpoints, and every one is damaged.
    """

    def __init__(self, folder: str, state: TrainingState, seconds: float = math.inf, writes: bool = True, **parts):
        self.state, self._folder, self._seconds, self._writes = state, folder, seconds, writes
        if writes:
            _remove_leftovers(folder)
        whole = _whole_ones(folder)
        if writes and whole:  # the file that lists them may be damaged itself, or name a damaged one
            write_text(os.path.join(folder, "checkpoint"), _list(whole))
        self._newest = os.path.join(folder, whole[-1]) if whole else None
        self._manager = tf.train.CheckpointManager(tf.train.Checkpoint(state=state, **parts), folder, max_to_keep=_KEPT)
        self._saved_at = time.monotonic()

    def restore(self) -> bool:
        """Loads the newest whole checkpoint; whether there was one.

        Raises:
            UserError: it is of other networks.
        """
        newest = self._newest
        if newest is None:
            return False
        try:
            self._manager.checkpoint.restore(newest).assert_existing_objects_matched()
        except (AssertionError, ValueError) as error:
            raise UserError(f"{newest} does not fit the networks of this config: train a new run, without "
                            "--restore") from error
        log.info("continuing from %s: step %d", newest, self.state.step)
        return True

    def save(self) -> None:
        """Writes the next one; the oldest goes.

        Raises:
            UserError: it cannot be written, for example because the disk is full; those before it stay.
        """
        if not self._writes:
            return
        try:
            self._manager.save()
        except tf.errors.OpError as error:
            _remove_leftovers(self._folder)
            reason = refusal(error) or error.message
            raise UserError(f"a checkpoint could not be written into {self._folder}: {reason}. Make room, or mend what "
                            "it says; --restore continues from the one before") from error
        self._saved_at = time.monotonic()

    def due(self) -> bool:
        """Whether the last one is so old that a crash would cost more than it may."""
        return time.monotonic() - self._saved_at >= self._seconds


def _remove_leftovers(folder: str) -> None:
    """Removes what a kill, or a full disk, left half written of a checkpoint: TensorFlow names it otherwise."""
    names = os.listdir(folder) if os.path.isdir(folder) else []
    for name in names:
        data, path = _DATA.fullmatch(name), os.path.join(folder, name)
        if _HALF.fullmatch(name) or data and f"{data[1]}.index" not in names:
            with contextlib.suppress(OSError):  # as on a read-only disk, which says more when something is written
                shutil.rmtree(path) if os.path.isdir(path) else os.remove(path)


def _list(names: list[str]) -> str:
    """Content of TensorFlow's file ``checkpoint`` that lists the checkpoints beside it (text of its protocol buffer
    ``CheckpointState``), the newest last. TensorFlow's own function for that takes relative folders apart."""
    return "".join(f'{key}: "{name}"\n' for key, name in (
        ("model_checkpoint_path", names[-1]), *(("all_model_checkpoint_paths", name) for name in names)))


def _whole_ones(folder: str) -> list[str]:
    """Names of a folder's whole checkpoints, the newest last; warns of the others.

    Raises:
        UserError: there are some, and every one is damaged.
    """
    names = [match[1] for match in map(_INDEX.fullmatch, os.listdir(folder) if os.path.isdir(folder) else ()) if match]
    whole = []
    for name in sorted(names, key=lambda name: int(name.rpartition("-")[2])):
        try:
            _check_whole(os.path.join(folder, name))
            whole.append(name)
        except BrokenFile as error:
            log.warning("passing over %s", error)
    if names and not whole:
        raise UserError(f"no checkpoint in {folder} is whole: delete that folder, so that --restore begins the stage "
                        "anew, or train a new run")
    return whole


def _check_whole(prefix: str) -> None:
    """Reads every array of a checkpoint, which tries their checksums; raises BrokenFile."""
    try:
        reader = tf.train.load_checkpoint(prefix)
        for name in reader.get_variable_to_shape_map():
            reader.get_tensor(name)
    except _DAMAGE as error:
        raise BrokenFile(prefix, f"is a damaged checkpoint: {str(error).strip().splitlines()[0]}") from error
