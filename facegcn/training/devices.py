"""Training on several devices, and on several machines: who does what, and what happens when one is gone.

A step's batch is split evenly over the replicas, one for each device, and everything that a step computes is that of
the whole batch (``facegcn.replicas``). Every process gives its replicas their parts of one global order of records. One
process, the chief, writes everything; the others wait for what it writes where they need it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from facegcn import replicas
from facegcn.errors import UserError, log
from facegcn.files import digest
from facegcn.photos import packed_photos
from facegcn.photos.packed_photos import Examples
from facegcn.runs import OthersRun, RunFolder
from facegcn.training.interruption import StopRequest
from facegcn.training.peers import Cluster, PeerWatch

CHOICES = ("one", "all")
_TEXT_BYTES = 4096  # of what the chief tells the others
#: What a collective operation raises when a process that takes part is gone.
_PEER_ERRORS = (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError, tf.errors.InternalError,
                tf.errors.DeadlineExceededError, tf.errors.FailedPreconditionError, tf.errors.UnknownError)


class Share(NamedTuple):
    """The part of each batch that one process reads.

    Attributes:
        processes: that read.
        index: of this one among them.
        replicas: of all processes together.
    """

    processes: int = 1
    index: int = 0
    replicas: int = 1

    @property
    def local_replicas(self) -> int:
        """Replicas of this process."""
        return self.replicas // self.processes

    def part(self, batch_size: int) -> int:
        """Examples of one replica's part of a batch."""
        return batch_size // self.replicas

    def batches(self, examples: Examples, batch_size: int) -> tf.data.Dataset:
        """Batches of packed photos, of each this process's replicas' parts one by one; nothing else is read.

        Args:
            examples: of ``PackedPhotos.examples``.
            batch_size: of the whole batch.
        """
        found = packed_photos.batches(examples, batch_size, self.index, self.processes)
        return found if self.local_replicas == 1 else found.rebatch(self.part(batch_size))

    def kept(self, batch_size: int) -> Callable | None:
        """Whether this process reads an example, by its number in the global order; None = it reads all of them."""
        if self.processes == 1:
            return None
        mine = batch_size // self.processes
        return lambda number: (number % batch_size) // mine == self.index


WHOLE = Share()


class Devices:
    """The devices that one training runs on.

    Attributes:
        strategy: TensorFlow's.
        replicas: devices that take part, of all processes.
        chief: whether this process writes what is to be written.
        cluster: the processes, where there are several; else None.
    """

    def __init__(self, strategy: tf.distribute.Strategy | None = None, cluster: Cluster | None = None):
        self.strategy = strategy or tf.distribute.get_strategy()
        self.replicas = self.strategy.num_replicas_in_sync
        self.cluster = cluster
        self.chief = cluster is None or cluster.index == 0
        self._told = tf.function(lambda value: self.strategy.run(_first_replicas, args=(value,)), autograph=False)

    def scope(self):
        """Around the making of variables: every device gets them."""
        return contextlib.nullcontext() if self.replicas == 1 else self.strategy.scope()

    def check_batches(self, **sizes: int) -> None:
        """Raises UserError for a batch that is no equal part for each device; ``sizes`` are settings by name."""
        for name, size in sizes.items():
            if size % self.replicas:
                below = size // self.replicas * self.replicas
                fitting = " or ".join(str(n) for n in (below, below + self.replicas) if n)
                raise UserError(f"{name} is the batch of all {self.replicas} devices together, and {size} cannot be "
                                f"split evenly: set {name}={fitting}, or train on fewer devices")

    def batches(self, make: Callable[[Share], tf.data.Dataset]):
        """What a trainer is fitted to: ``make(share)`` gives the batches of one process, part by part."""
        if self.replicas == 1:
            return make(WHOLE)
        return self.strategy.distribute_datasets_from_function(
            lambda context: make(Share(context.num_input_pipelines, context.input_pipeline_id, self.replicas)))

    # ---------------------------------------------------------------- several processes
    def stop_request(self) -> StopRequest:
        """For the callbacks and the ``Trainer`` of a training."""
        return StopRequest(None if self.cluster is None else self.from_chief)

    def from_chief(self, text: str = "") -> str:
        """What the chief gives here; all processes wait for each other."""
        if self.cluster is None:
            return text
        data = np.zeros(_TEXT_BYTES, np.int32)
        said = np.frombuffer(text.encode(), np.uint8)
        data[:len(said)] = said
        found = self.strategy.experimental_local_results(self._told(tf.constant(data)))[0].numpy()
        return bytes(found[found > 0].astype(np.uint8)).decode()

    def check_same(self, what: str, *values) -> None:
        """Raises UserError where this process has other values than the chief."""
        mine = digest(*values)
        if self.from_chief(mine) != mine:
            raise UserError(f"{self.cluster.name()} has other {what} than {self.cluster.name(0)}: start every worker "
                            "with the same command and files")

    def run_folder(self, config, run: RunFolder | None) -> RunFolder:
        """The folder that the chief writes: ``run``, which is continued, or a new one where that is None.

        Raises:
            UserError: the chief's is not to be seen from here.
        """
        if self.chief:
            run = run or RunFolder.create(config)
        path = os.path.join(config.runs_dir, self.from_chief(os.path.basename(run.path) if self.chief else ""))
        if self.chief:
            return run
        if not os.path.isdir(path):
            raise UserError(f"{self.cluster.name()} does not see {path}, the folder of this run on "
                            f"{self.cluster.name(0)}: runs_dir must be one folder for all machines (a network drive)")
        return OthersRun(path)

    @contextlib.contextmanager
    def chief_first(self) -> Iterator[None]:
        """The block is run by the chief, then by the others, which find the files that it has kept.

        No variable may be made inside: all processes make it together.
        """
        if not self.chief:
            self.from_chief()
        yield
        if self.chief:
            self.from_chief()


