"""Video files → feature store: only what is missing or changed, in several processes, and shared out to machines."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from stat import S_ISREG
from typing import Protocol, TypeVar, runtime_checkable

from dciml.errors import DataError
from dciml.features.base import EncodedVideo
from dciml.features.encoders.joined import JoinedEncoder, VideoEncoder, encode_video
from dciml.features.store import FeatureStore, FeatureStoreWriter, StoreManifest
from dciml.features.store_format import FileStamp
from dciml.files import atomic_folder, refuse_taken
from dciml.processes import Beat, Crew, Outcome, share_of_memory

STALL_SECONDS = 300.0
"""A video of which no picture comes for so long is given up."""


@runtime_checkable
class ReadsBeside(Protocol):
    """A frame encoder that reads other files than the video; the video's rows are made again when they change."""

    def files_beside(self, path: Path) -> tuple[Path, ...]:
        """The files that exist and that it would read for a video."""

    def trouble_beside(self, path: Path) -> DataError | None:
        """What is wrong with what lies beside a video, if anything is."""


@runtime_checkable
class Prepares(Protocol):
    """A frame encoder that makes files of its own before it encodes a video, such as a transcript; they stay."""

    def is_prepared(self, path: Path) -> bool:
        """Whether the files of a video are there."""

    def prepare(self, path: Path, on_part: Callable[[float], None]) -> None:
        """Make them; tells how far that is, from 0 to 1."""


@dataclass(frozen=True)
class VideoFile:
    """A video to extract. `stamp` is what the file was when its rows in the store were made, None without rows."""

    video_id: str
    path: Path
    num_bytes: int
    stamp: FileStamp | None = None


@dataclass(frozen=True)
class Extracted:
    """What came of a file: its rows, or None where only its times have changed, not its content."""

    stamp: FileStamp
    video: EncodedVideo | None


@dataclass(frozen=True)
class Failure:
    """A file that gave no rows, and why."""

    video_id: str
    path: Path
    error: DataError


@dataclass
class ExtractionProgress:
    """How far an extraction is; `num_pictures` counts what encoders were given."""

    num_videos: int
    num_unchanged: int = 0
    num_done: int = 0
    num_failed: int = 0
    num_bytes: int = 0
    bytes_done: float = 0
    num_pictures: int = 0


@dataclass(frozen=True)
class Extraction:
    """What an extraction did: ids of new and changed videos, of unchanged ones, and the failures."""

    done: tuple[str, ...]
    unchanged: tuple[str, ...]
    failures: tuple[Failure, ...]

    def check(self) -> None:
        """Raise the first failure's error, if there is one."""
        for failure in self.failures:
            raise failure.error


Runner = Callable[
    [Iterable[VideoFile], Callable[[VideoFile, float, int], None]],
    Iterator[Outcome[VideoFile, Extracted]],
]
"""Extracts files somewhere and yields the outcomes as they come; tells the second argument how far each is."""


def extract_videos(
    paths: Mapping[str, Path],
    encoder: VideoEncoder,
    store_path: Path,
    workers: int = 2,
    on_progress: Callable[[ExtractionProgress], None] | None = None,
    on_failure: Callable[[Failure], None] | None = None,
    run: Runner | None = None,
    on_done: Callable[[str], None] | None = None,
) -> Extraction:
    """Encode video files into a store; each video is committed by itself. Rows of changed files are superseded.

    Args:
        paths: a file for each video id.
        encoder: must pickle; every process gets a copy.
        store_path: a new store, or one of the same encoder.
        workers: processes.
        on_progress: called whenever there is something to tell.
        on_failure: called for each file that fails; the others go on.
        run: instead of processes of this machine.
        on_done: called with the id of each video whose new rows can be read from the store.
    Raises:
        DataError: the store is of another encoder, in use, or cannot be written.
    """
    manifest = StoreManifest(encoder.name, encoder.width, encoder.rows_per_second)
    with FeatureStoreWriter(store_path, manifest) as writer:
        work = _Work(writer, FeatureStore.open(store_path), on_progress, on_failure, on_done)
        todo = work.plan(paths, encoder)
        if run is not None:
            return work.finish(run(todo, work.beat))
        extract = partial(extract_video, encoder=encoder)
        with Crew(extract, workers, STALL_SECONDS, share_of_memory(workers)) as crew:
            return work.finish(crew.run(todo, work.beat))


def extract_video(file: VideoFile, beat: Beat, encoder: VideoEncoder) -> Extracted:
    """Extract one file, unless its content is that of its stamp.

    Raises:
        DataError: it cannot be read or decoded, or changed meanwhile.
    """
    beat = _prepare(file.path, encoder, beat)
    files = files_read(file.path, encoder)
    before = _num_bytes_and_time(files)
    digest = _sha256(files, beat)
    stamp = FileStamp(*before, digest)
    if file.stamp is not None and file.stamp.sha256 == digest:
        return Extracted(stamp, None)
    video = encode_video(file.path, encoder, beat)
    if _num_bytes_and_time(files) != before:
        raise DataError(
            "the file changed while it was read", where=file.path, mend="extract again when it is complete"
        )
    return Extracted(stamp, video)


