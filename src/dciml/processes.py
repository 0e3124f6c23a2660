"""Work shared out to processes: in order, as results come, or call by call; each crash contained, memory bounded."""

from __future__ import annotations

import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from pathlib import Path
from queue import LifoQueue
from threading import Thread
from time import monotonic
from types import TracebackType
from typing import Any, Generic, Self, TypeVar, cast

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
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=end_with_parent) as pool:
        try:
            yield from pool.map(function, items)
        except DataError as error:
            raise _anew(error) from None
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _anew(error: DataError) -> DataError:
    """The copy that came through a pipe words its message twice."""
    return DataError(error.what, where=error.where, mend=error.mend)


@contextmanager
def called_beside(
    function: Callable[[Item], Result], item: Item, *, alone: bool = False
) -> Iterator[Callable[[], Result]]:
    """Call a function in a process of its own while the block runs; yields what waits for its result.

    Args:
        function: pickles; so do the item and the result.
        alone: call it in this process instead, when its result is asked for.
    Raises:
        Whatever `function` raised, when its result is asked for.

    >>> with called_beside(abs, -1, alone=True) as result:
    ...     result()
    1
    """
    if alone:
        yield lambda: function(item)
        return
    pool = ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=_serve_quietly)
    future = pool.submit(function, item)

    def result() -> Result:
        try:
            return future.result()
        except DataError as error:
            raise _anew(error) from None

    try:
        yield result
    except BaseException:  # nobody asks for the result any more
        for process in list((pool._processes or {}).values()):
            process.kill()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


Beat = Callable[[float, int], None]
"""By it a job tells how far it is, from 0 to 1, and how many units of work (pictures, say) that were."""

BEAT_SECONDS = 0.25  # beats that follow each other faster are not sent
GIBIBYTE = 1024**3


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
        memory_bytes: an item that needs more memory than this is given up; None: there is no bound.
    """

    def __init__(
        self,
        function: Callable[[Item, Beat], Result],
        workers: int,
        stall_seconds: float,
        memory_bytes: int | None = None,
    ) -> None:
        if workers < 1:
            raise ValueError(f"workers must be at least 1, not {workers}")
        self._function, self._stall_seconds = function, stall_seconds
        self._memory_bytes = memory_bytes
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
                    worker = worker or _Worker(self._function, self._memory_bytes)
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


class OnCall(Generic[Item, Result]):
    """Processes that work on single items, called from any thread; what happens to an item is an error of its call.

    Processes are started when they are first needed, and stay; `close` ends them.

    Args:
        function: called with an item and a `Beat`; it, items and results are pickled.
        workers: ≥ 1; a call waits until one is free.
        seconds: an item is given up after so long.
        memory_bytes: an item that needs more memory than this is given up.
    """

    def __init__(
        self, function: Callable[[Item, Beat], Result], workers: int, seconds: float, memory_bytes: int
    ) -> None:
        if workers < 1:
            raise ValueError(f"workers must be at least 1, not {workers}")
        self._function, self._seconds, self._memory_bytes = function, seconds, memory_bytes
        self._idle: LifoQueue[_Worker | None] = LifoQueue()  # None: a place whose process is not started
        self._workers = workers
        for _ in range(workers):
            self._idle.put(None)

    def call(self, item: Item) -> Result:
        """The result for one item.

        Raises:
            DcimlError: as `function` raised it; a DataError where its process died or took too long.
        """
        worker = self._idle.get()
        try:
            if worker is None or not worker.is_alive:
                worker = _Worker(self._function, self._memory_bytes)
            outcome = self._outcome_of(worker, item)
        finally:
            self._idle.put(None if worker is None or worker.ended or worker.busy else worker)
        if outcome.error is not None:
            raise outcome.error
        return cast(Result, outcome.result)

    def _outcome_of(self, worker: _Worker, item: Item) -> Outcome[Any, Any]:
        worker.give(item)
        end = monotonic() + self._seconds
        while True:
            if wait([worker.pipe], timeout=max(end - monotonic(), 0.0)):
                outcome = worker.receive(None)
            else:
                outcome = worker.give_up(f"it took longer than {self._seconds:g} s")
            if outcome is not None:
                return outcome

    def close(self) -> None:
        """End the processes; no call may be going on."""
        for _ in range(self._workers):
            worker = self._idle.get()
            if worker is not None:
                worker.end()
            self._idle.put(None)


def share_of_memory(workers: int) -> int:
    """How much memory each of some processes may take: half of this machine's in all, at least 3 GiB each."""
    try:
        whole = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        whole = 0
    return max(3 * GIBIBYTE, whole // (2 * workers))


_limited = False  # whether this process is one that `limit_memory` was called in


def limit_memory(num_bytes: int) -> None:
    """Let this process take only so much more memory than it has, for good; what asks for more: MemoryError.

    What it has by then are libraries and their threads, which are many where there are many cores.
    """
    import resource

    global _limited
    _limited = True
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limit = num_bytes + (_bytes_taken() or 0)
    limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
    # Data, not addresses: drivers of GPUs reserve far more of these than they will ever use.
    resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))


