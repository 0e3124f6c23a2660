"""Features from HDF5 files, one dataset [T, D] per video, into a feature store, video by video."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from dciml.errors import DataError, Where
from dciml.features.store import FeatureStore, FeatureStoreWriter, StoreManifest

_COMMIT_EVERY = 256


@dataclass(frozen=True, slots=True)
class Hdf5Video:
    """What an HDF5 file says of a video without its rows being read; None where it says nothing."""

    video_id: str
    shape: tuple[int, ...]
    duration_seconds: float | None
    split: str | None


def scan_hdf5(path: str | Path) -> dict[str, Hdf5Video]:
    """List the videos of a file, in its order, from shapes and the attributes `duration` and `split`.

    Raises:
        DataError: not an HDF5 file, or one without videos, or an attribute of the wrong kind.
    """
    path = Path(path)
    with _opened(path) as file:
        return {video_id: _describe(path, video_id, dataset) for video_id, dataset in _datasets(file, path)}


def import_hdf5(
    h5_path: str | Path,
    store_path: str | Path,
    encoder: str,
    rows_per_second: float | None = None,
    durations: Mapping[str, float] | None = None,
    *,
    video_ids: Collection[str] | None = None,
) -> FeatureStore:
    """Copy the videos of an HDF5 file into a store, which is made when there is none.

    Args:
        h5_path: one dataset [T, D] per video, named by its id, or a group of that name around it.
        store_path: the store's folder.
        encoder: names what made the features.
        rows_per_second: of the features; None when it varies.
        durations: seconds of each video; where it is silent, the dataset's attribute `duration` counts.
        video_ids: only these; None takes all.
    Raises:
        DataError: a dataset of another width or dimension, without rows, with NaN, or without a duration; the
            message names the file and the dataset. Also: a wanted video is not in the file.
    """
    h5_path, known = Path(h5_path), durations or {}
    with _opened(h5_path) as file:
        found = _wanted(_datasets(file, h5_path), video_ids, h5_path)
        manifest = StoreManifest(encoder, _width(found, h5_path), rows_per_second)
        with FeatureStoreWriter(store_path, manifest, commit_every=_COMMIT_EVERY) as writer:
            for video_id, dataset in found.items():
                place = Where(h5_path, field=video_id)
                duration = known.get(video_id, _describe(h5_path, video_id, dataset).duration_seconds)
                if duration is None:
                    mend = "set the dataset's attribute `duration`, or give durations in another file"
                    raise DataError("the duration of the video is not known", where=place, mend=mend)
                _append(writer, video_id, _read(dataset, place), duration, place)
    return FeatureStore.open(store_path)


def _wanted(
    datasets: Iterable[tuple[str, h5py.Dataset]], video_ids: Collection[str] | None, path: Path
) -> dict[str, h5py.Dataset]:
    if video_ids is None:
        return dict(datasets)
    wanted = set(video_ids)
    found = {video_id: dataset for video_id, dataset in datasets if video_id in wanted}
    missing = sorted(wanted - found.keys())
    if missing:
        what = f"there are no features of {len(missing)} video(s), for example {missing[0]!r}"
        raise DataError(what, where=path, mend="add their datasets to the file, or leave these videos out")
    return found


def _append(
    writer: FeatureStoreWriter, video_id: str, rows: NDArray[Any], duration: float, place: Where
) -> None:
    try:
        writer.append(video_id, rows, duration, source=Path(place.path).name)
    except DataError as error:  # the store names itself; the user needs the file that is to be mended
        raise DataError(error.what, where=place, mend=error.mend) from error


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


def _datasets(file: h5py.File, path: Path) -> Iterator[tuple[str, h5py.Dataset]]:
    """Yield (video id, dataset); a group of one dataset stands for it, as in ActivityNet's C3D release."""
    if len(file) == 0:
        raise DataError("the file holds no dataset", where=path, mend="write one dataset [T, D] per video")
    for name, item in file.items():
        if isinstance(item, h5py.Group) and len(item) == 1:
            item = next(iter(item.values()))
        if not isinstance(item, h5py.Dataset):
            place = Where(path, field=name)
            raise DataError("this is not a dataset", where=place, mend="write one dataset [T, D] per video")
        yield name, item


def _describe(path: Path, video_id: str, dataset: h5py.Dataset) -> Hdf5Video:
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


def _width(found: Mapping[str, h5py.Dataset], path: Path) -> int:
    if not found:
        raise DataError("none of the wanted videos is in the file", where=path, mend="check the ids")
    name, first = next(iter(found.items()))
    if len(first.shape) != 2 or first.shape[1] == 0:
        raise _wrong_shape(Where(path, field=name), first.shape)
    return int(first.shape[1])


def _read(dataset: h5py.Dataset, place: Where) -> NDArray[Any]:
    if len(dataset.shape) != 2:
        raise _wrong_shape(place, dataset.shape)
    try:
        return np.asarray(dataset[...])
    except OSError as error:
        raise DataError(
            f"the dataset cannot be read ({error})", where=place, mend="check the file"
        ) from error


def _wrong_shape(place: Where, shape: tuple[int, ...]) -> DataError:
    return DataError(f"the dataset has the shape {shape}, not [T, D]", where=place, mend="write rows × width")
