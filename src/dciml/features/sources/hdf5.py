"""Features from an HDF5 file: one dataset [T, D] per video; only plain numbers inside the file are read.

What of an HDF5 file is read at all: plain numbers inside the file, of a size that its bytes can hold.

An HDF5 file can name other files (external storage and links, virtual datasets) and code (filters of plug-ins), and a
few bytes of it can claim terabytes. All that is refused by name before a row is read.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from dciml.errors import DataError, Where
from dciml.features.sources.arrays import as_rows, rows_shape
from dciml.inputs import check_input_file

MAX_DATASET_BYTES = 8 << 30
"""Rows of one video: 8 GiB are some 38 hours of 30 rows a second, 512 wide."""
MAX_CHUNK_BYTES = 1 << 30
MAX_EXPANSION = 1100
"""A byte of the file expands to at most this many: deflate reaches 1,032."""

_FREE_BYTES = 64 << 20  # so small a dataset may be anything: constant, or never written
_FILTERS = {1: "deflate", 2: "shuffle", 3: "fletcher32", 4: "szip", 5: "nbit", 6: "scaleoffset", 32000: "lzf"}
_DAMAGE = (OSError, RuntimeError, ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError)


@contextmanager
def opened_hdf5(path: Path) -> Iterator[h5py.File]:
    """An HDF5 file for reading. Raises DataError: no regular file, empty, or not HDF5."""
    if check_input_file(path) == 0:
        raise DataError("the file is empty", where=path, mend="check how it was written")
    try:
        file = h5py.File(path, "r")
    except _DAMAGE as error:
        raise DataError(
            f"this is not a readable HDF5 file ({error})", where=path, mend="check the file"
        ) from error
    with file:
        yield file


@contextmanager
def damage_named(place: Where) -> Iterator[None]:
    """Turns what h5py raises on damaged content into a DataError of this place."""
    try:
        yield
    except (*_DAMAGE, MemoryError) as error:
        reason = str(error) or type(error).__name__
        raise DataError(
            f"this cannot be read, the file is damaged ({reason})", where=place, mend="copy or write it again"
        ) from error


def item_inside(group: h5py.Group, name: str, place: Where) -> Any:
    """The object of this name. Raises DataError: it is a link, or damaged."""
    with damage_named(place):
        link = group.get(name, getlink=True)
        if isinstance(link, h5py.ExternalLink | h5py.SoftLink):
            kind = "an external link" if isinstance(link, h5py.ExternalLink) else "a soft link"
            mend = "copy the dataset itself into the file"
            raise DataError(f"this is {kind}, which is not followed", where=place, mend=mend)
        return group[name]


def check_dataset(dataset: h5py.Dataset, place: Where) -> None:
    """Raises DataError: no plain numbers inside this file, or more of them than its bytes can hold."""
    with damage_named(place):
        kind, item_size = dataset.dtype.kind, dataset.dtype.itemsize
        shape, chunks = dataset.shape, dataset.chunks
        properties = dataset.id.get_create_plist()
        if properties.get_external_count():
            raise _refused("its rows lie in another file (external storage)", place)
        if properties.get_layout() == h5py.h5d.VIRTUAL:
            raise _refused("it is a virtual dataset, made of others", place)
        filters = [properties.get_filter(number)[0] for number in range(properties.get_nfilters())]
        unknown = [number for number in filters if number not in _FILTERS]
        if unknown:
            raise _refused(f"it is packed by the filter {unknown[0]}, which HDF5 does not bring along", place)
        if kind not in "fiub":
            raise _refused(f"it holds no numbers ({dataset.dtype})", place)
        num_bytes = item_size
        for length in shape or ():
            num_bytes *= int(length)
        chunk_bytes = item_size
        for length in chunks or ():
            chunk_bytes *= int(length)
        stored = int(dataset.id.get_storage_size())
    _check_size(num_bytes, chunk_bytes, stored, shape, place)


def _check_size(
    num_bytes: int, chunk_bytes: int, stored: int, shape: tuple[int, ...] | None, place: Where
) -> None:
    mend = "check how the file was written"
    if num_bytes > MAX_DATASET_BYTES:
        what = f"its shape {shape} takes {num_bytes:,} bytes; at most {MAX_DATASET_BYTES:,} are read"
        raise DataError(what, where=place, mend=mend)
    if chunk_bytes > max(MAX_CHUNK_BYTES, 2 * num_bytes):
        raise DataError(f"its chunks take {chunk_bytes:,} bytes each", where=place, mend=mend)
    if num_bytes > _FREE_BYTES and num_bytes > MAX_EXPANSION * stored:
        what = f"its shape {shape} takes {num_bytes:,} bytes, but the file holds {stored:,} of it"
        raise DataError(what, where=place, mend=mend)


def _refused(what: str, place: Where) -> DataError:
    return DataError(
        f"the dataset is refused: {what}", where=place, mend="write plain numbers, with gzip at most"
    )


C3D_DATASET = "c3d_features"  # in each video's group of sub_activitynet_v1-3.c3d.hdf5


@dataclass(frozen=True, slots=True)
class Hdf5Video:
    """What an HDF5 file says of a video without its rows being read; None where it says nothing."""

    video_id: str
    shape: tuple[int, ...]
    duration_seconds: float | None
    split: str | None


class Hdf5Source:
    """An HDF5 file; `encoder` and `rows_per_second` go into the store's manifest, since such a file does not say.

    Raises:
        DataError: not an HDF5 file, or one without videos, or an attribute of the wrong kind.
    """

    encoder_specs: tuple[str, ...] = ()

    def __init__(self, path: Path, encoder: str, rows_per_second: float | None) -> None:
        self.path, self.encoder, self.rows_per_second = path, encoder, rows_per_second
        self._videos = scan_hdf5(path)
        videos = self._videos.values()
        self.video_ids = tuple(self._videos)
        self.durations = {v.video_id: v.duration_seconds for v in videos if v.duration_seconds is not None}
        self.splits = {v.video_id: v.split for v in videos if v.split is not None}

    def place(self, video_id: str) -> Where:
        """The dataset of a video."""
        return Where(self.path, field=video_id)

    def origin(self, video_id: str) -> str | None:
        """The file's name."""
        return self.path.name

    def num_rows(self, video_id: str) -> int:
        """Rows of a video. Raises DataError: its dataset is not [T, D]."""
        return self.shape(video_id)[0]

    def shape(self, video_id: str) -> tuple[int, int]:
        """Rows of a video and their width. Raises DataError as `num_rows`."""
        return rows_shape(self._videos[video_id].shape, self.place(video_id))

    def read(self, video_ids: Sequence[str]) -> Iterator[NDArray[Any]]:
        """The rows of these videos, one after another. Raises DataError: a dataset is not [T, D] or is damaged."""
        with opened_hdf5(self.path) as file:
            for video_id in video_ids:
                place = self.place(video_id)
                dataset = _dataset(file, video_id, place)
                rows_shape(dataset.shape, place)  # before a dataset of another kind is read as a whole
                with damage_named(place):
                    values = np.asarray(dataset[...])
                yield as_rows(values, place)


