"""Adding a video to the index that is being served, and taking one out; and the folder of what was added."""

from __future__ import annotations

import hashlib
import itertools
import logging
import os
import shutil
import sqlite3
import threading
import unicodedata
from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from dciml.errors import ConfigError, DataError, DcimlError
from dciml.features import whole_id
from dciml.files import remove_leftovers, sync_folder, write_json
from dciml.folders import refuse_foreign
from dciml.index import ClipIndex
from dciml.locks import Lock, take
from dciml.model_folder import Model
from dciml.recipes.home import SERVING_LOCK
from dciml.recipes.index import add_videos
from dciml.search import WindowedIds
from dciml.service.contents import CONTENTS_FILE, Content, Contents
from dciml.service.encode import EncodeOrder
from dciml.service.errors import ServiceError, shortened
from dciml.service.files import MEDIA_TYPES, find_media
from dciml.service.guarded import run_guarded
from dciml.service.jobs import ENDED, Job, JobCancelled, JobFailed, JobQueue
from dciml.service.live import LiveCorpus, Snapshot
from dciml.service.settings import ServiceSettings
from dciml.service.troubles import LOCKED, sentence_of, trouble_of

MAX_TITLE_CHARS = 300
UNTYPED = frozenset(
    ("Cc", "Cs", "Zl", "Zp")
)  # categories: controls, halves of surrogate pairs, line separators
MAX_NAME_CHARS = 100
MAX_NAME_BYTES = 180  # a file may have 255: the rest is for a number, the suffix, ends of temporary names
PUNCTUATION = frozenset(" .()+-_")
MEND = "add a video file, such as MP4, WebM, MKV or MOV"


def split_name(file_name: str) -> tuple[str, str]:
    """A safe stem and the suffix of a client's file name.

    Raises:
        ServiceError: 422, the suffix is not that of a video.

    >>> split_name("../../etc/Süßes <b>.MP4"), split_name("C:\\\\films\\\\a.b.webm"), split_name("..mp4")
    (('Süßes _b_', '.mp4'), ('a.b', '.webm'), ('video', '.mp4'))
    """
    name = _last_part(unicodedata.normalize("NFC", file_name))
    stem, suffix = os.path.splitext(name)
    if stem.startswith(".") and not suffix:
        stem, suffix = "", stem[stem.rfind(".") :]
    if suffix.lower() not in MEDIA_TYPES:
        raise ServiceError(
            422, f"{shortened(name, 80)!r} does not have the name of a video file. To mend it: {MEND}."
        )
    return _cut(_safe(stem).strip(" .")).strip(" .") or "video", suffix.lower()


def _last_part(file_name: str) -> str:
    """A name without folders. Forms escape the quote, in whatever program; what was typed so cannot be told from it."""
    return file_name.replace("\\", "/").rpartition("/")[2].replace("%22", '"')


def title_of(file_name: str, typed: str | None = None) -> str | None:
    """The title of an upload, every character as it was typed; None: there is none, and its id stands in.

    Args:
        file_name: of the file; without `typed`, its part before the suffix is the title.
    Raises:
        ServiceError: 422, too long, or with control characters, line breaks among them.

    >>> title_of("C:/films/ “Ä” 🚀 a.mp4"), title_of("x.mp4", " 100% <b>"), title_of("a%22b%22.mp4")
    (' “Ä” 🚀 a', ' 100% <b>', 'a"b"')
    """
    if typed is None:
        typed = os.path.splitext(_last_part(file_name))[0]
    if len(typed) > MAX_TITLE_CHARS:
        what = f"The title has {len(typed)} characters, and {MAX_TITLE_CHARS} are the most."
        raise ServiceError(422, f"{what} To mend it: shorten the file's name.")
    if any(unicodedata.category(letter) in UNTYPED for letter in typed):
        what = "The title has characters that cannot be shown: control characters or line breaks."
        raise ServiceError(422, f"{what} To mend it: rename the file.")
    return typed if typed.strip() else None


