"""Sentences that people write for moments while a home is served, and the job that teaches the home from them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

from dciml.recipes import teach
from dciml.recipes.home import Home
from dciml.recipes.teach import Collected, Verdict
from dciml.recipes.told import Told, read_told, take_back, tell
from dciml.service.errors import ServiceError
from dciml.service.jobs import ENDED, Job, JobFailed, JobQueue
from dciml.service.live import LiveCorpus
from dciml.service.settings import ServiceSettings
from dciml.service.teach_worker import TeachOrder

NO_HOME = (
    "This server serves an index by itself, and sentences for moments are kept in the home of a folder. To mend it: "
    "whoever runs the server can start it with `dciml serve FOLDER`."
)
ENDED_EARLY = "Teaching broke off, or took too long; nothing was changed. The server's log has the details."


class Teaching:
    """What was told of the moments of a home, and what it learns from that. Several threads may use it."""

    def __init__(self, settings: ServiceSettings, corpus: LiveCorpus, jobs: JobQueue) -> None:
        self._settings, self._corpus, self._jobs = settings, corpus, jobs
        self._lock = threading.Lock()
        self._last: Job | None = None

    @property
    def last_job(self) -> Job | None:
        """The last job of teaching since this server began."""
        return self._last

    @property
    def home(self) -> Home | None:
        """The home that is served; None: an index by itself is."""
        return self._settings.home

    def read(self) -> list[Told]:
        """All that was told, newest first; nothing without a home. Raises DataError: it is damaged."""
        return [] if self.home is None else read_told(self.home.path)[::-1]

    def collected(self) -> Collected:
        """What of it can be learned from. Raises DataError: it is damaged."""
        if self.home is None:
            return Collected((), ())
        return teach.collected(self.home, self._corpus.now.video_ids)

    def report(self) -> Verdict | None:
        """How the taught model that is in use did; None: none is."""
        found = None if self.home is None else teach.report_of(self.home)
        with suppress(TypeError, KeyError, ValueError, IndexError):
            return None if found is None else Verdict.from_json(found)
        return None

    def tell(self, video_id: str, start_seconds: float, end_seconds: float, sentence: str) -> Told:
        """Keep a sentence for a moment.

        Raises:
            UnknownVideo: 404. DataError: the sentence or the moment cannot be, or there is no room for more.
        """
        duration = self._corpus.now.duration_seconds(video_id)
        with self._lock:
            return tell(self._own.path, video_id, start_seconds, end_seconds, sentence, duration)

    def take_back(self, told_id: str) -> None:
        """Forget what was told. Raises ServiceError: 404, nothing of this id is kept."""
        with self._lock:
            if take_back(self._own.path, told_id) is None:
                raise ServiceError(404, "Nothing of this id is kept; it may have been taken back already.")

    def start(self, client: str = "") -> Job:
        """Start the job that teaches.

        Raises:
            DataError: there is too little to learn from. ServiceError: 409, it runs already; 503, too many jobs.
        """
        self.collected().check()
        return self._submit(self._teach, client)

    def start_undo(self, client: str = "") -> Job:
        """Start the job that goes back to the untrained model. Raises ServiceError: 409, none is taught; as `start`."""
        if self._own.taught is None:
            raise ServiceError(409, "No taught model is in use.")
        return self._submit(self._undo, client)

    @property
    def _own(self) -> Home:
        if self.home is None:
            raise ServiceError(403, NO_HOME)
        return self.home

    def _submit(self, work: Any, client: str) -> Job:
        with self._lock:
            if self._last is not None and self._last.state not in ENDED:
                raise ServiceError(409, "Teaching is under way already.")
            job = Job(kind="teach", client=client)
            self._jobs.submit(job, work)
            self._last = job
        return job

    def _teach(self, job: Job) -> str:
        home = self._own
        with teach.teaching(home) as folder:
            verdict = self._attempt(job, home, folder)
            if verdict.is_better:
                job.message = "indexing the videos"
                self._corpus.exchange(lambda: _adopt(home, folder, verdict))
        return verdict.sentence

    def _undo(self, job: Job) -> str:
        home = self._own
        job.message = "indexing the videos"
        with teach.teaching(home):
            self._corpus.exchange(lambda: _go_back(home))
        return "The untrained model is in use again. What was told is kept."

    def _attempt(self, job: Job, home: Home, folder: Path) -> Verdict:
        """Train and compare in a process of its own, which can be ended at any moment.

        Raises:
            JobFailed: with what it says is wrong. JobCancelled: the server ends.
        """
        order = TeachOrder(str(home.path), str(folder), home.device)
        command = [sys.executable, "-m", "dciml.service.teach_worker"]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        with (
            subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
            ) as process,
            self._jobs.ended_by(process.kill),
        ):
            timer = threading.Timer(self._settings.limits.job_seconds, process.kill)
            timer.daemon = True
            timer.start()
            try:
                last = _follow(process, order, job)
            finally:
                timer.cancel()
        if "verdict" not in last:
            raise JobFailed(last.get("error", ENDED_EARLY))
        return Verdict.from_json(last["verdict"])


def _adopt(home: Home, folder: Path, verdict: Verdict) -> None:
    teach.adopt(home, folder, verdict)


def _go_back(home: Home) -> None:
    teach.go_back(home)


def _follow(process: subprocess.Popen[bytes], order: TeachOrder, job: Job) -> dict[str, Any]:
    """Give the order and take what is said, to the last word."""
    assert process.stdin is not None
    assert process.stdout is not None
    last: dict[str, Any] = {}
    with suppress(BrokenPipeError):  # it ended before it read the order; then its last word is missing
        process.stdin.write(order.to_json().encode())
        process.stdin.close()
    for line in process.stdout:
        last = json.loads(line)
        if "doing" in last:
            job.progress, job.message = float(last["progress"]), str(last["doing"])
    return last
