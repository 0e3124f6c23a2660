"""Work that outlives its request, one job at a time; and questions that are answered together."""

from __future__ import annotations

import logging
import secrets
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import monotonic
from typing import Generic, Literal, TypeVar

from dciml.errors import DcimlError
from dciml.service.errors import Busy
from dciml.service.troubles import MISTAKE, sentence_of, trouble_of

State = Literal["queued", "running", "done", "failed", "cancelled"]
Kind = Literal["video", "teach"]
ENDED: tuple[State, ...] = ("done", "failed", "cancelled")
LEAST_PROGRESS = 0.05
CANCELLED = "was cancelled"
FULL_SECONDS = 15  # after which there may be room again
_log = logging.getLogger("dciml.service")


class JobCancelled(Exception):
    """Somebody cancelled the job, or the server ends; it leaves nothing half done."""


class JobFailed(Exception):
    """The job cannot be done; the text is a plain sentence for the client."""


@dataclass
class Job:
    """A piece of work as clients see it; changed by its worker only.

    Attributes:
        kind: a video is added, or a model taught.
        begun: when its turn came (`monotonic`); None: not yet.
        dropped: called when it is cancelled before its turn.
    """

    video_id: str | None = None
    kind: Kind = "video"
    job_id: str = field(default_factory=lambda: secrets.token_urlsafe(12))
    state: State = "queued"
    progress: float = 0.0
    message: str = "waits for its turn"
    client: str = ""
    title: str | None = None
    begun: float | None = None
    is_cancelled: bool = False
    dropped: Callable[[], None] | None = None

    @property
    def seconds_left(self) -> float | None:
        """A guess by how long it took so far; None: it does not run, or too little of it is done."""
        if self.state != "running" or self.begun is None or self.progress < LEAST_PROGRESS:
            return None
        return (monotonic() - self.begun) * (1 - self.progress) / self.progress


class JobQueue:
    """Runs jobs one after another in a thread of its own.

    Args:
        max_queued: how many may wait; more are refused.
        max_kept: how many are remembered once they have ended.
        max_of_client: of those that wait, how many may be one client's; None: all.
        what: the work, in the plural, where there is no room for more.
        done: what a job that ended well says.
    """

    def __init__(
        self,
        max_queued: int,
        max_kept: int,
        max_of_client: int | None = None,
        *,
        what: str = "videos to add",
        done: str = "can be found now",
    ) -> None:
        self._what, self._done = what, done
        self._max_queued, self._max_kept = max_queued, max_kept
        self._max_of_client = max_queued if max_of_client is None else max_of_client
        self._jobs: dict[str, Job] = {}
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(1, "job")
        self._stopping = threading.Event()
        self._end: Callable[[], None] | None = None
        self._running: Job | None = None

    def submit(self, job: Job, work: Callable[[Job], str | None]) -> None:
        """Let `work` run when its turn comes; what it returns or raises becomes the job's message. Raises Busy."""
        with self._lock:
            if self._room(job.client) < 1:
                raise Busy(self._what, retry_after_seconds=FULL_SECONDS)
            ended = [job_id for job_id, j in self._jobs.items() if j.state in ENDED]
            for job_id in ended[: max(0, len(ended) - self._max_kept + 1)]:
                del self._jobs[job_id]
            self._jobs[job.job_id] = job
        self._pool.submit(self._run, job, work)

    def check_room(self, client: str, coming: int = 0, coming_of_client: int = 0) -> None:
        """Raises Busy: a job of this client could not wait now, beside so many that are on their way."""
        if self.room(client, coming, coming_of_client) < 1:
            raise Busy(self._what, retry_after_seconds=FULL_SECONDS)

    def room(self, client: str, coming: int = 0, coming_of_client: int = 0) -> int:
        """How many more jobs of a client could wait now, beside so many that are on their way."""
        with self._lock:
            return max(0, self._room(client, coming, coming_of_client))

    def _room(self, client: str, coming: int = 0, coming_of_client: int = 0) -> int:
        if self._stopping.is_set():
            return 0
        queued = [job.client for job in self._jobs.values() if job.state == "queued"]
        own = queued.count(client) + coming_of_client if client else 0
        return min(self._max_queued - len(queued) - coming, self._max_of_client - own)

    def cancel(self, job_id: str) -> bool:
        """End a job, at once where it waits. Returns: whether it had not ended yet."""
        with self._lock:
            job = self._jobs.get(job_id)
            if job is None or job.state in ENDED:
                return False
            job.is_cancelled = True
            if job.state == "queued":
                job.message, job.state = CANCELLED, "cancelled"
                if job.dropped is not None:
                    job.dropped()
            elif self._running is job and self._end is not None:
                self._end()
            return True

    def get(self, job_id: str) -> Job | None:
        """A job by its id; None: unknown, or forgotten."""
        return self._jobs.get(job_id)

    def all(self) -> list[Job]:
        """All that are remembered, newest first."""
        with self._lock:
            return list(self._jobs.values())[::-1]

    def pending_ids(self) -> set[str]:
        """Ids of the videos that are being added."""
        return {job.video_id for job in self.all() if job.state not in ENDED and job.video_id}

    def close(self) -> None:
        """Cancel what waits, end what runs, and wait for it."""
        with self._lock:
            self._stopping.set()
            if self._end is not None:
                self._end()
        self._pool.shutdown(wait=True)

    @contextmanager
    def ended_by(self, end: Callable[[], None]) -> Iterator[None]:
        """While a job does this, `close` and `cancel` call `end`. Raises JobCancelled after they did."""
        with self._lock:
            job = self._running
            if self._stopping.is_set() or (job is not None and job.is_cancelled):
                end()
            self._end = end
        try:
            yield
        finally:
            with self._lock:
                self._end = None
        if self._stopping.is_set() or (job is not None and job.is_cancelled):
            raise JobCancelled

    def _run(self, job: Job, work: Callable[[Job], str | None]) -> None:
        with self._lock:
            if job.state in ENDED:  # cancelled before its turn
                return
            self._running, job.begun = job, monotonic()
            job.message, job.state = "starts", "running"
        try:
            if self._stopping.is_set():
                raise JobCancelled
            said = work(job)
            job.progress, job.message, job.state = 1.0, said or self._done, "done"
        except JobCancelled:
            job.message = CANCELLED if job.is_cancelled else "the server ended before it was done"
            job.state = "cancelled"
        except JobFailed as error:
            job.message, job.state = str(error), "failed"
        except DcimlError as error:
            _log.warning("job %s failed: %s", job.job_id, error)
            trouble = trouble_of(error)
            job.message, job.state = trouble.sentence if trouble else sentence_of(error), "failed"
        except Exception as error:
            trouble = trouble_of(error)
            _log.error("job %s failed: %s", job.job_id, error, exc_info=None if trouble else error)
            job.message, job.state = trouble.sentence if trouble else MISTAKE, "failed"
        finally:
            with self._lock:
                self._running = None


