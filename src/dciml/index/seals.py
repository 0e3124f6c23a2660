"""Checksums over what a catalogue says: one of each video's entry, and one of all that holds for the whole index.

Where a video's vectors lie is not part of its entry: the vectors have checksums of their own.
"""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Iterator
from typing import Any

from dciml.index.schema import ADD_SEALS, FORMAT_VERSION

FACTS_SEAL = "facts_crc"
_COLUMNS = (
    "video_key",
    "video_id",
    "duration_seconds",
    "store_key",
    "title",
    "media_relative",
    "media_absolute",
    "date_unix",
    "checksum",
    "added_unix",
    "(SELECT group_concat(hex(tag)) FROM (SELECT tag FROM tags WHERE tags.video_key = videos.video_key ORDER BY tag))",
)
ENTRY = ", ".join(_COLUMNS)
_RELATIVE = _COLUMNS.index("media_relative")
_PORTION = 10_000


def seal_videos(connection: sqlite3.Connection, first_key: int = 0) -> None:
    """Write the checksums of the entries from `first_key` on."""
    connection.create_function("crc_of", len(_COLUMNS), lambda *values: _crc(values), deterministic=True)
    connection.execute(f"UPDATE videos SET entry_crc = crc_of({ENTRY}) WHERE video_key >= ?", (first_key,))


def rebase_videos(connection: sqlite3.Connection) -> None:
    """Let `media_relative` be what the SQL function `rebased` makes of it; an entry that was damaged stays so."""

    def resealed(crc: int, relative: str | None, *values: Any) -> int:
        if _crc(values) != crc:
            return crc
        return _crc((*values[:_RELATIVE], relative, *values[_RELATIVE + 1 :]))

    connection.create_function("resealed", len(_COLUMNS) + 2, resealed)
    new = "rebased(media_relative, media_absolute)"
    seal = f", entry_crc = resealed(entry_crc, {new}, {ENTRY})" if is_sealed(connection) else ""
    connection.execute(f"UPDATE videos SET media_relative = {new}{seal} WHERE media_absolute IS NOT NULL")


def seal_facts(connection: sqlite3.Connection) -> None:
    """Write the checksum of what holds for the whole index."""
    seal = str(_facts_crc(connection))
    connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (FACTS_SEAL, seal))


def facts_are_whole(connection: sqlite3.Connection) -> bool:
    """Does what holds for the whole index match its checksum? True where there is none yet."""
    row = connection.execute("SELECT value FROM meta WHERE name = ?", (FACTS_SEAL,)).fetchone()
    if row is None:
        return not is_sealed(connection)
    return bool(row[0] == str(_facts_crc(connection)))


def is_sealed(connection: sqlite3.Connection) -> bool:
    """Has this catalogue checksums? Those of the format version before have none."""
    return any(row[1] == "entry_crc" for row in connection.execute("PRAGMA table_info(videos)"))


def raise_version(connection: sqlite3.Connection) -> None:
    """Give a catalogue of the format version before its checksums, inside a transaction."""
    if not is_sealed(connection):
        connection.execute(ADD_SEALS)
        seal_videos(connection)
        connection.execute("UPDATE meta SET value = ? WHERE name = 'format_version'", (str(FORMAT_VERSION),))


def damaged_entries(connection: sqlite3.Connection, key: int | None = None) -> Iterator[str]:
    """The ids of the videos whose entries do not match their checksum; of one video, or of all."""
    if not is_sealed(connection):
        return
    connection.text_factory = _lenient_text
    condition, values = ("", ()) if key is None else ("WHERE video_key = ?", (key,))
    try:
        rows = connection.execute(f"SELECT entry_crc, {ENTRY} FROM videos {condition}", values)
        while portion := rows.fetchmany(_PORTION):
            yield from (ascii(row[2]) for row in portion if row[0] != _crc(row[1:]))
    finally:
        connection.text_factory = str


def _facts_crc(connection: sqlite3.Connection) -> int:
    facts: list[Any] = []
    for query in (
        f"SELECT name, value FROM meta WHERE name != '{FACTS_SEAL}' ORDER BY name",
        "SELECT store_key, relative, absolute FROM stores ORDER BY store_key",
        "SELECT segment_key, num_videos, coder, codes_crc FROM segments ORDER BY segment_key",
    ):
        facts.append(connection.execute(query).fetchall())
    return zlib.crc32(ascii(facts).encode())


def _crc(values: tuple[Any, ...]) -> int:
    return zlib.crc32(ascii(values).encode())


def _lenient_text(content: bytes) -> str:
    return content.decode(errors="surrogateescape")