@contextmanager
def little_memory(num_bytes: int) -> Iterator[None]:
    """Let what is done meanwhile take only so much more; without effect outside of processes that are limited."""
    taken = _bytes_taken() if _limited else None
    if taken is None:
        yield
        return
    import resource

    limit, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (min(limit, taken + num_bytes), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))


def _bytes_taken() -> int | None:
    """What counts for the limit, as far as the system tells."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return None
    return next(
        (1024 * int(line.split()[1]) for line in status.splitlines() if line.startswith("VmData:")), None
    )


class _Worker:
    """The parent's side of one process."""

    def __init__(self, function: Callable[[Any, Beat], Any], memory_bytes: int | None) -> None:
        context = get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, function, memory_bytes), daemon=True)
        self._process.start()
        theirs.close()
        self._item: Any = None
        self._heard = monotonic()
        self.busy = self.ended = False

    @property
    def is_alive(self) -> bool:
        """Whether the process is there; while it was idle, the system may have ended it."""
        return not self.ended and self._process.is_alive()

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
        return self.give_up(f"no progress for {stall_seconds:g} s")

    def give_up(self, why: str) -> Outcome[Any, Any]:
        """End the process at its work: the outcome."""
        return self._lost(f"{why}, so it was given up")

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


def _attempt(
    function: Callable[[Item, Beat], Result], item: Item, beat: Beat, memory_bytes: int | None
) -> tuple[Any, ...]:
    """Call `function`: ("done", result), ("failed", what, where, mend) or ("fatal", type, message)."""
    try:
        return ("done", function(item, beat))
    except DataError as error:
        return ("failed", error.what, error.where, error.mend)
    except DcimlError as error:
        return ("fatal", type(error), str(error))
    except MemoryError:
        bound = f" than {memory_bytes / GIBIBYTE:.1f} GiB" if memory_bytes else " than there is"
        return ("failed", f"it needs more memory{bound}", None, "convert the file, or leave it out")
    except Exception as error:
        what = f"an unforeseen error ({type(error).__name__}: {error})"
        return ("failed", what, None, "leave the file out, and report this")


def end_with_parent() -> None:
    """Let this process end at once when the one that started it is gone, killed or not."""

    def watch(sentinel: int) -> None:
        wait([sentinel])
        os._exit(1)

    parent = parent_process()
    if parent is not None:
        Thread(target=watch, args=(parent.sentinel,), daemon=True, name="parent").start()


def _serve_quietly() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    end_with_parent()


def _serve(pipe: Connection, function: Callable[[Any, Beat], Any], memory_bytes: int | None) -> None:
    """What a process does: work on what comes until the other side is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    end_with_parent()
    if memory_bytes is not None:
        limit_memory(memory_bytes)
    told = 0.0

    def beat(fraction: float, units: int) -> None:
        nonlocal told
        if monotonic() - told >= BEAT_SECONDS:
            told = monotonic()
            pipe.send(("beat", fraction, units))

    try:
        while True:
            pipe.send(_attempt(function, pipe.recv(), beat, memory_bytes))
    except (EOFError, OSError):
        return
