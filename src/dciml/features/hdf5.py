"""Features from an HDF5 file: one dataset [T, D] per video, or a group of that name around it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from dciml.errors import DataError, Where
from dciml.features.hdf5_safety import check_dataset, damage_named, item_inside, opened_hdf5
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
