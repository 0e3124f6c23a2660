"""The vectors of an index in its own folder: segments, and codes for the candidates when they are many.

Every change writes new files under new names inside the catalogue's transaction, and files that no state needs
are deleted after the commit. So growth costs what is added, small segments are joined now and then, and a kill
leaves files that the next change sweeps away.
"""

from __future__ import annotations

import shutil
import sqlite3
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dciml.errors import ModelError
from dciml.files import atomic_path, sync_folder
from dciml.index.backend import FloatArray
from dciml.index.catalogue import Contents, IndexFacts, SegmentEntry
from dciml.index.codes import BLOCK, TRAINING_VECTORS, Coder
from dciml.index.references import check_inside
from dciml.index.segments import (
    BLOCK_VIDEOS,
    OpenSegments,
    Segment,
    coder_file,
    codes_file,
    in_range,
    segment_file,
    write_segment,
)

RETRAIN_GROWTH = 4  # compacting learns a new coder when the index has grown by this factor
READ_BYTES = 1 << 24
CODER_CRC = "coder_crc"  # in the catalogue: CRC-32 of the file of the coder in use


def segment_entries(connection: sqlite3.Connection) -> list[SegmentEntry]:
    """The segments as the catalogue has them in this transaction."""
    rows = connection.execute(
        "SELECT segment_key, num_videos, coder, codes_crc FROM segments ORDER BY segment_key"
    )
    return [SegmentEntry(*row) for row in rows]


def open_segment(folder: Path, facts: IndexFacts, entry: SegmentEntry) -> Segment:
    """A segment as the catalogue describes it. Raises ModelError when its file is missing or damaged."""
    shape = (entry.num_videos, facts.num_clips, facts.width)
    return Segment(segment_file(folder, entry.key), shape, facts.options.dtype)


def settle_codes(connection: sqlite3.Connection, folder: Path, facts: IndexFacts, *, retrain: bool) -> None:
    """Give all segments codes of one coder when the index is large.

    Args:
        retrain: learn a new coder when the index has grown much since, and forget the codes when it has shrunk.
    """
    entries = segment_entries(connection)
    total = sum(entry.num_videos for entry in entries)
    if total <= facts.options.exact_videos:
        if retrain:
            connection.execute("UPDATE segments SET coder = NULL, codes_crc = NULL")
        return
    number = max((entry.coder for entry in entries if entry.coder is not None), default=None)
    if number is None or (retrain and total >= RETRAIN_GROWTH * int(_meta(connection, "coder_videos"))):
        number = int(_meta(connection, "last_coder")) + 1
        opened = [open_segment(folder, facts, entry) for entry in entries]
        _train(opened, facts.options.code_bytes).write(coder_file(folder, number))
        _set_meta(connection, "last_coder", number)
        _set_meta(connection, "coder_videos", total)
        _set_meta(connection, CODER_CRC, file_crc(coder_file(folder, number)))
    coder = Coder.read(coder_file(folder, number), facts.width)
    for entry in entries:
        if entry.coder != number:
            segment, file = open_segment(folder, facts, entry), codes_file(folder, entry.key, number)
            connection.execute(
                "UPDATE segments SET coder = ?, codes_crc = ? WHERE segment_key = ?",
                (number, _write_codes(segment, coder, file), entry.key),
            )


def coder_is_whole(connection: sqlite3.Connection, file: Path) -> bool:
    """Does the file of the coder in use match its checksum? True where the index is older than that."""
    known = _meta(connection, CODER_CRC)
    return known == "0" or known == str(file_crc(file))


def file_crc(file: Path) -> int:
    """CRC-32 of a file."""
    crc = 0
    with file.open("rb") as handle:
        while content := handle.read(READ_BYTES):
            crc = zlib.crc32(content, crc)
    return crc


def _train(segments: Sequence[Segment], code_bytes: int) -> Coder:
    """Learn a coder from vectors drawn evenly from all segments."""
    total = sum(len(segment.array) for segment in segments)
    generator = np.random.default_rng(total)
    samples = []
    for segment in segments:
        videos, clips = segment.array.shape[:2]
        share = max(1, round(TRAINING_VECTORS * videos / total))
        rows = np.sort(generator.integers(0, videos, share))
        samples.append(segment.clips(rows, generator.integers(0, clips, share)))
    return Coder.train(np.concatenate(samples), code_bytes)


