"""The tables of a catalogue, and connections to it that run nothing that a file brings along.

A catalogue may come from anybody. Only our own tables and indexes are read: a view, a trigger, a computed column or
a virtual table is refused before any query, and functions of SQLite that reach outside are closed to the schema.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from functools import cache
from pathlib import Path

from dciml.errors import ModelError
from dciml.index.inside import check_inside

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
