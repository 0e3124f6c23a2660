"""The feature store: rows of many videos in one memory-mapped file, append-only and crash-safe (NumPy only).

A store is a folder of three files. `manifest.json` says what the rows are, `rows.bin` holds them as float16,
one video after another, and `index.jsonl` has one line a video. A video counts as stored once its index line
is complete; the rows are on disk before that line is written. So whatever a kill leaves behind past the last
complete line is ignored by readers and cut off by the next writer.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import math
import zlib
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dciml.errors import DataError
from dciml.features.row_checks import lost_rows, scale_hint
from dciml.features.row_times import RowTimes
from dciml.features.store_format import (
    INDEX_FILE,
    MANIFEST_FILE,
    REBUILD,
    ROW_DTYPE,
    ROWS_FILE,
    AppendedFile,
    FileStamp,
    StoreEntry,
    StoreManifest,
    committed_bytes,
    read_entries,
    read_manifest,
    write_manifest,
)
from dciml.files import sync_folder
from dciml.folders import refuse_foreign
from dciml.locks import take
from dciml.names import KnownNames, same_name

__all__ = ["FeatureStore", "FeatureStoreWriter", "StoreManifest"]


class FeatureStore:
    """A store opened for reading; rows stay on disk until they are used.

    Videos that a writer adds after `open` are seen by the next `open`.
    """

    def __init__(self, path: Path, manifest: StoreManifest, entries: Sequence[StoreEntry]) -> None:
        self.path, self.manifest = path, manifest
        self._entries = {entry.video_id: entry for entry in entries}
        self._names = KnownNames(self._entries)
        num_rows = max((entry.offset + entry.rows for entry in entries), default=0)
        self._rows = _map_rows(path / ROWS_FILE, num_rows, manifest.width)
        self._fingerprint: str | None = None
        self._whole: set[int] = set()  # where the rows begin that were compared with their checksum

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Open a store folder.

        Raises:
            DataError: not a store, of another format version, or damaged; what a kill cut short is no damage.
        """
        path = Path(path)
        return cls(path, read_manifest(path), read_entries(path))

    @property
    def video_ids(self) -> tuple[str, ...]:
        """All ids, in the order in which they were appended."""
        return tuple(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, video_id: object) -> bool:
        return isinstance(video_id, str) and self._names.find(video_id) is not None

    def rows(self, video_id: str) -> NDArray[np.float16]:
        """The rows of a video, (T, width): a read-only view of the file, no copy.

        Raises:
            DataError: the store does not hold this video; the nearest known id is named. Or its rows are damaged.
        """
        entry = self._entry(video_id)
        self._check(entry)
        return self._rows_of(entry)

    def unchecked_rows(self, video_id: str) -> NDArray[np.float16]:
        """As `rows`, damaged ones too: for those who look for damage."""
        return self._rows_of(self._entry(video_id))

    def _rows_of(self, entry: StoreEntry) -> NDArray[np.float16]:
        return self._rows[entry.offset : entry.offset + entry.rows]

    def _check(self, entry: StoreEntry) -> None:
        """Compare the rows of a video with their checksum when they are first read: numbers go wrong without a word.

        Raises:
            DataError: they do not match.
        """
        if entry.offset in self._whole:
            return
        if not self._is_whole(entry):
            raise DataError(
                f"the rows of the video {entry.video_id!r} are damaged: they do not match their checksum",
                where=self.path / ROWS_FILE,
                mend=REBUILD,
            )
        self._whole.add(entry.offset)

    def _is_whole(self, entry: StoreEntry) -> bool:
        return zlib.crc32(self._rows_of(entry).data) == entry.crc32

    def num_rows(self, video_id: str) -> int:
        """How many rows a video has (T ≥ 1). Raises DataError for an unknown id."""
        return self._entry(video_id).rows

    def duration_seconds(self, video_id: str) -> float:
        """How long a video is. Raises DataError for an unknown id."""
        return self._entry(video_id).duration_seconds

    def row_times(self, video_id: str) -> RowTimes:
        """When the rows of a video are: by the store's rate, or else spread evenly. Raises DataError as `rows`."""
        entry = self._entry(video_id)
        rate = self.manifest.rows_per_second
        seconds_per_row = 1.0 / rate if rate else entry.duration_seconds / entry.rows
        return RowTimes(entry.rows, seconds_per_row, entry.duration_seconds)

    def source(self, video_id: str) -> str | None:
        """Where a video's rows came from, if the writer said so. Raises DataError for an unknown id."""
        return self._entry(video_id).source

    def entry(self, video_id: str) -> StoreEntry:
        """All that the index says of a video. Raises DataError for an unknown id."""
        return self._entry(video_id)

    def verify(self) -> list[str]:
        """Read every row and compare checksums; returns one sentence for each damaged video."""
        return [
            f"video {entry.video_id!r}: its rows do not match their checksum"
            for entry in self._entries.values()
            if not self._is_whole(entry)
        ]

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) over the manifest and all entries, whatever their order."""
        if self._fingerprint is None:
            entries = sorted(self._entries.values(), key=lambda entry: entry.video_id)
            content = [[e.video_id, e.rows, e.duration_seconds, e.crc32] for e in entries]
            manifest = asdict(self.manifest)
            del manifest["encoder_specs"]  # where a model lies does not change the rows
            text = json.dumps([manifest, content], ensure_ascii=True, sort_keys=True)
            self._fingerprint = hashlib.sha256(text.encode()).hexdigest()
        return self._fingerprint

    def _entry(self, video_id: str) -> StoreEntry:
        known = self._names.find(video_id)
        if known is None:
            near = difflib.get_close_matches(video_id, self._entries, n=1)
            hint = f"did you mean {near[0]!r}? Otherwise " if near else ""
            raise DataError(
                f"the store has no features of the video {video_id!r}",
                where=self.path,
                mend=f"{hint}add its features to the store, or leave out what refers to it",
            )
        return self._entries[known]


class FeatureStoreWriter:
    """Adds videos to a store, which is made when there is none. Use it as a context manager.

    Args:
        path: the store's folder.
        manifest: must equal the manifest of a store that exists; what it says of `encoder_specs` is noted there.
        commit_every: rows and index are forced to disk after this many videos. 1 keeps every appended video
            whatever happens; more is faster, and a kill loses the videos since the last commit.
    Raises:
        DataError: the folder holds something else, another writer is at work, or the manifests differ.
    """

    def __init__(self, path: str | Path, manifest: StoreManifest, *, commit_every: int = 1) -> None:
        if commit_every < 1:
            raise ValueError(f"commit_every must be at least 1, not {commit_every}")
        self.path, self.manifest = Path(path), manifest
        self._commit_every = commit_every
        refuse_foreign(self.path, MANIFEST_FILE)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            what = f"the folder of the store cannot be made ({error.strerror})"
            raise DataError(what, where=self.path, mend="name another folder") from error
        self._lock = take(self.path, "writing features")
        try:
            self._open()
        except BaseException:
            self._lock.close()
            raise

    def _open(self) -> None:
        if (self.path / MANIFEST_FILE).exists():
            found = read_manifest(self.path)
            _check_same(found, self.manifest, self.path)
            if self.manifest.encoder_specs not in ((), found.encoder_specs):
                write_manifest(self.path, self.manifest)
        else:
            write_manifest(self.path, self.manifest)
        entries = read_entries(self.path)
        self._known = {entry.video_id for entry in entries}
        self._spelling = {same_name(name): name for name in self._known if not name.isascii()}
        self._end = sum(entry.rows for entry in entries)
        self._pending: list[StoreEntry] = []
        self._refusal: str | None = None
        self._row_bytes = self.manifest.width * ROW_DTYPE.itemsize
        with ExitStack() as opened:
            self._rows_file = AppendedFile(self.path / ROWS_FILE, self._end * self._row_bytes)
            opened.callback(self._rows_file.close)
            self._index_file = AppendedFile(self.path / INDEX_FILE, len(committed_bytes(self.path)))
            opened.callback(self._index_file.close)
            sync_folder(self.path)
            opened.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def append(
        self,
        video_id: str,
        rows: ArrayLike,
        duration_seconds: float,
        source: str | None = None,
        *,
        stamp: FileStamp | None = None,
        replace: bool = False,
    ) -> None:
        """Add a video.

        Args:
            video_id: not yet in the store, unless `replace`: its rows are then superseded, at the same moment.
            rows: (T, width), T ≥ 1, finite numbers, not all of them next to nothing; kept as float16.
            duration_seconds: > 0.
            source: where the rows came from: the absolute path of the media file, where there is one.
            stamp: what that file was.
        Raises:
            DataError: any of this does not hold; the message names the video and, for a bad number, the row.
            OSError: the disk is full or fails. The store is then as it was after the last commit. The writer goes on
                when nothing but this video was lost; when earlier ones were, it takes no more.
        """
        self._check_usable()
        if not video_id:
            raise DataError("a video has an empty id", where=self.path, mend="give every video an id")
        if not video_id.isascii():  # the store goes on writing a name as it did before
            video_id = self._spelling.setdefault(same_name(video_id), video_id)
        if video_id in self._known and not replace:
            raise DataError(
                f"the store already holds the video {video_id!r}",
                where=self.path,
                mend="leave out the duplicate",
            )
        if not (math.isfinite(duration_seconds) and duration_seconds > 0):
            raise DataError(
                f"video {video_id!r}: the duration {duration_seconds} s is not a positive number",
                where=self.path,
                mend="give its length in seconds",
            )
        half = self._checked(video_id, np.asarray(rows))
        checksum, seconds = zlib.crc32(half.data), float(duration_seconds)
        known = video_id in self._known
        entry = StoreEntry(video_id, self._end, len(half), seconds, checksum, source, stamp, known)
        earlier = len(self._pending)
        try:
            self._rows_file.append(half.data)
            self._pending.append(entry)
            self._known.add(video_id)
            self._end += len(half)
            if len(self._pending) >= self._commit_every:
                self._commit()
        except BaseException:
            self._cut_back(earlier)
            raise

    def commit(self) -> None:
        """Force what was appended to disk: first the rows, then the index lines that name them.

        Raises:
            OSError: the disk is full or fails. What was appended since the last commit is dropped, and the writer
                takes no more.
        """
        self._check_usable()
        try:
            self._commit()
        except BaseException:
            self._cut_back(len(self._pending))
            raise

    def close(self) -> None:
        """Commit and let the next writer in. Harmless when called twice, or after a failure."""
        if self._lock.closed:
            return
        try:
            if self._refusal is None:
                self.commit()
        finally:
            self._rows_file.close()
            self._index_file.close()
            self._lock.close()

    def _commit(self) -> None:
        if not self._pending:
            return
        self._rows_file.sync()
        self._index_file.append("".join(entry.to_line() for entry in self._pending).encode())
        self._index_file.sync()
        self._rows_file.mark_committed()
        self._index_file.mark_committed()
        self._pending.clear()

    def _cut_back(self, lost: int) -> None:
        """After a failure: go back to the last commit, on disk and here.

        Args:
            lost: videos that were accepted before and could not be written; the writer then accepts no more.
        """
        self._known -= {entry.video_id for entry in self._pending if not entry.supersedes}
        self._pending.clear()
        if lost:
            self._refusal = f"writing failed, and the last {lost} videos before it were not kept"
        try:
            # In this order: rows without a line are passed over, a line without its rows is damage.
            self._index_file.cut_back()
            self._index_file.sync()
            self._rows_file.cut_back()
        except OSError:
            self._refusal = "writing failed, and what it left could not be cut off"
        self._end = self._rows_file.committed // self._row_bytes

    def _check_usable(self) -> None:
        if self._refusal is not None:
            raise DataError(self._refusal, where=self.path, mend="mend the disk, and start again")

    def _checked(self, video_id: str, rows: NDArray[np.generic]) -> NDArray[np.float16]:
        width, name = self.manifest.width, f"video {video_id!r}"
        if rows.dtype.kind not in "fiu":
            raise DataError(
                f"{name}: the rows are {rows.dtype}, not numbers", where=self.path, mend="give numbers"
            )
        if rows.ndim == 0 or rows.shape[0] == 0:
            raise DataError(
                f"{name}: it has no rows (a zero-length video)", where=self.path, mend="leave the video out"
            )
        if rows.ndim != 2 or rows.shape[1] != width:
            raise DataError(
                f"{name}: the rows have the shape {rows.shape}, not (T, {width})",
                where=self.path,
                mend=f"give rows of the store's width, {width}",
            )
        with np.errstate(over="ignore", invalid="ignore"):
            half = np.ascontiguousarray(rows, dtype=ROW_DTYPE)
        finite = np.isfinite(half)
        if not finite.all():
            row, column = (int(i) for i in np.argwhere(~finite)[0])
            value = float(rows[row, column])
            overflow = math.isfinite(value)
            what = f"the value {value:g} does not fit into float16" if overflow else f"a value is {value}"
            mend = "scale the features down" if overflow else "extract this video again, or leave it out"
            raise DataError(f"{name}, row {row}, column {column}: {what}", where=self.path, mend=mend)
        self._check_not_lost(name, rows)
        return half

    def _check_not_lost(self, name: str, rows: NDArray[np.generic]) -> None:
        """A row here and there that is next to nothing may vanish; a video of nothing else is a mistake of scale."""
        lost = lost_rows(rows)
        if lost.any() and not rows[~lost].any():
            row = int(lost.argmax())
            largest = float(np.abs(rows[row].astype(np.float64)).max())
            raise DataError(
                f"{name}, row {row}: its largest number, {largest:.2g}, is too small for float16; what is kept of the "
                "row is nothing, or points elsewhere, and the video has no better row",
                where=self.path,
                mend=scale_hint(rows[lost]),
            )


def _check_same(found: StoreManifest, wanted: StoreManifest, path: Path) -> None:
    if found != wanted:
        raise DataError(
            f"the store holds {found}, and these are {wanted}",
            where=path,
            mend="write these features to another store",
        )


def _map_rows(file: Path, num_rows: int, width: int) -> NDArray[np.float16]:
    if num_rows == 0:  # an empty file cannot be mapped
        return np.empty((0, width), dtype=np.float16)
    size = file.stat().st_size if file.exists() else 0
    expected = num_rows * width * ROW_DTYPE.itemsize
    if size < expected:
        raise DataError(
            f"the file is shorter than its index says ({size} bytes, not {expected})",
            where=file,
            mend=REBUILD,
        )
    mapped = np.memmap(file, dtype=ROW_DTYPE, mode="r", shape=(num_rows, width))
    return mapped.view(np.ndarray)  # slices of a plain array are cheaper than those of a memmap
