"""The files of a feature store: rows that are only appended, the manifest and the index, read strictly."""

from __future__ import annotations

import json
import math
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from dciml.errors import DataError, Where
from dciml.files import read_json, write_json
from dciml.inputs import read_input
from dciml.strict import parse_json


class AppendedFile:
    """A file open for appending behind `size` bytes; whatever an interrupted writer left behind them is cut off.

    Nothing is kept in memory: what was written is in the file when `append` returns, and when it fails, no later
    call brings the missing part after it. `committed` is the size up to which it counts.

    Raises:
        DataError: the file is shorter than `size`.
    """

    def __init__(self, path: Path, size: int) -> None:
        path.touch()
        self._file = path.open("r+b", buffering=0)
        try:
            if os.fstat(self._file.fileno()).st_size < size:
                raise DataError(
                    "the file is shorter than its index says", where=path, mend="build the store again"
                )
            self.committed = size
            self.cut_back()
        except BaseException:
            self._file.close()
            raise

    def append(self, content: bytes | memoryview) -> None:
        """Write all of it at the end. Raises OSError, and then perhaps a part is there: `cut_back`."""
        rest = memoryview(content).cast("B")
        while len(rest):
            rest = rest[self._file.write(rest) :]

    def sync(self) -> None:
        """Force to disk what was appended."""
        os.fsync(self._file.fileno())

    def mark_committed(self) -> None:
        """Let what is there now count as committed; the caller has called `sync`."""
        self.committed = self._file.tell()

    def cut_back(self) -> None:
        """Drop what was appended since it was last marked as committed."""
        self._file.truncate(self.committed)
        self._file.seek(self.committed)

    def close(self) -> None:
        """Let go of the file, as it is."""
        self._file.close()


FORMAT_NAME = "dciml feature store"
FORMAT_VERSION = 1
MANIFEST_FILE, ROWS_FILE, INDEX_FILE = "manifest.json", "rows.bin", "index.jsonl"
ROW_DTYPE = np.dtype("<f2")
MAX_WIDTH = 1 << 20
REBUILD = "build the store again from its source"


@dataclass(frozen=True)
class StoreManifest:
    """What the rows of a store are: their encoder, their width, how many a second (None when it varies).

    `encoder_specs` are what makes such an encoder (`features.encoder_specs`); () where nothing is known of that. They
    may differ where a model lies elsewhere: two manifests without a difference but that are equal.
    """

    encoder: str
    width: int
    rows_per_second: float | None = None
    encoder_specs: tuple[str, ...] = field(default=(), compare=False, repr=False)

    def __post_init__(self) -> None:
        rate = self.rows_per_second
        if (
            not self.encoder
            or self.width < 1
            or (rate is not None and not (math.isfinite(rate) and rate > 0))
        ):
            raise ValueError(
                f"a manifest needs an encoder's name, width ≥ 1 and a positive rate, not {self!r}"
            )

    def __str__(self) -> str:
        """As a user reads it.

        >>> str(StoreManifest("net", 512, 2.0))
        "rows of 'net', 512 wide, 2 a second"
        """
        rate = "" if self.rows_per_second is None else f", {self.rows_per_second:g} a second"
        return f"rows of {self.encoder!r}, {self.width} wide{rate}"


@dataclass(frozen=True, slots=True)
class FileStamp:
    """What a media file was when its rows were made: size, time of its last change, SHA-256 (hex) of its content.

    Where other files beside it were read too, sizes are summed, the latest change counts, and all contents are hashed.
    """

    num_bytes: int
    mtime_ns: int
    sha256: str


@dataclass(frozen=True, slots=True)
class StoreEntry:
    """One line of the index. `offset` and `rows` count rows; `crc32` is of the video's row bytes.

    A line that `supersedes` takes the place of an earlier one of the same video, whose rows stay unused in the file.
    """

    video_id: str
    offset: int
    rows: int
    duration_seconds: float
    crc32: int
    source: str | None = None
    stamp: FileStamp | None = None
    supersedes: bool = False

    def to_line(self) -> str:
        """The line of the index file, with its line break."""
        fields = {
            key: value for key, value in asdict(self).items() if value is not None and value is not False
        }
        return json.dumps(fields, ensure_ascii=False, allow_nan=False) + "\n"


