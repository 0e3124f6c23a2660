"""What of an HDF5 file is read at all: plain numbers inside the file, of a size that its bytes can hold.

An HDF5 file can name other files (external storage and links, virtual datasets) and code (filters of plug-ins), and a
few bytes of it can claim terabytes. All that is refused by name before a row is read.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py

from dciml.errors import DataError, Where
from dciml.inputs import check_input_file

MAX_DATASET_BYTES = 8 << 30
"""Rows of one video: 8 GiB are some 38 hours of 30 rows a second, 512 wide."""
MAX_CHUNK_BYTES = 1 << 30
MAX_EXPANSION = 1100
"""A byte of the file becomes at most so many: deflate makes 1,032."""

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
