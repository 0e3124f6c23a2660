"""Work shared out to processes: results in the order of the items, or as they come and with each crash contained."""

from __future__ import annotations

import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from time import monotonic
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from dciml.errors import DataError, DcimlError

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_in_processes(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int
) -> Iterator[Result]:
    """Yield `function(item)` for each item, in order; with one worker, in this process.

    New processes are started afresh ("spawn"), so that threads of this one (torch has some) do no harm; a script
    that calls this must therefore keep its own work under `if __name__ == "__main__":`.

    Args:
        function: of a module's top level; arguments and results are pickled between processes.
        items: what to work on.
        workers: ≥ 1.
    Raises:
        DataError: as `function` raised it. Work not yet begun is given up.

    >>> list(map_in_processes(abs, [-1, 2], workers=1))
    [1, 2]
    """
    if workers < 1:
        raise ValueError(f"workers must be at least 1, not {workers}")
    if workers == 1:
        yield from map(function, items)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        try:
            yield from pool.map(function, items)
        except DataError as error:  # made anew: the copy that came through the pipe words its message twice
            raise DataError(error.what, where=error.where, mend=error.mend) from None
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


Beat = Callable[[float, int], None]
"""By it a job tells how far it is, from 0 to 1, and how many units of work (pictures, say) that were."""

BEAT_SECONDS = 0.25  # beats that follow each other faster are not sent


@dataclass(frozen=True)
class Outcome(Generic[Item, Result]):
    """What became of an item: its result, or else the error."""

    item: Item
    result: Result | None
    error: DataError | None


class Crew(Generic[Item, Result]):
    """Processes that work on one item at a time each; use it as a context manager.

    An item whose process dies (a crash in a codec) or goes silent becomes an error of that item alone, and a new
    process takes the place of the old one. Processes are started afresh ("spawn") when there is work for them, and
    stay: what `function` loads for one item, it has for the next.

    Args:
        function: called with an item and a `Beat`; it, items and results are pickled.
        workers: ≥ 1.
        stall_seconds: an item is given up when its job is silent for so long.
    """

    def __init__(self, function: Callable[[Item, Beat], Result], workers: int, stall_seconds: float) -> None:
        if workers < 1:
            raise ValueError(f"workers must be at least 1, not {workers}")
        self._function, self._stall_seconds = function, stall_seconds
        self._places: list[_Worker | None] = [None] * workers

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End all processes, at once where they are at work."""
        for worker in self._places:
            if worker is not None:
                worker.end()
        self._places = [None] * len(self._places)

    def run(
        self, items: Iterable[Item], on_beat: Callable[[Item, float, int], None] | None = None
    ) -> Iterator[Outcome[Item, Result]]:
        """Yield the outcome of each item as it comes.

        Raises:
            DcimlError: other than DataError, as `function` raised it: then no item can succeed.
        """
        pending = deque(items)
        while pending or any(worker and worker.busy for worker in self._places):
            for place, worker in enumerate(self._places):
                if pending and not (worker and worker.busy):
                    worker = worker or _Worker(self._function)
                    self._places[place] = worker
                    worker.give(pending.popleft())
            at_work = [worker for worker in self._places if worker and worker.busy]
            ready = wait([worker.pipe for worker in at_work], timeout=1.0)
            for worker in at_work:
                outcome = (
                    worker.receive(on_beat) if worker.pipe in ready else worker.overdue(self._stall_seconds)
                )
                if outcome is None:
                    continue
                if worker.ended:
                    self._places[self._places.index(worker)] = None
                yield outcome


class _Worker:
    """The parent's side of one process."""

    def __init__(self, function: Callable[[Any, Beat], Any]) -> None:
        context = get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, function), daemon=True)
        self._process.start()
        theirs.close()
        self._item: Any = None
        self._heard = monotonic()
        self.busy = self.ended = False

    def give(self, item: Any) -> None:
        self._item, self._heard, self.busy = item, monotonic(), True
        with suppress(OSError):  # the process is gone, which `receive` will find and tell
            self.pipe.send(item)

    def receive(self, on_beat: Callable[[Any, float, int], None] | None) -> Outcome[Any, Any] | None:
        """The outcome, if that is what came; None for a beat."""
        try:
            kind, *content = self.pipe.recv()
        except (EOFError, OSError):
            return self._lost(f"the process that worked on it {self._how_it_ended()}")
        self._heard = monotonic()
        if kind == "beat":
            if on_beat is not None:
                on_beat(self._item, *content)
            return None
        self.busy = False
        if kind == "fatal":
            error_type, message = content
            raise error_type(message)
        if kind == "failed":
            what, where, mend = content
            return Outcome(self._item, None, DataError(what, where=where, mend=mend))
        return Outcome(self._item, content[0], None)

    def overdue(self, stall_seconds: float) -> Outcome[Any, Any] | None:
        """An outcome where the process has been silent for too long."""
        if monotonic() - self._heard <= stall_seconds:
            return None
        return self._lost(f"no progress for {stall_seconds:g} s, so it was given up")

    def end(self) -> None:
        self.ended = True
        if self.busy:
            self._process.kill()
        self.pipe.close()  # an idle process ends by itself at this
        self._process.join(timeout=5)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def _lost(self, what: str) -> Outcome[Any, Any]:
        self.end()
        self.busy = False
        return Outcome(self._item, None, DataError(what, mend="convert the file, or leave it out"))

    def _how_it_ended(self) -> str:
        self._process.join(timeout=5)
        code = self._process.exitcode
        if code is None or code >= 0:
            return f"ended early (exit code {code})"
        memory = ", perhaps for want of memory" if -code == signal.SIGKILL else ""
        return f"crashed ({signal.strsignal(-code) or f'signal {-code}'}{memory})"


def _attempt(function: Callable[[Item, Beat], Result], item: Item, beat: Beat) -> tuple[Any, ...]:
    """Call `function`: ("done", result), ("failed", what, where, mend) or ("fatal", type, message)."""
    try:
        return ("done", function(item, beat))
    except DataError as error:
        return ("failed", error.what, error.where, error.mend)
    except DcimlError as error:
        return ("fatal", type(error), str(error))
    except Exception as error:
        what = f"an unforeseen error ({type(error).__name__}: {error})"
        return ("failed", what, None, "leave the file out, and report this")


def _serve(pipe: Connection, function: Callable[[Any, Beat], Any]) -> None:
    """What a process of a crew does: work on what comes until the other side is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    told = 0.0

    def beat(fraction: float, units: int) -> None:
        nonlocal told
        if monotonic() - told >= BEAT_SECONDS:
            told = monotonic()
            pipe.send(("beat", fraction, units))

    try:
        while True:
            pipe.send(_attempt(function, pipe.recv(), beat))
    except (EOFError, OSError):
        return
