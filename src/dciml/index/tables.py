"""The tables of a catalogue: how they are opened, checksums over what they say, how a video enters and leaves.

A catalogue may come from anybody. Only our own tables and indexes are read: a view, a trigger, a computed column or
a virtual table is refused before any query, and functions of SQLite that reach outside are closed to the schema.

There is a checksum of each video's entry, and one of all that holds for the whole index. Where a video's vectors
lie is not part of its entry: the vectors have checksums of their own.
"""

from __future__ import annotations

import sqlite3
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from dciml.errors import ModelError
from dciml.index.references import FolderReference, check_inside
from dciml.index.videos import VideoDetails

FORMAT_NAME = "dciml index"
FORMAT_VERSION = 4
UNSEALED_VERSION = 3  # without checksums; still read, and raised to the present one by the next change
LOCK_SECONDS = 30.0
MAX_VALUE_BYTES = 1 << 24
_TABLES = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE stores (store_key INTEGER PRIMARY KEY, relative TEXT, absolute TEXT NOT NULL UNIQUE);
CREATE TABLE segments (
    segment_key INTEGER PRIMARY KEY AUTOINCREMENT,
    num_videos INTEGER NOT NULL,
    coder INTEGER,
    codes_crc INTEGER
);
CREATE TABLE videos (
    video_key INTEGER PRIMARY KEY AUTOINCREMENT,
    video_id TEXT NOT NULL,
    duration_seconds REAL NOT NULL CHECK (duration_seconds > 0),
    store_key INTEGER NOT NULL REFERENCES stores,
    title TEXT NOT NULL,
    media_relative TEXT,
    media_absolute TEXT,
    date_unix REAL,
    checksum TEXT,
    added_unix REAL NOT NULL,
    removed INTEGER,
    segment_key INTEGER REFERENCES segments,
    segment_row INTEGER,
    vectors_crc INTEGER
);
CREATE UNIQUE INDEX videos_of_today ON videos (video_id) WHERE removed IS NULL;
CREATE INDEX videos_of_segment ON videos (segment_key);
CREATE TABLE tags (
    tag TEXT NOT NULL,
    video_key INTEGER NOT NULL REFERENCES videos,
    PRIMARY KEY (tag, video_key)
) WITHOUT ROWID;
CREATE INDEX tags_of_video ON tags (video_key);
"""
# Tables are made in two steps, so that a new catalogue and one that was raised to this version are the same.
ADD_SEALS = "ALTER TABLE videos ADD COLUMN entry_crc INTEGER"


def create_tables(connection: sqlite3.Connection) -> None:
    """Make the tables of a new catalogue."""
    connection.executescript(_TABLES)
    connection.execute(ADD_SEALS)


def connect(file: Path, *, writes: bool = False) -> sqlite3.Connection:
    """Open a catalogue that exists, for reading or for changes.

    Raises:
        ModelError: it is a link out of its folder or no plain file, or holds other tables than ours.
        sqlite3.Error: it is no database, or damaged.
    """
    check_inside(file)
    # What a writer that was killed left half done is rolled back by the next one who opens it, if it may write.
    is_interrupted = file.with_name(f"{file.name}-journal").exists()
    mode = "rw" if writes or is_interrupted else "ro"
    # Without isolation_level=None the module would open transactions of its own.
    connection = sqlite3.connect(
        f"{file.absolute().as_uri()}?mode={mode}", uri=True, timeout=LOCK_SECONDS, isolation_level=None
    )
    try:
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_VALUE_BYTES)
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.execute("PRAGMA cell_size_check = ON")
        if not writes:
            connection.execute("PRAGMA query_only = ON")
        _check_schema(connection, file)
    except BaseException:
        connection.close()
        raise
    return connection


def check_version(file: Path, version: str | None) -> None:
    """Refuse a catalogue of another format version. Raises ModelError."""
    if version not in (str(FORMAT_VERSION), str(UNSEALED_VERSION)):
        raise ModelError(
            f"{file}: the index has format version {version}, this program reads version {FORMAT_VERSION}; build the "
            "index again with `dciml index`."
        )


def _check_schema(connection: sqlite3.Connection, file: Path) -> None:
    found = _schema_of(connection)
    if any(found == schema for schema in _schemas()):
        return
    ours = set().union(*_schemas())
    if {row[0] for row in found} == {"table", "index"} and any(row[1] == "meta" for row in found & ours):
        meta = dict(connection.execute("SELECT name, value FROM meta"))
        if meta.get("format") == FORMAT_NAME:
            check_version(file, meta.get("format_version"))
    foreign = sorted(f"the {row[0]} {row[1]!r}" for row in found - ours)
    what = f"it holds {foreign[0]}, which is not ours" if foreign else "tables of it are missing"
    raise ModelError(
        f"{file}: this is not the catalogue of a dciml index ({what}); restore a backup, or build it again."
    )


@cache
def _schemas() -> tuple[frozenset[tuple[str, ...]], ...]:
    """What SQLite says of catalogues of the two versions."""
    with closing(sqlite3.connect(":memory:")) as connection:
        found = []
        for script in (_TABLES, ADD_SEALS):
            connection.executescript(script)
            found.append(_schema_of(connection))
    return tuple(found)


def _schema_of(connection: sqlite3.Connection) -> frozenset[tuple[str, ...]]:
    """All that a database holds: type, name, table, and statement without its spaces, in which versions differ."""
    rows = connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_master")
    return frozenset((*map(str, row[:3]), "".join(str(row[3]).split())) for row in rows)


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


def store_key(connection: sqlite3.Connection, store: FolderReference) -> int:
    """The key of a feature store in the catalogue, entered when it is new."""
    row = connection.execute("SELECT store_key FROM stores WHERE absolute = ?", (store.absolute,)).fetchone()
    if row is not None:
        return int(row[0])
    cursor = connection.execute(
        "INSERT INTO stores (relative, absolute) VALUES (?, ?)", (store.relative, store.absolute)
    )
    return int(cursor.lastrowid or 0)


@dataclass(frozen=True)
class NewVideo:
    """A video to enter."""

    video_id: str
    duration_seconds: float
    details: VideoDetails


def insert_videos(
    connection: sqlite3.Connection, videos: Sequence[NewVideo], key_of_store: int, index_folder: Path
) -> list[int]:
    """Enter videos. Returns: their new keys, in the same order."""
    keys = []
    for video in videos:
        details = video.details
        media = None if details.media_path is None else FolderReference.to(details.media_path, index_folder)
        row = (
            video.video_id,
            video.duration_seconds,
            key_of_store,
            details.title_of(video.video_id),
            media and media.relative,
            media and media.absolute,
            details.date_unix,
            details.checksum,
            time.time(),
        )
        cursor = connection.execute(
            "INSERT INTO videos (video_id, duration_seconds, store_key, title, media_relative, "
            "media_absolute, date_unix, checksum, added_unix) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            row,
        )
        keys.append(int(cursor.lastrowid or 0))
        tags = [(tag, keys[-1]) for tag in dict.fromkeys(details.tags)]
        connection.executemany("INSERT INTO tags VALUES (?, ?)", tags)
    if keys:
        seal_videos(connection, keys[0])
    return keys


def remove_videos(connection: sqlite3.Connection, keys: Sequence[int], generation: int) -> None:
    """Mark videos as removed by the commit `generation`; readers of older states still find them."""
    connection.executemany(
        "UPDATE videos SET removed = ? WHERE video_key = ?", [(generation, int(key)) for key in keys]
    )


def purge_removed(connection: sqlite3.Connection) -> None:
    """Forget the removed videos for good."""
    gone = "SELECT video_key FROM videos WHERE removed IS NOT NULL"
    connection.execute(f"DELETE FROM tags WHERE video_key IN ({gone})")
    connection.execute("DELETE FROM videos WHERE removed IS NOT NULL")
