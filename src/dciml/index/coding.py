"""Gives the segments of a large index their codes: learns the coder, and writes the files of codes."""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dciml.files import atomic_path
from dciml.index.catalogue import IndexFacts, SegmentEntry
from dciml.index.codes import BLOCK, TRAINING_VECTORS, Coder
from dciml.index.open_segments import BLOCK_VIDEOS, coder_file, codes_file, segment_file
from dciml.index.segments import Segment

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