def _safe(stem: str) -> str:
    """Letters, their marks, numbers and some signs as they are; an underline for each run of others."""
    runs = itertools.groupby(
        stem, lambda letter: letter in PUNCTUATION or unicodedata.category(letter)[0] in "LMN"
    )
    return "".join("".join(run) if is_safe else "_" for is_safe, run in runs)


def _cut(stem: str) -> str:
    """As many whole characters as fit into both limits.

    >>> len(_cut("映" * 90)), len(_cut("a" * 300))
    (60, 100)
    """
    return stem[:MAX_NAME_CHARS].encode()[:MAX_NAME_BYTES].decode(errors="ignore")


def free_id(wanted: str, taken: Iterable[object]) -> str:
    """The wanted id, or with a number behind it the first that is not taken.

    >>> free_id("a", ["b"]), free_id("a", ["a", "a-2"])
    ('a', 'a-3')
    """
    taken = {unicodedata.normalize("NFC", str(name)) for name in taken}
    number, video_id = 1, wanted
    while video_id in taken:
        number += 1
        video_id = f"{wanted}-{number}"
    return video_id


def find_below_roots(path: str, roots: Iterable[Path]) -> tuple[Path, str]:
    """The real file that a client names, and its path below its root without the suffix, which becomes its id.

    Args:
        path: absolute, or relative to one of `roots`.
    Raises:
        ServiceError: 403, not below a root, also when it only leads elsewhere through links; 404, no such file;
            422, not the name of a video.
    """
    refused = ServiceError(403, "The path is not below a folder from which this server may add videos.")
    if "\0" in path:
        raise refused
    is_below = False
    for root in (root.resolve() for root in roots):
        named = Path(os.path.normpath(root / path))
        if not named.is_relative_to(root):
            continue
        is_below = True
        try:
            real = named.resolve(strict=True)
        except (OSError, RuntimeError, ValueError):
            continue
        if not real.is_relative_to(root):
            raise refused
        if real.is_file():
            split_name(real.name)
            video_id = real.relative_to(root).with_suffix("").as_posix()
            return real, unicodedata.normalize("NFC", video_id)
    raise ServiceError(404, "There is no such file.") if is_below else refused


def check_looks_like_video(file: Path) -> None:
    """Refuse what is not one of the known containers, before a decoder sees it.

    Playlists and scripts, which a decoder would follow to other files and addresses, are refused by this.

    Raises:
        DataError: not a video file.
    """
    with file.open("rb") as opened:
        head = opened.read(192)
    known = (
        head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")
        or head.startswith((b"\x1aE\xdf\xa3", b"OggS", b"\x00\x00\x01\xba", b"\x00\x00\x01\xb3"))
        or (head[:4] == b"RIFF" and head[8:12] == b"AVI ")
        or (len(head) > 188 and head[0] == head[188] == 0x47)
    )
    if not known:
        raise DataError("this is not a video file", mend=MEND)


ADDED_FILE = "added.json"
PIECE = 1024 * 1024
END_THE_OTHER = "end that server, or serve with --read-only"
_PARTS = {"videos", "features", "incoming"}


