"""Stopping a run on request, between two steps, so that what is saved is a state that the run really passes through."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Stopped(KeyboardInterrupt):
    """The run was asked to stop, has saved its checkpoint and says so; no error, and no reason to go on either."""


class StopRequest:
    """Remembers that SIGINT (Ctrl-C) or SIGTERM came, for the loop to look at when a step is complete.

    A second SIGINT stops at once, without saving; the last checkpoint stands.
    """

    def __init__(self) -> None:
        self.asked = False

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take both signals as requests; in a thread that cannot receive signals, change nothing."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.asked = True
