"""Adding a video to the index that is being served, and taking one out."""

from __future__ import annotations

import json
import logging
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from dciml.build import Model
from dciml.errors import ConfigError, DataError, DcimlError
from dciml.files import sync_folder
from dciml.index import ClipIndex
from dciml.recipes.index import add_videos
from dciml.search.long_videos import WindowedIds
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
PIECE = 1024 * 1024


@dataclass(frozen=True)
class _NewVideo:
    """A video on its way: the file to read, and where it lies in the end; the same when it stays where it is."""

    video_id: str
    file: Path
    final: Path


class Library:
    """The videos that clients added: files and features in a folder of the service's own.

    ADDED/videos/      uploaded files      ADDED/features/   the feature store of all that was added
    ADDED/incoming/    uploads whose job is not done; emptied at every start
    """

    def __init__(self, settings: ServiceSettings, corpus: LiveCorpus, jobs: JobQueue) -> None:
        self.settings, self.corpus, self.jobs = settings, corpus, jobs
        self.videos, self.incoming = settings.added_folder / "videos", settings.added_folder / "incoming"
        self.store = settings.added_folder / "features"
        self._lock = threading.Lock()
        if settings.is_writable:
            self._check_no_links()
            shutil.rmtree(self.incoming, ignore_errors=True)

    def _check_no_links(self) -> None:
        """Raises ConfigError: one of the folders is a link, which may have come with the index."""
        named = () if self.settings.added is not None else (self.settings.added_folder,)
        for folder in (*named, self.videos, self.incoming, self.store):
            if folder.is_symlink():
                raise ConfigError(
                    f"{folder} is a link, through which files would be written elsewhere. To mend it: remove the link, "
                    "or say with --added where added videos are to be kept."
                )

    def add_upload(self, file_name: str, content: BinaryIO, client: str = "") -> Job:
        """Take an uploaded file and start the job that adds it.

        Raises:
            ServiceError: the name is not that of a video (422), too many jobs (503).
            OSError: no room on the disk, or it may not be written.
        """
        stem, suffix = split_name(file_name)
        job = Job(client=client)
        file = self.incoming / f"{job.job_id}{suffix}"
        try:
            self.incoming.mkdir(parents=True, exist_ok=True)
            with file.open("xb") as kept:
                shutil.copyfileobj(content, kept, PIECE)
                kept.flush()
                os.fsync(kept.fileno())  # what the index names must be on disk before it does
            with self._lock:
                job.video_id = free_id(stem, self._taken() | self._kept_names())
                new = _NewVideo(job.video_id, file, self.videos / f"{job.video_id}{suffix}")
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
        if path is not None and path.parent == self.videos.resolve():
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
        return {file.stem for file in self.videos.iterdir()} if self.videos.is_dir() else set()

    def _add(self, job: Job, new: _NewVideo) -> None:
        is_upload, is_placed = new.file != new.final, False
        try:
            check_looks_like_video(new.file)
            job.message = "reading the video"
            self._encode(job, new)
            job.message = "adding it to the index"
            if is_upload:
                new.final.parent.mkdir(parents=True, exist_ok=True)
                new.file.replace(new.final)
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

    def _entering(self, new: _NewVideo) -> Callable[[Snapshot, ClipIndex, Model], None]:
        def work(_: Snapshot, index: ClipIndex, model: Model) -> None:
            if not add_videos(index, model, self.store, only=[new.video_id]):
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
            store=str(self.store),
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
