"""Adding a video to the index that is being served, and taking one out."""

from __future__ import annotations

import json
import logging
import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from dciml.build import Model
from dciml.errors import DataError, DcimlError
from dciml.files import sync_folder
from dciml.index import ClipIndex
from dciml.locks import take
from dciml.recipes.index import add_videos
from dciml.search.long_videos import WindowedIds
from dciml.service.added_folder import END_THE_OTHER, SERVING_LOCK, AddedFolder
from dciml.service.encode import Order
from dciml.service.errors import ServiceError
from dciml.service.jobs import Job, JobFailed, JobQueue
from dciml.service.live import LiveCorpus, Snapshot
from dciml.service.sentences import sentence_of
from dciml.service.settings import ServiceSettings
from dciml.service.troubles import LOCKED, trouble_of
from dciml.service.uploads import check_looks_like_video, find_below_roots, free_id, split_name

_log = logging.getLogger("dciml.service")
SHARE_OF_ENCODING = 0.95


@dataclass(frozen=True)
class _NewVideo:
    """A video on its way: the file to read, and where it lies in the end; the same when it stays where it is."""

    video_id: str
    file: Path
    final: Path


class Library:
    """The videos that clients added; their files and features lie in an `AddedFolder`.

    Raises:
        DataError: another server changes this index, or the folder for added videos is somebody else's.
        ConfigError: that folder is a link that nobody named.
    """

    def __init__(self, settings: ServiceSettings, corpus: LiveCorpus, jobs: JobQueue) -> None:
        self.settings, self.corpus, self.jobs = settings, corpus, jobs
        self._lock = threading.Lock()
        self._locks = ExitStack()
        if settings.is_writable:
            with self._locks:
                serving = take(settings.index, "serving", name=SERVING_LOCK, mend=END_THE_OTHER)
                self._locks.callback(serving.close)
                self.added = AddedFolder(settings.added_folder, is_named=settings.added is not None)
                self._locks.callback(self.added.close)
                self._locks = self._locks.pop_all()  # it went well: they stay until `close`

    def close(self) -> None:
        """Let another server change this index."""
        self._locks.close()

    def add_upload(self, file_name: str, content: BinaryIO, client: str = "") -> Job:
        """Take an uploaded file and start the job that adds it.

        Raises:
            ServiceError: the name is not that of a video (422), too many jobs (503).
            OSError: no room on the disk, or it may not be written.
        """
        stem, suffix = split_name(file_name)
        job = Job(client=client)
        try:
            file = self.added.receive(content, f"{job.job_id}{suffix}")
        except DataError as error:  # another server has the folder
            if trouble_of(error) not in (None, LOCKED):
                raise
            raise ServiceError(409, sentence_of(error)) from error
        try:
            with self._lock:
                job.video_id = free_id(stem, self._taken() | self._kept_names())
                new = _NewVideo(job.video_id, file, self.added.videos / f"{job.video_id}{suffix}")
                self.jobs.submit(job, lambda job: self._add(job, new))
        except BaseException:
            with suppress(OSError):
                file.unlink(missing_ok=True)
            raise
        return job

    def add_path(self, path: str, client: str = "") -> Job:
        """Start the job that adds a file below an allowed root; the file stays where it is.

        Raises:
            ServiceError: see `find_below_roots`; 409, the video is in the index; 503.
        """
        file, wanted = find_below_roots(path, self.settings.allow_roots)
        with self._lock:
            if wanted in self._taken():
                raise ServiceError(409, "This video is in the index already, or on its way into it.")
            job, new = Job(wanted, client=client), _NewVideo(wanted, file, file)
            self.jobs.submit(job, lambda job: self._add(job, new))
        return job

    def remove(self, video_id: str) -> None:
        """Take a video out; its file is deleted only if it was uploaded.

        Raises:
            UnknownVideo: 404; ServiceError: 409, another process is changing the index.
        """
        media: list[str | None] = []

        def work(now: Snapshot, index: ClipIndex, _: Model) -> None:
            media.append(now.video(video_id).media_path)
            index.remove(now.parts(video_id))

        try:
            self.corpus.change(work)
        except DataError as error:  # another process is changing the index
            if trouble_of(error) not in (None, LOCKED):
                raise
            raise ServiceError(409, sentence_of(error)) from error
        path = Path(media[0]) if media[0] else None
        if path is not None and path.parent == self.added.videos.resolve():
            try:
                path.unlink(missing_ok=True)
            except OSError as error:  # the video is out of the index all the same
                _log.warning("the file of a removed video could not be deleted: %s", error)

    def _taken(self) -> set[object]:
        """Ids of videos that are in the index or on their way; what was taken out of it may come again."""
        self.corpus.refresh()
        return {*self.corpus.now.video_ids, *self.jobs.pending_ids()}

    def _kept_names(self) -> set[object]:
        """Names of files here, though the index may not hold them: nothing is written over."""
        return {file.stem for file in self.added.videos.iterdir()} if self.added.videos.is_dir() else set()

    def _add(self, job: Job, new: _NewVideo) -> None:
        is_upload, is_placed = new.file != new.final, False
        try:
            check_looks_like_video(new.file)
            job.message = "reading the video"
            self._encode(job, new)
            job.message = "adding it to the index"
            if is_upload:
                self._place(new)
                is_placed = True
                sync_folder(new.final.parent)
            self.corpus.change(self._entering(new))
        except BaseException:
            with suppress(OSError):
                if is_placed and not self._is_entered(new.video_id):
                    new.final.unlink(missing_ok=True)
            raise
        finally:
            with suppress(OSError):
                if is_upload:
                    new.file.unlink(missing_ok=True)

    def _place(self, new: _NewVideo) -> None:
        try:
            self.added.place(new.file, new.final)
        except FileExistsError:
            raise JobFailed("Meanwhile a file of this name has come to lie there.") from None

    def _entering(self, new: _NewVideo) -> Callable[[Snapshot, ClipIndex, Model], None]:
        def work(_: Snapshot, index: ClipIndex, model: Model) -> None:
            if not add_videos(index, model, self.added.store, only=[new.video_id]):
                raise JobFailed("Meanwhile a video of this name has been added to the index.")

        return work

    def _is_entered(self, video_id: str) -> bool:
        """Does the index hold a video, though its job did not end well? Yes, too, where that cannot be told."""
        try:
            index = ClipIndex.open(self.settings.index, store=self.settings.vector_store)
        except (DcimlError, sqlite3.Error, OSError):
            return True
        return video_id in WindowedIds(index.video_ids).whole_videos

    def _encode(self, job: Job, new: _NewVideo) -> None:
        """Run the encoding process. Raises JobFailed: with what it says is wrong; JobCancelled."""
        settings = self.settings
        order = Order(
            file=str(new.file),
            video_id=new.video_id,
            store=str(self.added.store),
            source=str(new.final.absolute()),
            like=str(settings.features or self.corpus.now.index.store_path()),
            encoders=list(settings.encoders),
            device=settings.device,
        )
        command = [sys.executable, "-m", "dciml.service.encode"]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        with (
            subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
            ) as process,
            self.jobs.ended_by(process.kill),
            _killed_after(process, self.settings.limits.job_seconds),
        ):
            last = _follow(process, order, job)
        if not last.get("done"):
            raise JobFailed(last.get("error", "The video could not be read, or it took too long."))


def _follow(process: subprocess.Popen[bytes], order: Order, job: Job) -> dict[str, Any]:
    """Give the order and take what is said, to the last word."""
    assert process.stdin is not None
    assert process.stdout is not None
    last: dict[str, Any] = {}
    with suppress(BrokenPipeError):  # it ended before it read the order; then its last word is missing
        process.stdin.write(order.to_json().encode())
        process.stdin.close()
    for line in process.stdout:
        last = json.loads(line)
        job.progress = SHARE_OF_ENCODING * float(last.get("progress", job.progress / SHARE_OF_ENCODING))
    return last


@contextmanager
def _killed_after(process: subprocess.Popen[bytes], seconds: float) -> Iterator[None]:
    timer = threading.Timer(seconds, process.kill)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