class AddedFolder:
    """Files and features of added videos; one server at a time.

    ADDED/added.json   says whose the folder is      ADDED/videos/     uploaded files
    ADDED/features/    the store of all that was added
    ADDED/incoming/    uploads whose job is not done; emptied when a server takes the folder
    ADDED/copies/      copies of videos for browsers that cannot play the files themselves
    ADDED/contents.sqlite  which content files have

    Args:
        path: is made when the first video comes.
        is_named: whether the user said it; else it may have come with the index, and must be no link.
    Raises:
        DataError: it is there and holds something else, or another server has it.
        ConfigError: it, or a folder in it, is a link that was not named on the command line.
    """

    def __init__(self, path: Path, *, is_named: bool) -> None:
        self.path, self._is_named = path, is_named
        self.videos, self.incoming, self.store = path / "videos", path / "incoming", path / "features"
        self.copies, self.contents = path / "copies", Contents(path / CONTENTS_FILE)
        self._lock: Lock | None = None
        self._claiming = threading.Lock()
        if path.exists() or path.is_symlink():
            self.claim()

    def receive(self, content: BinaryIO, name: str) -> tuple[Path, Content]:
        """Keep what a client sends, under a name of our own; returns the file and what it holds.

        Raises:
            OSError: there is no room, or no permission. DataError: the folder is not ours.
        """
        self.claim()
        self.incoming.mkdir(parents=True, exist_ok=True)
        file = self.incoming / name
        opened = file.open("xb")
        digest, num_bytes = hashlib.sha256(), 0
        try:
            with opened:
                while piece := content.read(PIECE):
                    opened.write(piece)
                    digest.update(piece)
                    num_bytes += len(piece)
                opened.flush()
                os.fsync(opened.fileno())  # what the index names must be on disk before it does
        except BaseException:
            file.unlink(missing_ok=True)
            raise
        return file, Content(digest.hexdigest(), num_bytes)

    def place(self, file: Path, final: Path) -> None:
        """Move a received file to where it stays. Nothing is written over: FileExistsError."""
        final.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(file, final)
        except FileExistsError:
            raise
        except OSError:  # a file system without links; only we write here
            with final.open("xb"):
                pass
            file.replace(final)
        else:
            with suppress(OSError):  # it is placed; what stays in `incoming` goes at the next start
                file.unlink()

    def close(self) -> None:
        """Let the next server have it. Harmless when called twice."""
        with self._claiming:
            if self._lock is not None:
                self._lock.close()

    def claim(self) -> None:
        """Make the folder where it is not there, and keep other servers out. Raises DataError, ConfigError."""
        with self._claiming:
            if self._lock is not None:
                return
            self._check_no_links()
            if not self._is_of_before():
                refuse_foreign(self.path, ADDED_FILE)
            self.path.mkdir(parents=True, exist_ok=True)
            lock = take(self.path, "adding videos", mend=END_THE_OTHER)
            try:
                write_json(self.path / ADDED_FILE, {"format": "dciml added videos", "format_version": 1})
                shutil.rmtree(self.incoming, ignore_errors=True)  # of servers that were killed
                remove_leftovers(self.path)
            except BaseException:
                lock.close()
                raise
            self._lock = lock

    def _check_no_links(self) -> None:
        parts = (self.videos, self.incoming, self.store, self.copies)
        for folder in parts if self._is_named else (self.path, *parts):
            if folder.is_symlink():
                raise ConfigError(
                    f"{folder} is a link, through which files would be written elsewhere. To mend it: remove the link, "
                    "or say with --added where added videos are to be kept."
                )

    def _is_of_before(self) -> bool:
        """Whether an earlier version, which left no marker, made the folder."""
        names = {entry.name for entry in self.path.iterdir()} if self.path.is_dir() else set()
        return bool(names) and names <= _PARTS and (self.store / "manifest.json").is_file()


_log = logging.getLogger("dciml.service")
SHARE_OF_ENCODING = 0.95


@dataclass(frozen=True)
class _NewVideo:
    """A video on its way: the file to read, and where it lies in the end; the same when it stays where it is.

    `title` and `content` are those of an upload.
    """

    video_id: str
    file: Path
    final: Path
    title: str | None = None
    content: Content | None = None


