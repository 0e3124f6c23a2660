"""Features from an HDF5 file: one dataset [T, D] per video, or a group of that name around it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from dciml.errors import DataError, Where
from dciml.features.rows import as_rows, rows_shape

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
        with _opened(self.path) as file:
            for video_id in video_ids:
                place = self.place(video_id)
                dataset = _dataset(file[video_id], place)
                rows_shape(dataset.shape, place)  # before a dataset of another kind is read as a whole
                try:
                    values = np.asarray(dataset[...])
                except OSError as error:
                    raise DataError(
                        f"the dataset cannot be read ({error})", where=place, mend="check the file"
                    ) from error
                yield as_rows(values, place)


def scan_hdf5(path: str | Path) -> Mapping[str, Hdf5Video]:
    """List the videos of a file, in its order, from shapes and the attributes `duration` and `split`.

    Raises:
        DataError: as `Hdf5Source`.
    """
    path = Path(path)
    with _opened(path) as file:
        if len(file) == 0:
            raise DataError(
                "the file holds no dataset", where=path, mend="write one dataset [T, D] per video"
            )
        return {
            name: _describe(name, _dataset(item, Where(path, field=name)), path)
            for name, item in file.items()
        }


@contextmanager
def _opened(path: Path) -> Iterator[h5py.File]:
    if not path.is_file():
        raise DataError("there is no such file", where=path, mend="check the path")
    if path.stat().st_size == 0:
        raise DataError("the file is empty", where=path, mend="check how it was written")
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise DataError(
            f"this is not a readable HDF5 file ({error})", where=path, mend="check the file"
        ) from error
    with file:
        yield file


def _dataset(item: Any, place: Where) -> h5py.Dataset:
    """A group of one dataset, or one with C3D's, stands for it, as in ActivityNet's release."""
    if isinstance(item, h5py.Group):
        if C3D_DATASET in item:
            item = item[C3D_DATASET]
        elif len(item) == 1:
            item = next(iter(item.values()))
    if not isinstance(item, h5py.Dataset):
        raise DataError("this is not a dataset", where=place, mend="write one dataset [T, D] per video")
    return item


def _describe(video_id: str, dataset: h5py.Dataset, path: Path) -> Hdf5Video:
    duration, split = dataset.attrs.get("duration"), dataset.attrs.get("split")
    if duration is not None:
        try:
            duration = float(duration)
        except (TypeError, ValueError) as error:
            place = Where(path, field=f"{video_id}, attribute duration")
            raise DataError(f"{duration!r} is not a number", where=place, mend="set it in seconds") from error
    if isinstance(split, bytes):
        split = split.decode()
    return Hdf5Video(video_id, dataset.shape, duration, None if split is None else str(split))
