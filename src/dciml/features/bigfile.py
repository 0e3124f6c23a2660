"""Features in the "BigFile" form of the PRVR releases (MS-SL, GMMFormer and their kin).

feature.bin        float32, little-endian, one row a frame
shape.txt          number of rows, width
id.txt             a name for each row, separated by white space (ISO 8859-1)
video2frames.txt   a Python dict {'VIDEO': ['ROW NAME', …], …}, read as text, never evaluated
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dciml.errors import DataError, Where
from dciml.features.literal_dict import read_literal_dict
from dciml.files import read_text
from dciml.inputs import read_input

BIN_FILE, SHAPE_FILE, ID_FILE, VIDEOS_FILE = "feature.bin", "shape.txt", "id.txt", "video2frames.txt"
_AGAIN = "unpack the release again"


class BigFileSource:
    """A BigFile folder. Its rows stay on disk until they are read.

    Raises:
        DataError: a file is missing or malformed, the four do not agree, or a video names a row that is not there.
    """

    encoder_specs: tuple[str, ...] = ()

    def __init__(self, path: Path, encoder: str, rows_per_second: float | None) -> None:
        self.path, self.encoder, self.rows_per_second = path, encoder, rows_per_second
        self.durations: Mapping[str, float] = {}
        self.splits: Mapping[str, str] = {}
        num_rows, self._width = _read_shape(path / SHAPE_FILE)
        index_of = _read_names(path / ID_FILE, num_rows)
        self._rows = _map_rows(path / BIN_FILE, num_rows, self._width)
        self._indices = {
            video_id: _indices(video_id, names, index_of, path / VIDEOS_FILE)
            for video_id, names in read_literal_dict(path / VIDEOS_FILE)
        }
        if not self._indices:
            raise DataError("the file names no video", where=path / VIDEOS_FILE, mend=_AGAIN)
        self.video_ids = tuple(self._indices)

    def place(self, video_id: str) -> Where:
        """The rows of a video."""
        return Where(self.path / BIN_FILE, field=video_id)

    def origin(self, video_id: str) -> str | None:
        """The folder's name."""
        return self.path.name

    def num_rows(self, video_id: str) -> int:
        """Rows of a video."""
        return len(self._indices[video_id])

    def shape(self, video_id: str) -> tuple[int, int]:
        """Rows of a video and their width."""
        return len(self._indices[video_id]), self._width

    def read(self, video_ids: Sequence[str]) -> Iterator[NDArray[Any]]:
        """The rows of these videos, one after another, in the order in which `video2frames.txt` names them."""
        for video_id in video_ids:
            yield self._rows[self._indices[video_id]]


def is_bigfile(path: Path) -> bool:
    """Whether a folder looks like one of this form, whole or not."""
    return any((path / name).is_file() for name in (BIN_FILE, SHAPE_FILE, VIDEOS_FILE))


_COUNT = re.compile(r"0*[1-9][0-9]{0,14}")


def _read_shape(path: Path) -> tuple[int, int]:
    parts = read_text(path).split()
    if len(parts) != 2 or not all(_COUNT.fullmatch(part) for part in parts):
        what = f"{' '.join(parts)[:40]!r} is not the number of rows and their width"
        raise DataError(what, where=Where(path, 1), mend=_AGAIN)
    return int(parts[0]), int(parts[1])


def _read_names(path: Path, num_rows: int) -> dict[str, int]:
    if not path.is_file():
        raise DataError("there is no such file", where=path, mend=_AGAIN)
    names = read_input(path).decode("iso-8859-1").split()
    if len(names) != num_rows:
        what = f"there are {len(names):,} names, but {SHAPE_FILE} says {num_rows:,} rows"
        raise DataError(what, where=path, mend=_AGAIN)
    index_of = {name: index for index, name in enumerate(names)}
    if len(index_of) != num_rows:
        twice = next(name for index, name in enumerate(names) if index_of[name] != index)
        raise DataError(f"the row name {twice!r} comes twice", where=path, mend=_AGAIN)
    return index_of


def _map_rows(path: Path, num_rows: int, width: int) -> NDArray[np.float32]:
    expected = num_rows * width * 4
    size = path.stat().st_size if path.is_file() else None
    if size is None:
        raise DataError("there is no such file", where=path, mend=_AGAIN)
    if size != expected:
        what = (
            f"the file has {size:,} bytes, but {num_rows:,} rows of {width} float32 numbers take {expected:,}"
        )
        raise DataError(what, where=path, mend=_AGAIN)
    return np.memmap(path, dtype="<f4", mode="r", shape=(num_rows, width))


def _indices(
    video_id: str, names: Sequence[str], index_of: Mapping[str, int], path: Path
) -> NDArray[np.int64]:
    if not names:
        raise DataError("the video has no rows", where=Where(path, field=video_id), mend="remove the entry")
    try:
        return np.array([index_of[name] for name in names], dtype=np.int64)
    except KeyError as error:
        what = f"the row {error.args[0]!r} is not in {ID_FILE}"
        raise DataError(what, where=Where(path, field=video_id), mend=_AGAIN) from None
