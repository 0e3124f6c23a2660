"""The catalogue of an index: its videos, and what holds for all of it, in SQLite."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from dciml.errors import DataError, ModelError
from dciml.files import atomic_path
from dciml.index.references import FolderReference
from dciml.index.videos import CatalogueVideo, VideoDetails, VideoFilter

FORMAT_NAME = "dciml index"
FORMAT_VERSION = 2
LOCK_SECONDS = 30.0
_SCHEMA = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE stores (store_key INTEGER PRIMARY KEY, relative TEXT, absolute TEXT NOT NULL UNIQUE);
CREATE TABLE videos (
    video_key INTEGER PRIMARY KEY AUTOINCREMENT,
    video_id TEXT NOT NULL UNIQUE,
    duration_seconds REAL NOT NULL CHECK (duration_seconds > 0),
    store_key INTEGER NOT NULL REFERENCES stores,
    title TEXT NOT NULL,
    media_relative TEXT,
    media_absolute TEXT,
    date_unix REAL,
    checksum TEXT,
    added_unix REAL NOT NULL
);
CREATE TABLE tags (
    tag TEXT NOT NULL,
    video_key INTEGER NOT NULL REFERENCES videos,
    PRIMARY KEY (tag, video_key)
) WITHOUT ROWID;
CREATE INDEX tags_of_video ON tags (video_key);
"""


@dataclass(frozen=True)
class IndexFacts:
    """What holds for the whole index. `model` is the folder of the model that made the vectors."""

    num_clips: int
    width: int
    fingerprint: str
    model: FolderReference


class VideoRow(NamedTuple):
    """What is kept in memory of a video; the rest is read when it is asked for."""

    key: int
    video_id: str
    duration_seconds: float
    store_key: int


@dataclass(frozen=True)
class Contents:
    """All that the catalogue held at one moment. `generation` names the vectors file that belongs to it."""

    facts: IndexFacts
    generation: int
    videos: tuple[VideoRow, ...]
    stores: dict[int, FolderReference]