def write_manifest(path: Path, manifest: StoreManifest) -> None:
    """Write a store's manifest, atomically."""
    head = {"format": FORMAT_NAME, "format_version": FORMAT_VERSION}
    content = asdict(manifest)
    if not manifest.encoder_specs:
        del content["encoder_specs"]
    write_json(path / MANIFEST_FILE, head | content | {"dtype": "float16"})


def read_manifest(path: Path) -> StoreManifest:
    """Read a store's manifest. Raises DataError: not a store, or of another version."""
    file = path / MANIFEST_FILE
    if not file.exists():
        what = (
            "this is not a feature store (no manifest.json)" if path.exists() else "there is no such folder"
        )
        raise DataError(what, where=path, mend="name the folder of a feature store, or import features first")
    raw = read_json(file)
    if not isinstance(raw, dict) or raw.get("format") != FORMAT_NAME:
        raise DataError("this is not the manifest of a feature store", where=file, mend="check the path")
    if raw.get("format_version") != FORMAT_VERSION or raw.get("dtype") != "float16":
        found = f"version {raw.get('format_version')!r}, dtype {raw.get('dtype')!r}"
        raise DataError(f"the store's format is unknown ({found})", where=file, mend=REBUILD)
    try:
        rate = raw["rows_per_second"]
        return StoreManifest(
            str(raw["encoder"]),
            _parse_width(raw["width"]),
            None if rate is None else float(rate),
            _parse_specs(raw.get("encoder_specs", [])),  # stores of before do not say
        )
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise DataError(f"the manifest is damaged ({error})", where=file, mend=REBUILD) from error


def _parse_width(raw: Any) -> int:
    if type(raw) is not int or not 1 <= raw <= MAX_WIDTH:
        raise ValueError(f"the width is {raw!r}")
    return raw


def _parse_specs(raw: Any) -> tuple[str, ...]:
    if not isinstance(raw, list) or not all(isinstance(spec, str) for spec in raw):
        raise ValueError(f"encoder_specs is {raw!r}")
    return tuple(raw)


def committed_bytes(path: Path) -> bytes:
    """The index file up to the end of its last complete line."""
    file = path / INDEX_FILE
    content = read_input(file) if file.exists() else b""
    return content[: content.rfind(b"\n") + 1]


def read_entries(path: Path) -> list[StoreEntry]:
    """All complete lines of the index, superseded ones too. Raises DataError where a complete line is damaged."""
    entries: list[StoreEntry] = []
    seen: set[str] = set()
    end = 0
    for number, line in enumerate(committed_bytes(path).split(b"\n")[:-1], start=1):
        where = Where(path / INDEX_FILE, number)
        entry = _parse_entry(line, where)
        if entry.video_id in seen and not entry.supersedes:
            raise DataError(f"the video {entry.video_id!r} comes a second time", where=where, mend=REBUILD)
        if entry.offset != end or entry.rows < 1:
            raise DataError("the rows do not follow those of the line before", where=where, mend=REBUILD)
        seen.add(entry.video_id)
        entries.append(entry)
        end += entry.rows
    return entries


def _parse_entry(line: bytes, where: Where) -> StoreEntry:
    try:
        raw: dict[str, Any] = parse_json(line.decode(), where)
        duration = float(raw["duration_seconds"])
        if not (math.isfinite(duration) and duration > 0):
            raise ValueError(f"duration_seconds is {duration}")
        return StoreEntry(
            video_id=str(raw["video_id"]),
            offset=int(raw["offset"]),
            rows=int(raw["rows"]),
            duration_seconds=duration,
            crc32=int(raw["crc32"]),
            source=raw.get("source"),
            stamp=_parse_stamp(raw["stamp"]) if "stamp" in raw else None,
            supersedes=bool(raw.get("supersedes", False)),
        )
    except DataError as error:
        raise DataError(f"the index is damaged: {error.what}", where=where, mend=REBUILD) from error
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise DataError(f"the index is damaged ({error})", where=where, mend=REBUILD) from error


def _parse_stamp(raw: dict[str, Any]) -> FileStamp:
    return FileStamp(int(raw["num_bytes"]), int(raw["mtime_ns"]), str(raw["sha256"]))