def _write_codes(segment: Segment, coder: Coder, file: Path) -> int:
    """Returns: the CRC-32 of the file."""
    crc, step = 0, BLOCK * BLOCK_VIDEOS  # vectors; only the last block of codes may be filled up
    flat = segment.array.reshape(-1, segment.array.shape[2])
    with atomic_path(file) as temporary, temporary.open("wb") as handle:
        for start in range(0, len(flat), step):
            codes = coder.encode(flat[start : start + step].astype(np.float32))
            crc = zlib.crc32(codes.data, crc)
            handle.write(codes.data)
    segment.release()
    return crc


def _meta(connection: sqlite3.Connection, name: str) -> str:
    row = connection.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
    return "0" if row is None else str(row[0])


def _set_meta(connection: sqlite3.Connection, name: str, value: int) -> None:
    connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, str(value)))


SMALL_VIDEOS = 4096  # a segment of fewer videos is joined with others in time
MAX_SMALL_SEGMENTS = 8
PATTERNS = ("*segment-*", "*coder-*")


class EmbeddedVectors:
    """See `VectorBackend`."""

    def __init__(self, folder: Path, facts: IndexFacts) -> None:
        self._folder, self._facts = folder, facts
        self._last: OpenSegments | None = None

    def open(self, contents: Contents) -> OpenSegments:
        """See `VectorBackend.open`."""
        self._last = OpenSegments(self._folder, contents, self._last)
        return self._last

    def add(self, connection: sqlite3.Connection, keys: Sequence[int], vectors: FloatArray) -> None:
        """Write one new segment."""
        blocks = (vectors[start : start + BLOCK_VIDEOS] for start in range(0, len(vectors), BLOCK_VIDEOS))
        self._write_segment(connection, keys, blocks)

    def settle(self, connection: sqlite3.Connection, everything: bool) -> None:
        """Drop empty segments, join small ones, and give every segment codes when the index is large."""
        rows = connection.execute(
            "SELECT segment_key, num_videos, count(CASE WHEN removed IS NULL THEN video_key END) "
            "FROM segments LEFT JOIN videos USING (segment_key) GROUP BY segment_key"
        ).fetchall()
        self._drop(connection, [key for key, _, alive in rows if not alive])
        rows = [row for row in rows if row[2]]
        small = [key for key, videos, alive in rows if min(videos, alive) < SMALL_VIDEOS]
        holed = [key for key, videos, alive in rows if alive < videos and key not in small]
        if everything:
            for key in holed:
                self._join(connection, [key])
        if len(small) > MAX_SMALL_SEGMENTS or (
            everything and (len(small) > 1 or self._has_holes(rows, small))
        ):
            self._join(connection, small)
        settle_codes(connection, self._folder, self._facts, retrain=everything)
        sync_folder(self._folder)

    def sweep(self, contents: Contents) -> None:
        """Delete the files that these contents do not name."""
        kept = self._files(contents)
        for pattern in PATTERNS:
            for file in set(self._folder.glob(pattern)) - kept:
                file.unlink(missing_ok=True)

    def discard(self) -> None:
        """Delete every file of vectors and codes."""
        for pattern in PATTERNS:
            for file in self._folder.glob(pattern):
                file.unlink(missing_ok=True)

    def verify(self, connection: sqlite3.Connection, contents: Contents) -> list[str]:
        """Read every vector and code, and compare checksums."""
        damaged: list[str] = []
        for key, entry in contents.segments.items():
            rows = connection.execute(
                "SELECT video_id, segment_row, vectors_crc FROM videos WHERE removed IS NULL AND segment_key = ? "
                "ORDER BY segment_row",
                (key,),
            )
            try:
                damaged += self._damaged_videos(open_segment(self._folder, self._facts, entry), rows)
            except ModelError as error:
                damaged.append(str(error))
            damaged += self._damaged_codes(connection, entry)
        return list(dict.fromkeys(damaged))

    def _damaged_videos(self, segment: Segment, rows: Iterable[tuple[str, int, int]]) -> Iterator[str]:
        for video_id, row, crc in rows:
            if not isinstance(row, int) or not 0 <= row < len(segment.array):
                yield f"video {video_id!r}: the catalogue does not say where its vectors are"
                continue
            if zlib.crc32(segment.array[row].data) != crc:
                yield f"video {video_id!r}: its vectors do not match their checksum"
            if not in_range(segment.array[row]):
                yield f"video {video_id!r}: its vectors hold a number that is NaN or out of range"
            if row % BLOCK_VIDEOS == 0:
                segment.release()

    def _damaged_codes(self, connection: sqlite3.Connection, entry: SegmentEntry) -> Iterator[str]:
        if entry.coder is None:
            return
        coder, codes = coder_file(self._folder, entry.coder), codes_file(self._folder, entry.key, entry.coder)
        try:
            check_inside(codes)
            if file_crc(codes) != entry.codes_crc:
                yield f"segment {entry.key}: its codes do not match their checksum"
            Coder.read(coder, self._facts.width)
            if not coder_is_whole(connection, coder):
                yield f"{coder.name}: the coder does not match its checksum"
        except ModelError as error:
            yield str(error)
        except OSError as error:
            yield f"{error.filename}: {error.strerror}"

    def copy(self, contents: Contents, target: Path) -> None:
        """Copy the files that these contents name."""
        for file in sorted(self._files(contents)):
            with atomic_path(target / file.name) as temporary:
                shutil.copyfile(file, temporary)
        sync_folder(target)

    def _files(self, contents: Contents) -> set[Path]:
        files = {segment_file(self._folder, key) for key in contents.segments}
        for key, entry in contents.segments.items():
            if entry.coder is not None:
                files |= {codes_file(self._folder, key, entry.coder), coder_file(self._folder, entry.coder)}
        return files

    @staticmethod
    def _has_holes(rows: Sequence[tuple[int, int, int]], keys: Sequence[int]) -> bool:
        return any(alive < videos for key, videos, alive in rows if key in keys)

    def _write_segment(
        self, connection: sqlite3.Connection, keys: Sequence[int], blocks: Iterator[FloatArray]
    ) -> None:
        cursor = connection.execute("INSERT INTO segments (num_videos) VALUES (?)", (len(keys),))
        segment = int(cursor.lastrowid or 0)
        checksums = write_segment(segment_file(self._folder, segment), blocks, self._facts.options.dtype)
        connection.executemany(
            "UPDATE videos SET segment_key = ?, segment_row = ?, vectors_crc = ? WHERE video_key = ?",
            [(segment, row, crc, key) for row, (key, crc) in enumerate(zip(keys, checksums, strict=True))],
        )

    def _join(self, connection: sqlite3.Connection, segments: Sequence[int]) -> None:
        """Write the living videos of some segments into one new segment, in the order of their keys."""
        marks = ", ".join("?" * len(segments))
        rows = connection.execute(
            f"SELECT video_key, segment_key, segment_row, vectors_crc FROM videos WHERE segment_key IN ({marks}) "
            "AND removed IS NULL ORDER BY video_key",
            list(segments),
        ).fetchall()
        opened = {
            entry.key: open_segment(self._folder, self._facts, entry)
            for entry in segment_entries(connection)
            if entry.key in segments
        }
        table = np.array(rows, dtype=np.int64)

        def blocks() -> Iterator[FloatArray]:
            for start in range(0, len(table), BLOCK_VIDEOS):
                part = table[start : start + BLOCK_VIDEOS]
                block = np.empty((len(part), self._facts.num_clips, self._facts.width), dtype=np.float32)
                for key in np.unique(part[:, 1]).tolist():
                    inside = part[:, 1] == key
                    self._check_vectors(connection, opened[key], part[inside])
                    block[inside] = opened[key].videos(part[inside, 2])
                yield block

        self._write_segment(connection, table[:, 0].tolist(), blocks())
        self._drop(connection, segments)

    def _check_vectors(
        self, connection: sqlite3.Connection, segment: Segment, table: NDArray[np.int64]
    ) -> None:
        """Before vectors are copied, and get a new checksum: refuse those that do not match the old one."""
        for key, _, row, crc in table.tolist():
            if zlib.crc32(segment.array[row].data) != crc:
                (video_id,) = connection.execute(
                    "SELECT video_id FROM videos WHERE video_key = ?", (key,)
                ).fetchone()
                raise ModelError(
                    f"{self._folder}: the vectors of the video {video_id!r} do not match their checksum; take it out "
                    "with `dciml index-remove` and add it again, or restore a backup."
                )

    def _drop(self, connection: sqlite3.Connection, segments: Sequence[int]) -> None:
        for key in segments:
            # What was removed from it stays known to readers of older states, who have its vectors open.
            connection.execute(
                "UPDATE videos SET segment_key = NULL, segment_row = NULL WHERE segment_key = ?", (key,)
            )
            connection.execute("DELETE FROM segments WHERE segment_key = ?", (key,))