class Library:
    """The videos that clients added; their files and features lie in an `AddedFolder`.

    Raises:
        DataError: another server changes this index, or the folder for added videos is not its own.
        ConfigError: that folder is a link that was not named on the command line.
    """

    def __init__(self, settings: ServiceSettings, corpus: LiveCorpus, jobs: JobQueue) -> None:
        self.settings, self.corpus, self.jobs = settings, corpus, jobs
        self._lock = threading.Lock()
        self._coming: dict[str, Job] = {}  # by the digest of what is added
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

    def add_upload(
        self, file_name: str, content: BinaryIO, client: str = "", title: str | None = None
    ) -> Job:
        """Take an uploaded file and start the job that adds it.

        Args:
            title: as it was typed; None: the file's name says it.
        Raises:
            ServiceError: the name is not that of a video, or the title cannot be shown (422), the same content is
                there already or on its way (409), too many jobs (503).
            OSError: no room on the disk, or it may not be written.
        """
        stem, suffix = split_name(file_name)
        job = Job(client=client, title=title_of(file_name, title))
        try:
            file, held = self.added.receive(content, f"{job.job_id}{suffix}")
        except DataError as error:  # another server has the folder
            if trouble_of(error) not in (None, LOCKED):
                raise
            raise ServiceError(409, sentence_of(error)) from error
        try:
            self._find_content(held)  # what must be read for it is read before others have to wait
            with self._lock:
                self._refuse_same(held)
                job.video_id = free_id(stem, self._taken() | self._kept_names())
                final = self.added.videos / f"{job.video_id}{suffix}"
                new = _NewVideo(job.video_id, file, final, job.title, held)
                job.dropped = lambda: file.unlink(missing_ok=True)
                self.jobs.submit(job, lambda job: self._add(job, new))
                self._coming[held.digest] = job
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

    def _refuse_same(self, content: Content) -> None:
        """Raises ServiceError: 409, a video has this content; `more` says which one."""
        self._coming = {digest: job for digest, job in self._coming.items() if job.state not in ENDED}
        if (job := self._coming.get(content.digest)) is not None:
            named = shortened(job.title or job.video_id or "")
            raise ServiceError(
                409,
                f"The same content is on its way into the index already, as “{named}”.",
                more={"video_id": job.video_id, "job_id": job.job_id},
            )
        if (video_id := self._find_content(content)) is not None:
            named = shortened(self.corpus.now.video(video_id).title)
            raise ServiceError(
                409, f"The same content is in the index already, as “{named}”.", more={"video_id": video_id}
            )

    def _find_content(self, content: Content) -> str | None:
        """The video of the index that has this content, of those whose files may be played."""
        self.corpus.refresh()
        now, settings = self.corpus.now, self.settings
        files: dict[str, str] = {}
        for part, path in now.index.media_paths().items():
            files.setdefault(whole_id(part), path)
        found = self.added.contents.find(
            content, files, lambda path: find_media(path, settings.played_roots, settings.allow_roots)
        )
        return found if found is not None and found in now else None

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
            if job.is_cancelled:
                raise JobCancelled
            job.message = "adding it to the index"
            if is_upload:
                self._place(new)
                is_placed = True
                sync_folder(new.final.parent)
            self.corpus.change(self._entering(new))
            if new.content is not None:
                self.added.contents.keep(new.final.resolve(), new.content)
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
            titles = {new.video_id: new.title} if new.title else None
            if not add_videos(index, model, self.added.store, only=[new.video_id], titles=titles):
                raise JobFailed("Meanwhile a video of this name has been added to the index.")

        return work

    def _is_entered(self, video_id: str) -> bool:
        """Does the index hold a video, though its job did not end well? Yes, too, where that cannot be told."""
        try:
            index = ClipIndex.open(self.settings.present_index, store=self.settings.vector_store)
        except (DcimlError, sqlite3.Error, OSError):
            return True
        return video_id in WindowedIds(index.video_ids).whole_videos

    def _encode(self, job: Job, new: _NewVideo) -> None:
        """Run the encoding process. Raises JobFailed: with what it says is wrong; JobCancelled."""
        settings = self.settings
        order = EncodeOrder(
            file=str(new.file),
            video_id=new.video_id,
            store=str(self.added.store),
            source=str(new.final.absolute()),
            like=str(settings.features or self.corpus.now.index.store_path()),
            encoders=list(settings.encoders),
            device=settings.device,
        )

        def on_progress(share: float) -> None:
            job.progress = SHARE_OF_ENCODING * share

        seconds, ended_by = settings.limits.job_seconds, self.jobs.ended_by
        fault = run_guarded("dciml.service.encode", order.to_json(), seconds, ended_by, on_progress)
        if fault is not None:
            raise JobFailed(fault)