Key = TypeVar("Key")
Question = TypeVar("Question")
Reply = TypeVar("Reply")


@dataclass(frozen=True)
class _Waiting(Generic[Key, Question, Reply]):
    key: Key
    question: Question
    reply: Future[Reply]


class Together(Generic[Key, Question, Reply]):
    """A line before a thread pool, whose first places are taken as one batch when they ask for the same.

    A batch takes less processor time than its questions one by one. No question waits until a batch is full, and none
    is overtaken: a thread that is free takes the first question, and with it those right behind it that have its key.

    Args:
        pool: does the work; what else it does keeps its turn.
        answer: gives the replies to questions of one key.
        most: questions in a batch.
    """

    def __init__(
        self, pool: ThreadPoolExecutor, answer: Callable[[Key, Sequence[Question]], list[Reply]], most: int
    ) -> None:
        self._pool, self._answer, self._most = pool, answer, most
        self._line: deque[_Waiting[Key, Question, Reply]] = deque()
        self._lock = threading.Lock()

    def submit(self, key: Key, question: Question) -> Future[Reply]:
        """Stand in line; a future that is cancelled before its turn is passed over."""
        waiting = _Waiting(key, question, Future[Reply]())
        with self._lock:
            self._line.append(waiting)
        self._pool.submit(self._take_turn, waiting)
        return waiting.reply

    def close(self) -> None:
        """Cancel what still waits; for after the pool has been shut down."""
        with self._lock:
            for waiting in self._line:
                waiting.reply.cancel()
            self._line.clear()

    def _take_turn(self, own: _Waiting[Key, Question, Reply]) -> None:
        """The turn of a question, with nothing left to do where an earlier turn has taken it along."""
        taken: list[_Waiting[Key, Question, Reply]] = []
        with self._lock:
            if own.reply.running() or own.reply.done():
                return
            while self._line and len(taken) < self._most:
                if taken and self._line[0].key != taken[0].key:
                    break
                waiting = self._line.popleft()
                if waiting.reply.set_running_or_notify_cancel():
                    taken.append(waiting)
        if taken:
            self._reply(taken)

    def _reply(self, taken: Sequence[_Waiting[Key, Question, Reply]]) -> None:
        try:
            replies = self._answer(taken[0].key, [waiting.question for waiting in taken])
        except Exception as error:
            if len(taken) == 1:
                taken[0].reply.set_exception(error)
                return
            for waiting in taken:  # one that cannot be answered must not take the others with it
                self._reply([waiting])
        else:
            for waiting, reply in zip(taken, replies, strict=True):
                waiting.reply.set_result(reply)