def scan_hdf5(path: str | Path) -> Mapping[str, Hdf5Video]:
    """List the videos of a file, in its order, from shapes and the attributes `duration` and `split`.

    Raises:
        DataError: as `Hdf5Source`.
    """
    path = Path(path)
    with opened_hdf5(path) as file:
        with damage_named(Where(path)):
            is_empty = len(file) == 0
        if is_empty:
            raise DataError(
                "the file holds no dataset", where=path, mend="write one dataset [T, D] per video"
            )
        with damage_named(Where(path)):
            names = list(file)
        return {name: _describe(name, _dataset(file, name, Where(path, field=name)), path) for name in names}


def _dataset(file: h5py.File, video_id: str, place: Where) -> h5py.Dataset:
    """A group of one dataset, or one with C3D's, stands for it, as in ActivityNet's release."""
    item = item_inside(file, video_id, place)
    if isinstance(item, h5py.Group):
        with damage_named(place):
            names = [C3D_DATASET] if C3D_DATASET in item else list(item) if len(item) == 1 else []
        if names:
            item = item_inside(item, names[0], place)
    if not isinstance(item, h5py.Dataset):
        raise DataError("this is not a dataset", where=place, mend="write one dataset [T, D] per video")
    check_dataset(item, place)
    return item


def _describe(video_id: str, dataset: h5py.Dataset, path: Path) -> Hdf5Video:
    duration = _attribute(dataset, "duration", Where(path, field=f"{video_id}, attribute duration"))
    split = _attribute(dataset, "split", Where(path, field=f"{video_id}, attribute split"))
    seconds = None if duration is None else _seconds(duration, video_id, path)
    if isinstance(split, bytes):
        with damage_named(Where(path, field=f"{video_id}, attribute split")):
            split = split.decode()
    return Hdf5Video(video_id, dataset.shape, seconds, None if split is None else str(split))


def _attribute(dataset: h5py.Dataset, name: str, place: Where) -> Any:
    with damage_named(place):
        return dataset.attrs.get(name)


def _seconds(duration: Any, video_id: str, path: Path) -> float:
    """The attribute `duration`; text that is a number and an array of one number will do."""
    place = Where(path, field=f"{video_id}, attribute duration")
    try:
        if isinstance(duration, np.ndarray):
            duration = duration.item()
        seconds = float(duration)
    except (TypeError, ValueError, OverflowError) as error:
        shown = str(duration)[:60]
        raise DataError(f"{shown!r} is not a number", where=place, mend="set it in seconds") from error
    if not (math.isfinite(seconds) and seconds > 0):
        raise DataError(f"the duration is {seconds}", where=place, mend="set it in seconds, above 0")
    return seconds