class Catalogue:
    """The file `catalogue.sqlite`; every call opens and closes its own connection."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def create(self, facts: IndexFacts, store: FolderReference) -> None:
        """Write a catalogue without videos, atomically; generation 0."""
        meta = {
            "format": FORMAT_NAME,
            "format_version": str(FORMAT_VERSION),
            "generation": "0",
            "num_clips": str(facts.num_clips),
            "width": str(facts.width),
            "fingerprint": facts.fingerprint,
            "model_relative": facts.model.relative or "",
            "model_absolute": facts.model.absolute,
        }
        with atomic_path(self.file) as temporary, closing(_connect(temporary)) as connection:
            connection.executescript(_SCHEMA)
            connection.executemany("INSERT INTO meta VALUES (?, ?)", meta.items())
            store_key(connection, store)

    def read(self) -> Contents:
        """Read everything in one transaction.

        Raises:
            ModelError: not a catalogue, of another format version, or damaged.
        """
        try:
            with closing(_connect(self.file)) as connection:
                connection.execute("BEGIN")
                meta = dict(connection.execute("SELECT name, value FROM meta"))
                self._check_format(meta)
                videos = connection.execute(
                    "SELECT video_key, video_id, duration_seconds, store_key FROM videos ORDER BY video_key"
                ).fetchall()
                stores = connection.execute("SELECT * FROM stores").fetchall()
            facts = IndexFacts(
                int(meta["num_clips"]),
                int(meta["width"]),
                meta["fingerprint"],
                FolderReference(meta["model_relative"] or None, meta["model_absolute"]),
            )
            return Contents(
                facts,
                int(meta["generation"]),
                tuple(VideoRow(*row) for row in videos),
                {key: FolderReference(relative, absolute) for key, relative, absolute in stores},
            )
        except (sqlite3.Error, KeyError, ValueError, TypeError) as error:
            raise ModelError(f"{self.file}: this is not a usable index ({error}); build it again.") from error

    def video(self, key: int) -> CatalogueVideo | None:
        """All that is known of a video; None: it is there no more."""
        with closing(_connect(self.file)) as connection:
            connection.execute("BEGIN")
            row = connection.execute(
                "SELECT video_key, video_id, duration_seconds, title, date_unix, checksum, added_unix, "
                "media_relative, media_absolute FROM videos WHERE video_key = ?",
                (key,),
            ).fetchone()
            if row is None:
                return None
            tags = connection.execute("SELECT tag FROM tags WHERE video_key = ? ORDER BY tag", (key,))
            key, video_id, duration, title, date, checksum, added, relative, absolute = row
            media = None if absolute is None else FolderReference(relative, absolute).find(self.file.parent)
            names = tuple(tag for (tag,) in tags)
            return CatalogueVideo(key, video_id, duration, title, media, names, date, checksum, added)

    def select(self, wanted: VideoFilter) -> list[str]:
        """The ids of the videos that a filter lets through (`wanted.video_ids` aside), in the order of adding."""
        conditions, values = _conditions(wanted, self.file.parent)
        where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
        with closing(_connect(self.file)) as connection:
            rows = connection.execute(f"SELECT video_id FROM videos{where} ORDER BY video_key", values)
            return [video_id for (video_id,) in rows]

    @contextmanager
    def transaction(self, generation: int) -> Iterator[sqlite3.Connection]:
        """Change the catalogue; committed at the end with the next generation number, all or nothing.

        Args:
            generation: the generation that the change builds upon.
        Raises:
            DataError: another process writes, or has written since.
        """
        mend = "open the index again and repeat the change"
        with closing(_connect(self.file)) as connection:
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                raise DataError(f"the index is in use ({error})", where=self.file, mend=mend) from error
            try:
                (found,) = connection.execute("SELECT value FROM meta WHERE name = 'generation'").fetchone()
                if int(found) != generation:
                    raise DataError("another process changed the index", where=self.file, mend=mend)
                yield connection
                connection.execute(
                    "UPDATE meta SET value = ? WHERE name = 'generation'", (str(generation + 1),)
                )
                connection.execute("COMMIT")
            except BaseException:
                connection.rollback()
                raise

    def _check_format(self, meta: dict[str, str]) -> None:
        if meta.get("format") != FORMAT_NAME:
            raise ModelError(f"{self.file}: this is not the catalogue of a dciml index.")
        if meta.get("format_version") != str(FORMAT_VERSION):
            raise ModelError(
                f"{self.file}: the index has format version {meta.get('format_version')}, this program reads "
                f"version {FORMAT_VERSION}; build the index again with `dciml index`."
            )


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
    return keys


def delete_videos(connection: sqlite3.Connection, keys: Sequence[int]) -> None:
    """Take videos out by key."""
    connection.executemany("DELETE FROM tags WHERE video_key = ?", [(key,) for key in keys])
    connection.executemany("DELETE FROM videos WHERE video_key = ?", [(key,) for key in keys])


def _conditions(wanted: VideoFilter, index_folder: Path) -> tuple[list[str], list[str | float]]:
    """The SQL conditions of a filter, and their values."""
    limits = {
        "date_unix >= ?": wanted.after_unix,
        "date_unix < ?": wanted.before_unix,
        "duration_seconds >= ?": wanted.min_duration_seconds,
        "duration_seconds <= ?": wanted.max_duration_seconds,
        "video_key IN (SELECT video_key FROM tags WHERE tag = ?)": wanted.tag,
    }
    conditions = [condition for condition, value in limits.items() if value is not None]
    values: list[str | float] = [value for value in limits.values() if value is not None]
    if wanted.folder is not None:
        folder = FolderReference.to(Path(wanted.folder), index_folder)
        inside = "substr({0}, 1, length(?)) = ?"
        absolute = folder.absolute.rstrip(os.sep) + os.sep
        columns = {"media_absolute": absolute}
        if folder.relative is not None:
            columns["media_relative"] = f"{folder.relative}/"
        conditions.append(f"({' OR '.join(inside.format(column) for column in columns)})")
        values += [prefix for prefix in columns.values() for _ in range(2)]
    return conditions, values


def _connect(file: Path) -> sqlite3.Connection:
    # Without isolation_level=None the module would open transactions of its own.
    return sqlite3.connect(
        f"{file.absolute().as_uri()}?mode=rw", uri=True, timeout=LOCK_SECONDS, isolation_level=None
    )
