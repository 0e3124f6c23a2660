"""Features from a folder of arrays, VIDEO.npy or VIDEO.npz; and arrays of any release as rows [T, D].

Features from a folder of arrays: VIDEO.npy or VIDEO.npz, one file a video.

`.npz` is the form of QVHighlights, moment_detr and lighthouse: the rows are the array `features`. Files that hold
pickled objects are refused, not loaded.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dciml.errors import DataError, Where
from dciml.inputs import check_input_file


def as_rows(values: NDArray[Any], place: Where) -> NDArray[Any]:
    """The array as rows (T, D); axes of length 1 between the two, as extractors leave them, are dropped.

    Raises:
        DataError: any other shape, or an empty axis.

    >>> import numpy as np
    >>> as_rows(np.zeros((7, 1, 1, 1024)), Where("a.npy")).shape
    (7, 1024)
    """
    return values.reshape(rows_shape(values.shape, place))


def rows_shape(shape: tuple[int, ...], place: Where) -> tuple[int, int]:
    """(T, D) of an array of this shape. Raises DataError as `as_rows`."""
    if len(shape) >= 2 and all(length == 1 for length in shape[1:-1]):
        if 0 in shape:
            what = f"it has no rows (its shape is {shape})"
            raise DataError(what, where=place, mend="extract the video again, or leave it out")
        return shape[0], shape[-1]
    raise DataError(
        f"the array has the shape {shape}, not [T, D]",
        where=place,
        mend="write rows × width, a row a time step",
    )


SUFFIXES = (".npy", ".npz")
FEATURES_KEY = "features"
MAX_ARRAY_BYTES = 8 << 30
"""Rows of one video."""


class ArrayFolderSource:
    """A folder of `.npy` or `.npz` files; a file's name without its ending is the video's id.

    Raises:
        DataError: no such file there, or a video has two.
    """

    encoder_specs: tuple[str, ...] = ()

    def __init__(self, path: Path, encoder: str, rows_per_second: float | None) -> None:
        self.path, self.encoder, self.rows_per_second = path, encoder, rows_per_second
        self.durations: Mapping[str, float] = {}
        self.splits: Mapping[str, str] = {}
        self._files: dict[str, Path] = {}
        self._shapes: dict[str, tuple[int, int]] = {}
        for file in sorted(path.iterdir()):
            if file.suffix not in SUFFIXES or file.name.startswith("."):
                continue
            if file.stem in self._files:
                what = f"the video {file.stem!r} has two files, {self._files[file.stem].name} and {file.name}"
                raise DataError(what, where=path, mend="remove one of them")
            self._files[file.stem] = file
        if not self._files:
            raise DataError("the folder holds no .npy or .npz file", where=path, mend="check the path")
        self.video_ids = tuple(self._files)

    def place(self, video_id: str) -> Where:
        """The file of a video."""
        return Where(self._files[video_id])

    def origin(self, video_id: str) -> str | None:
        """The file's name."""
        return self._files[video_id].name

    def num_rows(self, video_id: str) -> int:
        """Rows of a video. Raises DataError as `read`."""
        return self.shape(video_id)[0]

    def shape(self, video_id: str) -> tuple[int, int]:
        """Rows of a video and their width. Raises DataError as `read`."""
        if video_id not in self._shapes:
            rows, width = _rows(self._files[video_id]).shape
            self._shapes[video_id] = (rows, width)
        return self._shapes[video_id]

    def read(self, video_ids: Sequence[str]) -> Iterator[NDArray[Any]]:
        """The rows of these videos, one after another.

        Raises:
            DataError: a file is damaged, holds pickled objects or is not [T, D]; it is named.
        """
        for video_id in video_ids:
            yield _rows(self._files[video_id])


def _rows(file: Path) -> NDArray[Any]:
    check_input_file(file)
    try:
        if file.suffix == ".npz":
            with file.open("rb") as opened:
                values = _array_of(np.load(opened, allow_pickle=False), file)
        else:  # mapped, a file whose header promises more than it holds is refused before memory is taken
            values = np.lib.format.open_memmap(file, mode="r")
    except ValueError as error:
        if "pickle" in str(error) or "Python objects" in str(error):
            raise DataError(
                "the file holds Python objects, which are never loaded",
                where=file,
                mend="save the rows alone, as an array of numbers",
            ) from error
        raise _damaged(file, error) from error
    # The head of an array is Python's text, and a damaged one ends in errors of many kinds.
    except Exception as error:
        raise _damaged(file, error) from error
    return as_rows(values, Where(file))


def _array_of(archive: Any, file: Path) -> NDArray[Any]:
    if not isinstance(archive, np.lib.npyio.NpzFile):
        raise ValueError("it is no archive")
    with archive:
        names = archive.files
        name = FEATURES_KEY if FEATURES_KEY in names else names[0] if len(names) == 1 else None
        if name is None:
            held = ", ".join(names) or "none"
            raise DataError(
                f"there is no array {FEATURES_KEY!r}; the arrays are: {held}",
                where=Where(file, field=FEATURES_KEY),
                mend=f"save the rows as {FEATURES_KEY!r}",
            )
        _check_claim(archive, name)
        values = archive[name]
        if not isinstance(values, np.ndarray):  # a file in the archive that is no array comes back as bytes
            raise ValueError(f"{name} is no array")
        return values


def _check_claim(archive: Any, name: str) -> None:
    """Raises ValueError: an array that unpacks to more than is read of one video, or whose header claims more."""
    entry = next(info for info in archive.zip.infolist() if info.filename in (name, f"{name}.npy"))
    if entry.file_size > MAX_ARRAY_BYTES:
        raise ValueError(f"{name} unpacks to {entry.file_size:,} bytes; at most {MAX_ARRAY_BYTES:,} are read")
    with archive.zip.open(entry) as opened:
        version = np.lib.format.read_magic(opened)
        read_header = (
            np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        )
        shape, _, dtype = read_header(opened)
    claimed = math.prod(shape) * dtype.itemsize
    if claimed > entry.file_size:
        raise ValueError(f"the header claims {claimed:,} bytes, but {name} has {entry.file_size:,}")


def _damaged(file: Path, error: BaseException) -> DataError:
    kind = "zip archive of arrays" if file.suffix == ".npz" else "NumPy array"
    reason = str(error) or type(error).__name__
    return DataError(f"this is not a readable {kind} ({reason})", where=file, mend="copy or extract it again")