def _prepare(path: Path, encoder: VideoEncoder, beat: Beat) -> Beat:
    """Let the encoder prepare a video; returns what tells of the rest: half, where there was something to prepare."""
    for part in _parts(encoder):
        if isinstance(part, Prepares) and not _is_prepared(path, part):
            try:
                part.prepare(path, lambda done: beat(0.5 * done, 0))
            except OSError as error:
                raise _no_access(error) from error
            return lambda done, units: beat(0.5 + 0.5 * done, units)
    return beat


def _is_prepared(path: Path, part: Prepares) -> bool:
    try:
        return part.is_prepared(path)
    except (DataError, OSError):  # the attempt to read it will tell
        return True


def _parts(encoder: VideoEncoder) -> Sequence[object]:
    return encoder.parts if isinstance(encoder, JoinedEncoder) else (encoder,)


class _Work:
    """Keeps count of one extraction and writes what comes."""

    def __init__(
        self,
        writer: FeatureStoreWriter,
        store: FeatureStore,
        on_progress: Callable[[ExtractionProgress], None] | None,
        on_failure: Callable[[Failure], None] | None,
        on_done: Callable[[str], None] | None,
    ) -> None:
        self._writer, self._store, self._on_done = writer, store, on_done
        self._on_progress, self._on_failure = on_progress, on_failure
        self._progress = ExtractionProgress(0)
        self._in_hand: dict[
            str, tuple[float, int]
        ] = {}  # bytes and pictures of videos that are being worked on
        self._bytes_done = self._pictures_done = 0
        self._done: list[str] = []
        self._unchanged: list[str] = []
        self._failures: list[Failure] = []

    def plan(self, paths: Mapping[str, Path], encoder: VideoEncoder) -> list[VideoFile]:
        """The files to work on: those whose size or time is not that of the store."""
        todo: list[VideoFile] = []
        for video_id, path in paths.items():
            try:
                size, time = _num_bytes_and_time(files_read(path, encoder))
            except DataError:
                size, time = 0, 0  # the attempt to extract it will tell
            stamp = self._store.entry(video_id).stamp if video_id in self._store else None
            is_known = stamp is not None and (stamp.num_bytes, stamp.mtime_ns) == (size, time)
            if is_known and all(
                _is_prepared(path, part) for part in _parts(encoder) if isinstance(part, Prepares)
            ):
                self._unchanged.append(video_id)
            else:
                todo.append(VideoFile(video_id, path, size, stamp))
        self._progress = ExtractionProgress(len(paths), num_bytes=sum(file.num_bytes for file in todo))
        self._tell()
        return todo

    def beat(self, file: VideoFile, fraction: float, num_pictures: int) -> None:
        """Take note of how far a file is."""
        self._in_hand[file.video_id] = (fraction * file.num_bytes, num_pictures)
        self._tell()

    def finish(self, outcomes: Iterator[Outcome[VideoFile, Extracted]]) -> Extraction:
        """Write all outcomes as they come."""
        for outcome in outcomes:
            file = outcome.item
            self._pictures_done += self._in_hand.pop(file.video_id, (0, 0))[1]
            self._bytes_done += file.num_bytes
            error = outcome.error or self._write(file, outcome.result)
            if error is not None:
                failure = Failure(file.video_id, file.path, _at(file.path, error))
                self._failures.append(failure)
                if self._on_failure is not None:
                    self._on_failure(failure)
            self._tell()
        return Extraction(tuple(self._done), tuple(self._unchanged), tuple(self._failures))

    def _write(self, file: VideoFile, extracted: Extracted | None) -> DataError | None:
        if extracted is None or extracted.video is None:
            self._unchanged.append(file.video_id)
            return None
        video, source = extracted.video, os.path.abspath(file.path)
        try:
            self._writer.append(
                file.video_id,
                video.rows,
                video.duration_seconds,
                source,
                stamp=extracted.stamp,
                replace=True,
            )
        except DataError as error:
            return error
        except OSError as error:
            what = f"the store cannot be written ({error.strerror})"
            raise DataError(
                what, where=self._writer.path, mend="free some disk space, start again"
            ) from error
        self._done.append(file.video_id)
        if self._on_done is not None:
            self._on_done(file.video_id)
        return None

    def _tell(self) -> None:
        progress, in_hand = self._progress, self._in_hand.values()
        progress.num_unchanged, progress.num_done = len(self._unchanged), len(self._done)
        progress.num_failed = len(self._failures)
        progress.bytes_done = self._bytes_done + sum(num_bytes for num_bytes, _ in in_hand)
        progress.num_pictures = self._pictures_done + sum(num_pictures for _, num_pictures in in_hand)
        if self._on_progress is not None:
            self._on_progress(progress)