ONE = Devices()


def _first_replicas(value):
    """The first replica's value, in all of them."""
    context = tf.distribute.get_replica_context()
    first = tf.cast(context.replica_id_in_sync_group == 0, value.dtype)
    return context.all_reduce(tf.distribute.ReduceOp.SUM, value * first)


@contextlib.contextmanager
def started(choice: str) -> Iterator[Devices]:
    """The devices of a training, which is the block; nothing of TensorFlow may have run before.

    Where the environment variable TF_CONFIG names several workers, all devices of all of them. While the block runs,
    a worker that dies ends this process with one message and the exit code ``peers.EXIT_PEER_GONE``.

    Args:
        choice: ``one``, or ``all`` devices of this machine: its GPUs, or the logical CPUs where there is none.

    Raises:
        UserError: TF_CONFIG cannot be understood.
    """
    cluster = Cluster.from_environment()
    if cluster is None:
        kinds = [tf.config.list_logical_devices(kind) for kind in ("GPU", "CPU")] if choice == "all" else [[]]
        found = [device.name for device in next(filter(None, kinds), [])]
        strategy = tf.distribute.MirroredStrategy(found) if len(found) > 1 else None
        if choice == "all":
            log.info("training on %d device%s: %s", len(found), "s" * (len(found) > 1), ", ".join(found))
        yield Devices(strategy)
        return
    log.info("%s of %d; waiting until all are there: %s", cluster.name(), len(cluster.addresses),
             ", ".join(cluster.addresses))
    devices = Devices(tf.distribute.MultiWorkerMirroredStrategy(), cluster)
    devices.from_chief()
    with PeerWatch(cluster) as watch:
        log.info("training on %d devices of %d workers", devices.replicas, len(cluster.addresses))
        try:
            yield devices
            devices.from_chief()  # nobody leaves while another still works
        except _PEER_ERRORS:
            watch.judge()  # ends the program when a worker is gone
            raise


# ---------------------------------------------------------------- the step
class Trainer(keras.Model):
    """A model whose ``train_step`` and ``test_step`` return the terms of the whole batch on every replica.

    Its variables are made in ``Devices.scope``, and so is itself.

    Attributes:
        stop: the StopRequest of the training; where there are several processes, they agree on the step to stop at.
    """

    stop = None

    def variant(self):
        """What a compiled step is made for: where it changes, another one is compiled. Hashable."""
        return None

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        """All variables are there; to find them, Keras would take the first batch away."""

    def make_train_function(self, force=False):
        """As Keras makes it, which cannot join the results of several processes."""
        if self.distribute_strategy.num_replicas_in_sync == 1:
            super().make_train_function(force)
        elif self.train_function is None or force:
            compiled = _compiled(self.distribute_strategy, self._step_and_stop)

            def train(iterator):
                wished = tf.constant(float(self.stop is not None and self.stop.wished))
                terms, asked = compiled(iterator, self.variant(), wished)
                if self.stop is not None and float(asked) > 0.0:
                    self.stop.agree()
                return terms

            self.train_function = train

    def make_test_function(self, force=False):
        """Likewise."""
        if self.distribute_strategy.num_replicas_in_sync == 1:
            super().make_test_function(force)
        elif self.test_function is None or force:
            compiled = _compiled(self.distribute_strategy, self.test_step)
            self.test_function = lambda iterator: compiled(iterator, self.variant())

    def _step_and_stop(self, batch, wished):
        # TensorFlow reduces no tensor that is the same one in all replicas.
        return self.train_step(batch), replicas.mean(tf.identity(wished))


def _compiled(strategy, step: Callable):
    """A step on the next batch by all replicas, compiled anew for each variant; gives what the first one returns."""
    @tf.function(autograph=False)
    def on_replicas(iterator, variant, *values):
        found = strategy.run(step, args=(next(iterator), *values))
        return tf.nest.map_structure(lambda value: strategy.experimental_local_results(value)[0], found)

    return on_replicas
