"""The catalogue of an index: its videos, and what holds for all of it, in SQLite."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dciml.errors import DataError, ModelError
from dciml.files import atomic_path
from dciml.index.entries import store_key
from dciml.index.options import IndexOptions
from dciml.index.references import FolderReference
from dciml.index.videos import CatalogueVideo, VideoFilter

FORMAT_NAME = "dciml index"
FORMAT_VERSION = 3
LOCK_SECONDS = 30.0
_SCHEMA = """
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


@dataclass(frozen=True)
class IndexFacts:
    """What holds for the whole index. `model` is the folder of the model that made the vectors."""

    num_clips: int
    width: int
    fingerprint: str
    model: FolderReference
    options: IndexOptions


@dataclass(frozen=True)
class SegmentEntry:
    """A file of vectors, of so many videos; `coder` numbers the coder of its codes, None: it has none."""

    key: int
    num_videos: int
    coder: int | None


@dataclass(frozen=True)
class Contents:
    """What the catalogue held at one moment: its videos in the order of adding, column by column, V each.

    Attributes:
        segments: by key. `segment_keys` and `segment_rows` say where a video's vectors lie, −1 when elsewhere.
    """

    facts: IndexFacts
    generation: int
    video_ids: tuple[str, ...]
    durations_seconds: NDArray[np.float64]
    keys: NDArray[np.int64]
    store_keys: NDArray[np.int64]
    segment_keys: NDArray[np.int64]
    segment_rows: NDArray[np.int64]
    segments: dict[int, SegmentEntry]
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
            "options": facts.options.to_json(),
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
                ids, columns = _read_videos(connection)
                segments = connection.execute(
                    "SELECT segment_key, num_videos, coder FROM segments"
                ).fetchall()
                stores = connection.execute("SELECT * FROM stores").fetchall()
            facts = IndexFacts(
                int(meta["num_clips"]),
                int(meta["width"]),
                meta["fingerprint"],
                FolderReference(meta["model_relative"] or None, meta["model_absolute"]),
                IndexOptions.from_json(meta["options"]),
            )
            keys, store_keys, segment_keys, rows = columns[1:].astype(np.int64)
            return Contents(
                facts,
                int(meta["generation"]),
                ids,
                columns[0],
                keys,
                store_keys,
                segment_keys,
                rows,
                segments={row[0]: SegmentEntry(*row) for row in segments},
                stores={key: FolderReference(relative, absolute) for key, relative, absolute in stores},
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

    def select(self, wanted: VideoFilter, generation: int, last_key: int) -> list[str]:
        """The ids of the videos that a filter lets through (`wanted.video_ids` aside), in the order of adding.

        Args:
            generation, last_key: of the state that is looked at; what was removed after it counts as there.
        """
        conditions, values = _conditions(wanted, self.file.parent)
        conditions += ["video_key <= ?", "(removed IS NULL OR removed > ?)"]
        values += [last_key, generation]
        with closing(_connect(self.file)) as connection:
            rows = connection.execute(
                f"SELECT video_id FROM videos WHERE {' AND '.join(conditions)} ORDER BY video_key", values
            )
            return [video_id for (video_id,) in rows]

    def find(self, fits: Callable[[str], bool], generation: int, last_key: int) -> list[str]:
        """The ids of the videos whose id, title or one of whose tags fits, in the order of adding.

        Args:
            generation, last_key: as for `select`.
        """
        with closing(_connect(self.file)) as connection:
            connection.create_function("fits", 1, fits, deterministic=True)
            rows = connection.execute(
                "SELECT video_id FROM videos WHERE video_key <= ? AND (removed IS NULL OR removed > ?) "
                "AND (fits(video_id) OR fits(title) OR video_key IN (SELECT video_key FROM tags WHERE tag IN "
                "(SELECT DISTINCT tag FROM tags WHERE fits(tag)))) ORDER BY video_key",
                (last_key, generation),
            )
            return [video_id for (video_id,) in rows]

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A connection that sees one committed state for as long as it lasts."""
        with closing(_connect(self.file)) as connection:
            connection.execute("BEGIN")
            yield connection

    @contextmanager
    def idle(self) -> Iterator[bool]:
        """Keep writers out; yields whether that was possible at once, that is, whether nobody was writing."""
        with closing(_connect(self.file)) as connection:
            connection.execute("PRAGMA busy_timeout = 0")
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                yield False
            else:
                yield True
                connection.rollback()

    def check(self, connection: sqlite3.Connection) -> list[str]:
        """What SQLite finds wrong with its file, a sentence each."""
        found = [str(row[0]) for row in connection.execute("PRAGMA integrity_check")]
        return [] if found == ["ok"] else [f"{self.file.name}: {what}" for what in found]

    def copy_to(self, file: Path) -> None:
        """Copy the last committed state to a new file."""
        with closing(_connect(self.file)) as connection, closing(sqlite3.connect(file)) as copy:
            connection.backup(copy)

    def vacuum(self) -> None:
        """Give the room of deleted rows back, unless another process is writing."""
        with closing(_connect(self.file)) as connection, suppress(sqlite3.OperationalError):
            connection.execute("VACUUM")

    def generation(self) -> int:
        """The number of the last commit."""
        with closing(_connect(self.file)) as connection:
            (found,) = connection.execute("SELECT value FROM meta WHERE name = 'generation'").fetchone()
            return int(found)

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


def _read_videos(connection: sqlite3.Connection) -> tuple[tuple[str, ...], NDArray[np.float64]]:
    """The ids, and the other columns (5, videos); read in portions, so that a million rows take little memory."""
    rows = connection.execute(
        "SELECT video_id, duration_seconds, video_key, store_key, ifnull(segment_key, -1), "
        "ifnull(segment_row, -1) FROM videos WHERE removed IS NULL ORDER BY video_key"
    )
    ids: list[str] = []
    parts = [np.empty((5, 0))]
    while portion := rows.fetchmany(50_000):
        names, *columns = zip(*portion, strict=True)
        ids += names
        parts.append(np.array(columns, dtype=np.float64))
    return tuple(ids), np.concatenate(parts, axis=1)


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
