"""The processes of one training on several machines, and the watch that they keep over each other."""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
from typing import NamedTuple

from facegcn.errors import UserError, log

EXIT_PEER_GONE = 75  # as sysexits.h has it: what failed was not this program, try again
_INTERVAL = 0.5  # seconds between looks at each peer
_REFUSALS = 2  # looks in a row that find nobody listening: the process is gone
_SILENCE = 30.0  # seconds without an answer from a peer's machine
_PATIENCE = 40.0  # seconds that a broken connection may take to be explained


class Cluster(NamedTuple):
    """The processes, in the order of their numbers; number 0 is the chief.

    Attributes:
        addresses: HOST:PORT of each.
        index: this process's number.
    """

    addresses: tuple[str, ...]
    index: int

    @classmethod
    def from_environment(cls) -> Cluster | None:
        """What TF_CONFIG says; None where it names no second process.

        Raises:
            UserError: it cannot be understood, or has tasks that take no part here.
        """
        text = os.environ.get("TF_CONFIG", "")
        if not text.strip():
            return None
        try:
            values = json.loads(text)
            jobs, task = dict(values.get("cluster", {})), values.get("task", {})
            for job in jobs:
                if job not in ("chief", "worker"):
                    raise ValueError(f"the task '{job}' takes no part here: name a chief and workers, or workers alone")
            places = [(job, number) for job in ("chief", "worker") for number in range(len(jobs.get(job, ())))]
            addresses = tuple(address for job in ("chief", "worker") for address in jobs.get(job, ()))
            for address in addresses:
                _host_and_port(address)
            if len(addresses) < 2:
                return None
            return cls(addresses, places.index((task["type"], int(task["index"]))))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(
                f"the environment variable TF_CONFIG cannot be understood ({type(error).__name__}: {error}): set it "
                'like {"cluster": {"worker": ["host0:2222", "host1:2222"]}, "task": {"type": "worker", "index": 0}}, '
                "with another index on each machine, or unset it") from error

    def name(self, index: int | None = None) -> str:
        """How messages call a process; None = this one."""
        index = self.index if index is None else index
        return f"worker {index} ({self.addresses[index]})"


def _host_and_port(address: str) -> tuple[str, int]:
    host, colon, port = address.rpartition(":")
    if not (host and colon and port.isdecimal()):
        raise ValueError(f"'{address}' is no HOST:PORT")
    return host.strip("[]"), int(port)


class PeerWatch:
    """Ends this process when another one of the training is gone, wherever it is then; a context manager.

    TensorFlow's own watch takes longer, and cannot interrupt what waits for the others in Python or in a collective
    operation. A process is gone when nobody listens at its address any more, or its machine does not answer. That ends
    this one at once: what is on the disk is whole at any time.
    """

    def __init__(self, cluster: Cluster):
        self._cluster = cluster
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="peer watch", daemon=True)

    def __enter__(self) -> PeerWatch:
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._over.set()
        self._thread.join()

    def judge(self) -> None:
        """Waits for the reason of a broken connection; returns when all others are there after all."""
        self._thread.join(_PATIENCE)

    def _watch(self) -> None:
        peers = [index for index in range(len(self._cluster.addresses)) if index != self._cluster.index]
        refusals, heard = dict.fromkeys(peers, 0), dict.fromkeys(peers, time.monotonic())
        while not self._over.wait(_INTERVAL):
            for index in peers:
                try:
                    socket.create_connection(_host_and_port(self._cluster.addresses[index]), timeout=5.0).close()
                    refusals[index], heard[index] = 0, time.monotonic()
                except ConnectionError:
                    refusals[index] += 1
                except OSError:
                    refusals[index] = 0
                if refusals[index] >= _REFUSALS or time.monotonic() - heard[index] > _SILENCE:
                    self._end(index)

    def _end(self, index: int) -> None:
        log.error("error: %s is gone, and the training cannot go on without it: see what it said last. Start the same "
                  "command with --restore on every machine, and it continues from the last checkpoint",
                  self._cluster.name(index))
        for handler in logging.getLogger().handlers:
            handler.flush()
        os._exit(EXIT_PEER_GONE)  # the main thread may be waiting, deep in TensorFlow, for ever