def _at(path: Path, error: DataError) -> DataError:
    return error if error.where is not None else DataError(error.what, where=path, mend=error.mend)


def files_read(path: Path, encoder: VideoEncoder) -> tuple[Path, ...]:
    """A video file and what an encoder reads beside it.

    Raises:
        DataError: no access, or captions of several languages.
    """
    try:
        beside = {
            file
            for part in _parts(encoder)
            if isinstance(part, ReadsBeside)
            for file in part.files_beside(path)
        }
    except OSError as error:
        raise _no_access(error) from error
    return (path, *sorted(beside))


def trouble_beside(path: Path, encoder: VideoEncoder) -> DataError | None:
    """Why something beside a video cannot be read; None: there is nothing wrong."""
    found = (part.trouble_beside(path) for part in _parts(encoder) if isinstance(part, ReadsBeside))
    return next((error for error in found if error is not None), None)


def _num_bytes_and_time(files: Iterable[Path]) -> tuple[int, int]:
    try:
        stats = {file: file.stat() for file in files}
    except OSError as error:
        raise _no_access(error) from error
    for file, stat in stats.items():
        if not S_ISREG(stat.st_mode):  # a pipe would be waited for
            raise DataError(
                "this is no file, but a pipe, a device or a folder", where=file, mend="leave it out"
            )
    return sum(stat.st_size for stat in stats.values()), max(stat.st_mtime_ns for stat in stats.values())


def _sha256(files: Iterable[Path], beat: Beat) -> str:
    digest = hashlib.sha256()
    try:
        for path in files:
            with path.open("rb") as file:
                while block := file.read(1 << 22):
                    digest.update(block)
                    beat(0.0, 0)
    except OSError as error:
        raise _no_access(error) from error
    return digest.hexdigest()


def _no_access(error: OSError) -> DataError:
    missing = isinstance(error, FileNotFoundError)
    what = "there is no such file" if missing else f"it cannot be read ({error.strerror})"
    mend = "check the path" if missing else "make the file readable"
    return DataError(what, where=error.filename, mend=mend)


Value = TypeVar("Value")


@dataclass(frozen=True)
class Shard:
    """Part `number` of `count`, from 1 on.

    >>> Shard.parse("2/8")
    Shard(number=2, count=8)
    """

    number: int
    count: int

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.count:
            raise ValueError(f"a shard is i/n with 1 ≤ i ≤ n, not {self.number}/{self.count}")

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Read "i/n". Raises ValueError."""
        number, mark, count = text.partition("/")
        if not (mark and number.isascii() and number.isdigit() and count.isascii() and count.isdigit()):
            raise ValueError(f"a shard is i/n with 1 ≤ i ≤ n, not {text!r}")
        return cls(int(number), int(count))

    def of(self, items: Mapping[str, Value]) -> dict[str, Value]:
        """The items of this shard. It depends on an item's id alone, so every machine agrees and none need talk."""
        return {key: value for key, value in items.items() if _hash(key) % self.count == self.number - 1}

    def store_path(self, out: Path) -> Path:
        """Where this shard's store lies: OUT.shards/2-of-8."""
        return out.with_name(f"{out.name}.shards") / f"{self.number}-of-{self.count}"


def merge_stores(paths: Sequence[Path], out: Path) -> FeatureStore:
    """Copy stores of one encoder into a new one, which appears whole or not at all.

    A video that several stores hold must be the same in all.

    Raises:
        DataError: `out` exists, a store is damaged, the manifests differ, or a video comes twice and differs.
    """
    refuse_taken(out)
    stores = [FeatureStore.open(path) for path in paths]
    for store in stores[1:]:
        if store.manifest != stores[0].manifest:
            raise DataError(
                f"the store holds {store.manifest}, and {stores[0].path} holds {stores[0].manifest}",
                where=store.path,
                mend="merge only stores that were made with the same encoders and rate",
            )
    for store in stores:
        for problem in store.verify():
            raise DataError(problem, where=store.path, mend="extract this shard again")
    with atomic_folder(out) as temporary:
        _copy(stores, temporary)
    return FeatureStore.open(out)


def _copy(stores: Iterable[FeatureStore], out: Path) -> None:
    first: dict[str, FeatureStore] = {}
    for store in stores:
        with FeatureStoreWriter(out, store.manifest, commit_every=256) as writer:
            for video_id in store.video_ids:
                entry = store.entry(video_id)
                if video_id not in first:
                    first[video_id] = store
                    rows = store.rows(video_id)
                    writer.append(video_id, rows, entry.duration_seconds, entry.source, stamp=entry.stamp)
                    continue
                other = first[video_id].entry(video_id)
                if (entry.crc32, entry.rows, entry.duration_seconds) != (
                    other.crc32,
                    other.rows,
                    other.duration_seconds,
                ):
                    raise DataError(
                        f"the video {video_id!r} is in {first[video_id].path} too, with other rows",
                        where=store.path,
                        mend="give the videos different ids with --ids path, or leave one store out",
                    )


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
