"""Copies of videos for browsers that cannot play the files themselves: made on demand, kept within a bound."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from dciml.errors import DataError
from dciml.files import atomic_path, remove_leftovers
from dciml.processes import GIBIBYTE, OnCall
from dciml.service.convert import ConvertOrder
from dciml.service.guarded import run_guarded
from dciml.service.jobs import ENDED, Job, JobFailed, JobQueue
from dciml.service.settings import Limits
from dciml.service.streams import Streams, streams_of

KEPT_JOBS, KEPT_LOOKS = 64, 256
LOOKING_SECONDS, LOOKING_BYTES = 20.0, GIBIBYTE


class Copies:
    """Converted copies in a folder; when they grow over a bound, the longest unused go first. Thread-safe.

    A copy belongs to a file in one state: a file that changes gets a new one.

    Args:
        folder: of the copies; made when there is one.
        limits: bounds on how long one may take, on its size and on that of all.
        prepare: called before a copy is made; what it raises is raised.
    """

    def __init__(self, folder: Path, limits: Limits, prepare: Callable[[], None] = lambda: None) -> None:
        self.folder, self._limits, self._prepare = folder, limits, prepare
        self._jobs = JobQueue(limits.queued_copies, KEPT_JOBS, what="videos to convert", done="can be played")
        self._lock = threading.Lock()
        self._made: dict[str, Job] = {}  # by the name of the copy
        self._looker = OnCall(streams_of, 1, LOOKING_SECONDS, LOOKING_BYTES)
        self._looked: dict[str, Streams | DataError] = {}
        self._swept = False

    def close(self) -> None:
        """End what is converted; nothing half done stays. Nothing may be asked for any more."""
        self._jobs.close()
        self._looker.close()

    def find(self, media: Path) -> Path | None:
        """The copy of a file, if there is one; it counts as used now. Raises OSError: the file is gone."""
        copy = self.folder / _name_of(media)
        if not copy.is_file() or copy.is_symlink():
            return None
        with suppress(OSError):  # the time of change stays: it is part of the copy's ETag
            os.utime(copy, ns=(time.time_ns(), copy.stat().st_mtime_ns))
        return copy

    def job(self, media: Path) -> Job | None:
        """The conversion of a file that is going on, or was the last one. Raises OSError: the file is gone."""
        return self._made.get(_name_of(media))

    def make(self, media: Path) -> Job | None:
        """Begin to convert a file, or join who did before; None: the copy is there.

        Raises:
            Busy: too many wait. OSError: the file is gone. What `prepare` raises.
        """
        name = _name_of(media)
        with self._lock:
            if self.find(media) is not None:
                return None
            running = self._made.get(name)
            if running is not None and running.state not in ENDED:
                return running
            self._prepare()
            job = Job(title=media.name)
            self._jobs.submit(job, lambda job: self._convert(job, media, self.folder / name))
            for ended in [key for key, kept in self._made.items() if kept.state in ENDED][:-KEPT_JOBS]:
                del self._made[ended]
            self._made[name] = job
            return job

    def streams(self, media: Path) -> Streams:
        """What a file holds; it is opened in a process of its own. Raises DataError: it cannot be opened."""
        name = _name_of(media)
        if name not in self._looked:
            try:
                found: Streams | DataError = self._looker.call(media)
            except DataError as error:
                found = error
            if len(self._looked) >= KEPT_LOOKS:
                self._looked.clear()
            self._looked[name] = found
        found = self._looked[name]
        if isinstance(found, DataError):
            raise found
        return found

    def forget(self, media: Path) -> None:
        """Remove the copies of a file, in whatever state it was."""
        prefix = _prefix_of(media)
        with self._lock:
            for name, job in list(self._made.items()):
                if name.startswith(prefix):
                    self._jobs.cancel(job.job_id)
        with suppress(OSError):
            for copy in self.folder.glob(f"{prefix}*.mp4"):
                copy.unlink(missing_ok=True)

    def _convert(self, job: Job, media: Path, out: Path) -> None:
        limits = self._limits

        def on_progress(share: float) -> None:
            job.progress = share

        job.message = "being converted"
        if not self._swept:
            remove_leftovers(out.parent)  # of servers that were killed
            self._swept = True
        with atomic_path(out) as temporary:
            order = ConvertOrder(str(media), str(temporary), limits.copy_bytes).to_json()
            seconds, ended_by = limits.copy_seconds, self._jobs.ended_by
            fault = run_guarded("dciml.service.convert", order, seconds, ended_by, on_progress)
            if fault is not None:
                raise JobFailed(fault)
        self._shrink(out)

    def _shrink(self, newest: Path) -> None:
        """Remove the longest unused until all are within the bound; never the newest."""
        kept = []
        for copy in newest.parent.glob("*.mp4"):
            with suppress(OSError):
                status = copy.stat()
                kept.append((status.st_atime, status.st_size, copy))
        total = sum(size for _, size, _ in kept)
        for _, size, copy in sorted(kept, key=lambda entry: entry[0]):
            if total <= self._limits.copies_bytes:
                return
            if copy == newest:
                continue
            with suppress(OSError):
                copy.unlink(missing_ok=True)
                total -= size


def _prefix_of(media: Path) -> str:
    return hashlib.sha256(str(media).encode(errors="surrogateescape")).hexdigest()[:32] + "-"


def _name_of(media: Path) -> str:
    """The name of the copy of a file as it is now. Raises OSError: it is gone."""
    status = media.stat()
    state = hashlib.sha256(f"{status.st_mtime_ns} {status.st_size}".encode()).hexdigest()[:16]
    return f"{_prefix_of(media)}{state}.mp4"
