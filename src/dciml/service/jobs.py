"""Work that outlives its request: one job at a time, with progress, ended cleanly with the server."""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

from dciml.errors import DcimlError
from dciml.service.errors import Busy
from dciml.service.sentences import MISTAKE, sentence_of
from dciml.service.troubles import trouble_of

State = Literal["queued", "running", "done", "failed", "cancelled"]
ENDED: tuple[State, ...] = ("done", "failed", "cancelled")
_log = logging.getLogger("dciml.service")


class JobCancelled(Exception):
    """The server ends; the job leaves nothing half done."""


class JobFailed(Exception):
    """The job cannot be done; the text is a plain sentence for the client."""


@dataclass
class Job:
    """A piece of work as clients see it; changed by its worker only."""

    video_id: str | None = None
    job_id: str = field(default_factory=lambda: secrets.token_urlsafe(12))
    state: State = "queued"
    progress: float = 0.0
    message: str = "waits for its turn"
    client: str = ""


class JobQueue:
    """Runs jobs one after another in a thread of its own.

    Args:
        max_queued: how many may wait; more are refused.
        max_kept: how many are remembered once they have ended.
        max_of_client: of those that wait, how many may be one client's; None: all.
    """

    def __init__(self, max_queued: int, max_kept: int, max_of_client: int | None = None) -> None:
        self._max_queued, self._max_kept = max_queued, max_kept
        self._max_of_client = max_queued if max_of_client is None else max_of_client
        self._jobs: dict[str, Job] = {}
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(1, "job")
        self._stopping = threading.Event()
        self._end: Callable[[], None] | None = None

    def submit(self, job: Job, work: Callable[[Job], None]) -> None:
        """Let `work` run when its turn comes; what it raises becomes the job's message. Raises Busy."""
        with self._lock:
            self._check_room(job.client)
            ended = [job_id for job_id, j in self._jobs.items() if j.state in ENDED]
            for job_id in ended[: max(0, len(ended) - self._max_kept + 1)]:
                del self._jobs[job_id]
            self._jobs[job.job_id] = job
        self._pool.submit(self._run, job, work)

    def check_room(self, client: str) -> None:
        """Raises Busy: a job of this client could not wait now."""
        with self._lock:
            self._check_room(client)

    def _check_room(self, client: str) -> None:
        queued = [job.client for job in self._jobs.values() if job.state == "queued"]
        own = queued.count(client) if client else 0
        if self._stopping.is_set() or len(queued) >= self._max_queued or own >= self._max_of_client:
            raise Busy("videos to add", retry_after_seconds=30)

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
        """While a job does this, `close` calls `end`. Raises JobCancelled after it did."""
        with self._lock:
            if self._stopping.is_set():
                end()
            self._end = end
        try:
            yield
        finally:
            with self._lock:
                self._end = None
        if self._stopping.is_set():
            raise JobCancelled

    def _run(self, job: Job, work: Callable[[Job], None]) -> None:
        try:
            if self._stopping.is_set():
                raise JobCancelled
            job.state, job.message = "running", "starts"
            work(job)
            job.progress, job.message, job.state = 1.0, "can be found now", "done"
        except JobCancelled:
            job.message, job.state = "the server ended before it was done", "cancelled"
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
