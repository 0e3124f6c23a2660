"""The catalogue of an index: its videos, and what holds for all of it, in SQLite."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from dciml.errors import DataError, ModelError
from dciml.files import atomic_path
from dciml.index.references import FolderReference
from dciml.index.tables import (
    FORMAT_NAME,
    FORMAT_VERSION,
    check_version,
    connect,
    create_tables,
    damaged_entries,
    facts_are_whole,
    is_sealed,
    raise_version,
    seal_facts,
    store_key,
)
from dciml.index.videos import CatalogueVideo, VideoFilter


@dataclass(frozen=True)
class IndexOptions:
    """See the settings of the same names in `dciml.config.IndexConfig`.

    Attributes:
        dtype: of the vectors on disk.
        exact_videos: up to this many videos every search is exact; beyond, codes find the candidates.
        code_bytes: of the code of a vector: 4 bits for each pair of its first 4 · code_bytes principal axes, rotated.
        candidate_vectors: vectors that the codes hand on for each video asked for, in up to 20,000 videos.
        store: `milvus:URI` for vectors in a Milvus database; None: in the index folder.
        collection: of that database, given by `ClipIndex.create`.
    """

    dtype: Literal["float32", "float16"] = "float32"
    exact_videos: int = 10_000
    code_bytes: int = 48
    candidate_vectors: int = 40
    store: str | None = None
    collection: str | None = None

    def __post_init__(self) -> None:
        numbers = {
            "exact_videos": (self.exact_videos, 0, 1 << 40),
            "code_bytes": (self.code_bytes, 1, 1 << 14),
            "candidate_vectors": (self.candidate_vectors, 1, 1 << 20),
        }
        for name, (value, least, most) in numbers.items():
            if type(value) is not int or not least <= value <= most:
                raise ValueError(f"{name} must be a whole number from {least} to {most}, not {value!r}")
        if self.dtype not in ("float32", "float16"):
            raise ValueError(f"dtype must be float32 or float16, not {self.dtype!r}")
        if not all(value is None or isinstance(value, str) for value in (self.store, self.collection)):
            raise ValueError("store and collection must be text")

    def to_json(self) -> str:
        """As kept in the catalogue."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> IndexOptions:
        """Read what `to_json` wrote. Raises ValueError or TypeError for anything else."""
        return cls(**json.loads(text))


MAX_CLIPS, MAX_WIDTH = 1 << 12, 1 << 16
MAX_KEY = 1 << 53  # up to here float64 holds every whole number
CHECKED_VIDEOS = 10_000  # up to this many entries are compared with their checksums on opening


@dataclass(frozen=True)
class IndexFacts:
    """What holds for the whole index. `model` is the folder of the model that made the vectors."""

    num_clips: int
    width: int
    fingerprint: str
    model: FolderReference
    options: IndexOptions

    def __post_init__(self) -> None:
        if not (1 <= self.num_clips <= MAX_CLIPS and 1 <= self.width <= MAX_WIDTH):
            raise ValueError(f"{self.num_clips} clips a video of width {self.width} are out of range")


