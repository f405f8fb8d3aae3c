"""Ctrl-C and SIGTERM while training: the step is finished, all is saved, and the program really ends."""

from __future__ import annotations

import contextlib
import gc
import signal
import threading
import traceback
from collections.abc import Callable, Iterator

from facegcn.errors import Terminated


class StopRequest:
    """Holds Ctrl-C and SIGTERM back until a training step is over; a context manager.

    Between two steps weights, optimiser and statistics belong together, so what is saved there continues exactly.
    A second request ends the program at once, and so does one that comes while no step is awaited. Of several processes
    each is asked for itself, often one a little after the other: the first to come is no second one, whoever began.

    Attributes:
        awaited: whether the end of a step will come soon, so that a request is held back for it.

    Args:
        meet: where several processes train, which stop at the same step: returns when all of them have called it. A
            request counts once they have agreed on it, and none of them leaves while another still saves: to its
            peers it would be gone.
    """

    def __init__(self, meet: Callable[[], object] | None = None):
        self.awaited = False
        self._meet, self._agreed = meet, meet is None
        self._request: KeyboardInterrupt | None = None
        self._noted = False  # whether a signal has come to this process itself
        self._before = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            for number, kind in ((signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Terminated)):
                if signal.getsignal(number) is not signal.SIG_IGN:  # as in the background of a script
                    self._before[number] = signal.signal(number, lambda _, frame, kind=kind: self.ask(kind()))
        return self

    def __exit__(self, kind, *_) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
        if kind is None and self._request is not None:  # agreed on or not: there is no step left to agree in
            raise self._request

    def ask(self, request: KeyboardInterrupt) -> None:
        """What the signals do: raises the request, or keeps it until the step is over."""
        if self._noted or not (self.awaited or self.asked):
            raise request
        self._noted, self._request = True, self._request or request

    @property
    def wished(self) -> bool:
        """Whether a request is held back, agreed on or not."""
        return self._request is not None

    @property
    def asked(self) -> bool:
        """Whether a request is held back that the next step's end is to obey."""
        return self._agreed and self.wished

    def agree(self) -> None:
        """All processes stop after this step, because one of them is asked to."""
        self._request, self._agreed = self._request or Terminated(), True

    def obey(self) -> None:
        """Raises the request that is held back."""
        if self.asked:
            if self._meet is not None:
                self._meet()
            raise self._request


@contextlib.contextmanager
def pipelines_ended() -> Iterator[None]:
    """Around trainings: an exception that leaves it leaves no input pipeline behind.

    The frames of its traceback hold the iterators. Were they left to the interpreter's end, it would wait for ever
    for the pipelines' threads, which run Python and cannot any more.
    """
    try:
        yield
    except BaseException as error:
        link = error
        while link is not None:
            traceback.clear_frames(link.__traceback__)
            link = link.__context__
        gc.collect()
        raise