@dataclass(frozen=True)
class SegmentEntry:
    """A file of vectors of a number of videos; `coder` numbers the coder of its codes, None: it has none.

    `codes_crc` is the CRC-32 of the file of codes.
    """

    key: int
    num_videos: int
    coder: int | None
    codes_crc: int | None

    def __post_init__(self) -> None:
        numbers = [self.key, self.num_videos]
        if self.coder is not None:
            numbers += [self.coder, self.codes_crc or 0]
        if not all(isinstance(number, int) and 0 <= number < MAX_KEY for number in numbers):
            raise ValueError(f"the segment {self.key!r} has a number out of range")


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
        with (
            atomic_path(self.file) as temporary,
            closing(sqlite3.connect(temporary, isolation_level=None)) as connection,
        ):
            create_tables(connection)
            connection.executemany("INSERT INTO meta VALUES (?, ?)", meta.items())
            store_key(connection, store)
            seal_facts(connection)

    def read(self) -> Contents:
        """Read everything in one transaction.

        Raises:
            ModelError: not a catalogue, of another format version, or damaged.
        """
        try:
            with self.reading() as connection:
                meta = dict(connection.execute("SELECT name, value FROM meta"))
                self._check_format(meta)
                if not facts_are_whole(connection):
                    raise ValueError("what it says of the whole index does not match its checksum")
                ids, columns = _read_videos(connection)
                if len(ids) <= CHECKED_VIDEOS:
                    for damaged in damaged_entries(connection):
                        raise ValueError(f"the entry of the video {damaged} does not match its checksum")
                segments = connection.execute(
                    "SELECT segment_key, num_videos, coder, codes_crc FROM segments ORDER BY segment_key"
                ).fetchall()
                stores = connection.execute("SELECT store_key, relative, absolute FROM stores").fetchall()
            facts = IndexFacts(
                int(meta["num_clips"]),
                int(meta["width"]),
                meta["fingerprint"],
                FolderReference(meta["model_relative"] or None, meta["model_absolute"]),
                IndexOptions.from_json(meta["options"]),
            )
            keys, store_keys, segment_keys, rows = columns[1:].astype(np.int64)
            contents = Contents(
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
            _check_contents(contents)
            return contents
        except (sqlite3.Error, KeyError, ValueError, TypeError, OverflowError, RecursionError) as error:
            raise self._damaged(error) from error

    def verify(self) -> list[str]:
        """Read everything and compare checksums. Returns: a sentence for each damage."""
        name = self.file.name
        try:
            with self.reading() as connection:
                checked = [str(row[0]) for row in connection.execute("PRAGMA integrity_check(20)")]
                found = [] if checked == ["ok"] else [f"{name}: {what}" for what in checked]
                if not facts_are_whole(connection):
                    found.append(f"{name}: what it says of the whole index does not match its checksum")
                damaged = damaged_entries(connection)
                found += [f"video {named}: its entry does not match its checksum" for named in damaged]
            return found
        except ModelError as error:
            return [str(error)]
        except sqlite3.Error as error:
            return [str(self._damaged(error))]

    def is_sealed(self) -> bool:
        """Has it checksums? Those of the format version before have none until the next change."""
        with self.reading() as connection:
            return is_sealed(connection)

    def _damaged(self, error: Exception) -> ModelError:
        return ModelError(
            f"{self.file}: this is not a usable index ({error}); restore a backup, or build it again."
        )

    def video(self, key: int) -> CatalogueVideo | None:
        """All that is known of a video; None: it is there no more.

        Raises:
            ModelError: its entry does not match its checksum.
        """
        with self.reading() as connection:
            for damaged in damaged_entries(connection, key):
                raise ModelError(
                    f"{self.file}: the entry of the video {damaged} is damaged; restore a backup, or take it out and "
                    "add it again."
                )
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

    def media_paths(self) -> dict[str, str]:
        """The file of each video that has one, as `CatalogueVideo.media_path`, by id."""
        with self.reading() as connection:
            rows = connection.execute(
                "SELECT video_id, media_relative, media_absolute FROM videos "
                "WHERE removed IS NULL AND media_absolute IS NOT NULL ORDER BY video_key"
            )
            return {
                video_id: FolderReference(relative, absolute).find(self.file.parent)
                for video_id, relative, absolute in rows
            }

    def select(self, wanted: VideoFilter, generation: int, last_key: int) -> list[str]:
        """The ids of the videos that a filter lets through (`wanted.video_ids` aside), in the order of adding.

        Args:
            generation, last_key: of the state that is looked at; what was removed after it counts as there.
        """
        conditions, values = _conditions(wanted, self.file.parent)
        conditions += ["video_key <= ?", "(removed IS NULL OR removed > ?)"]
        values += [last_key, generation]
        with self.reading() as connection:
            rows = connection.execute(
                f"SELECT video_id FROM videos WHERE {' AND '.join(conditions)} ORDER BY video_key", values
            )
            return [video_id for (video_id,) in rows]

    def find(self, fits: Callable[[str], bool], generation: int, last_key: int) -> list[str]:
        """The ids of the videos whose id, title or one of whose tags fits, in the order of adding.

        Args:
            generation, last_key: as for `select`.
        """
        with self.reading() as connection:
            connection.create_function("fits", 1, fits, deterministic=True)
            rows = connection.execute(
                "SELECT video_id FROM videos WHERE video_key <= ? AND (removed IS NULL OR removed > ?) "
                "AND (fits(video_id) OR fits(title) OR video_key IN (SELECT video_key FROM tags WHERE tag IN "
                "(SELECT DISTINCT tag FROM tags WHERE fits(tag)))) ORDER BY video_key",
                (last_key, generation),
            )
            return [video_id for (video_id,) in rows]

    def same_titles(self, generation: int, last_key: int) -> list[tuple[str, str, str | None]]:
        """Id, title and file, as it was called when it came, of all videos whose title another one has too.

        Args:
            generation, last_key: as for `select`.
        """
        there = "video_key <= ? AND (removed IS NULL OR removed > ?)"
        with self.reading() as connection:
            rows = connection.execute(
                f"SELECT video_id, title, media_absolute FROM videos WHERE {there} AND title IN "
                f"(SELECT title FROM videos WHERE {there} GROUP BY title HAVING count(*) > 1) ORDER BY video_key",
                (last_key, generation, last_key, generation),
            )
            return [(video_id, title, file) for video_id, title, file in rows]

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A connection that sees one committed state for as long as it lasts."""
        with closing(connect(self.file)) as connection:
            connection.execute("BEGIN")
            yield connection

    @contextmanager
    def rewriting(self) -> Iterator[sqlite3.Connection]:
        """Change a copy that nothing else has open; no change of the index, so no commit is counted."""
        with closing(connect(self.file, writes=True)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            yield connection
            if is_sealed(connection):
                seal_facts(connection)
            connection.execute("COMMIT")

    @contextmanager
    def idle(self) -> Iterator[bool]:
        """Keep writers out; yields whether that was possible at once, that is, whether no change was being written."""
        with closing(connect(self.file, writes=True)) as connection:
            connection.execute("PRAGMA busy_timeout = 0")
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                yield False
            else:
                yield True
                connection.rollback()

    def copy_to(self, file: Path) -> None:
        """Copy the last committed state to a new file."""
        with closing(connect(self.file)) as connection, closing(sqlite3.connect(file)) as copy:
            connection.backup(copy)

    def vacuum(self) -> None:
        """Give the room of deleted rows back, unless another process is writing."""
        with closing(connect(self.file, writes=True)) as connection, suppress(sqlite3.OperationalError):
            connection.execute("VACUUM")

    def generation(self) -> int:
        """The number of the last commit. Raises ModelError, sqlite3.Error: it cannot be read."""
        with closing(connect(self.file)) as connection:
            return self._generation(connection)

    def _generation(self, connection: sqlite3.Connection) -> int:
        row = connection.execute("SELECT value FROM meta WHERE name = 'generation'").fetchone()
        if row is None or not str(row[0]).isdecimal() or len(row[0]) > 18:
            raise self._damaged(ValueError("it does not say how often it was changed"))
        return int(row[0])

    @contextmanager
    def transaction(self, generation: int) -> Iterator[sqlite3.Connection]:
        """Change the catalogue; committed at the end with the next generation number, all or nothing.

        Args:
            generation: the generation that the change builds upon.
        Raises:
            DataError: another process writes, or has written since.
        """
        mend = "open the index again and repeat the change"
        with closing(connect(self.file, writes=True)) as connection:
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                raise DataError(f"the index is in use ({error})", where=self.file, mend=mend) from error
            try:
                if self._generation(connection) != generation:
                    raise DataError("another process changed the index", where=self.file, mend=mend)
                raise_version(connection)
                yield connection
                connection.execute(
                    "UPDATE meta SET value = ? WHERE name = 'generation'", (str(generation + 1),)
                )
                seal_facts(connection)
                connection.execute("COMMIT")
            except BaseException:
                connection.rollback()
                raise

    def _check_format(self, meta: dict[str, str]) -> None:
        if meta.get("format") != FORMAT_NAME:
            raise ModelError(f"{self.file}: this is not the catalogue of a dciml index.")
        check_version(self.file, meta.get("format_version"))


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
    columns_of_all = np.concatenate(parts, axis=1)
    if not (np.abs(columns_of_all) < MAX_KEY).all():  # so that they become whole numbers as they are
        raise ValueError("a number of a video is out of range")
    return tuple(ids), columns_of_all


def _check_contents(contents: Contents) -> None:
    """Refuse what no index of ours would say. Raises ValueError, TypeError."""
    for text in (contents.facts.fingerprint, *contents.video_ids):
        if not isinstance(text, str) or not text:
            raise TypeError(f"{text!r} is not a name")
    if len(set(contents.video_ids)) != len(contents.video_ids):
        raise ValueError("a video comes twice")
    if not (contents.durations_seconds > 0).all():
        raise ValueError("a duration is not positive")
    if not contents.stores or not np.isin(contents.store_keys, list(contents.stores)).all():
        raise ValueError("a video is in no feature store")
    if contents.generation < 0:
        raise ValueError("the number of changes is negative")


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
        folder = _folder_reference(wanted.folder, index_folder)
        inside = "substr({0}, 1, length(?)) = ?"
        absolute = folder.absolute.rstrip(os.sep) + os.sep
        columns = {"media_absolute": absolute}
        if folder.relative is not None:
            columns["media_relative"] = f"{folder.relative}/"
        conditions.append(f"({' OR '.join(inside.format(column) for column in columns)})")
        values += [prefix for prefix in columns.values() for _ in range(2)]
    return conditions, values


def _folder_reference(folder: str | Path, index_folder: Path) -> FolderReference:
    try:
        return FolderReference.to(Path(folder), index_folder)
    except (OSError, RuntimeError, ValueError) as error:  # a loop of links; a NUL, half a surrogate pair
        raise DataError(
            "the folder of the filter is no path that can be followed", mend="name another"
        ) from error
