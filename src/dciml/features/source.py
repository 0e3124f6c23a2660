"""Features as a user hands them over, in any released form, behind one face; and their way into a store."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from dciml.errors import DataError, Where
from dciml.features.arrays import ArrayFolderSource
from dciml.features.base import num_rows as rows_inside
from dciml.features.bigfile import BigFileSource, is_bigfile
from dciml.features.hdf5 import Hdf5Source
from dciml.features.joined_source import JoinedSource
from dciml.features.row_values import RowsSeen
from dciml.features.store import FeatureStore, FeatureStoreWriter, StoreManifest
from dciml.features.store_format import MANIFEST_FILE

_COMMIT_EVERY = 256


class FeatureSource(Protocol):
    """Features of videos, in files of any form."""

    @property
    def path(self) -> Path:
        """Where they lie."""

    @property
    def encoder(self) -> str:
        """What made them."""

    @property
    def rows_per_second(self) -> float | None:
        """Rows a second; None when it varies or is not known."""

    @property
    def encoder_specs(self) -> tuple[str, ...]:
        """What makes such an encoder, as in a store's manifest; () where nothing is known of that."""

    @property
    def video_ids(self) -> tuple[str, ...]:
        """All videos."""

    @property
    def durations(self) -> Mapping[str, float]:
        """Seconds of the videos whose length the source states."""

    @property
    def splits(self) -> Mapping[str, str]:
        """The split of the videos for which the source names one."""

    def place(self, video_id: str) -> Where:
        """Where a video's rows lie, for an error message."""

    def origin(self, video_id: str) -> str | None:
        """What a store is to say of where the rows came from."""

    def num_rows(self, video_id: str) -> int:
        """Rows of a video."""

    def shape(self, video_id: str) -> tuple[int, int]:
        """Rows of a video and their width, (T, D)."""

    def read(self, video_ids: Sequence[str]) -> Iterator[NDArray[Any]]:
        """The rows (T, D) of these videos, one after another. Raises DataError: they cannot be read."""


class StoreSource:
    """A feature store that exists; its manifest is kept unless it is overruled."""

    def __init__(self, path: Path, encoder: str | None, rows_per_second: float | None) -> None:
        self.path, self._store = path, FeatureStore.open(path)
        manifest = self._store.manifest
        self.encoder = encoder or manifest.encoder
        self.encoder_specs = manifest.encoder_specs if self.encoder == manifest.encoder else ()
        self.rows_per_second = rows_per_second or manifest.rows_per_second
        self.video_ids = self._store.video_ids
        self.durations = {video_id: self._store.duration_seconds(video_id) for video_id in self.video_ids}
        self.splits: Mapping[str, str] = {}

    def place(self, video_id: str) -> Where:
        """The video in the store."""
        return Where(self.path, field=video_id)

    def origin(self, video_id: str) -> str | None:
        """As the store says; for extracted videos the media file."""
        return self._store.source(video_id)

    def num_rows(self, video_id: str) -> int:
        """Rows of a video."""
        return self._store.num_rows(video_id)

    def shape(self, video_id: str) -> tuple[int, int]:
        """Rows of a video and their width."""
        return self._store.num_rows(video_id), self._store.manifest.width

    def read(self, video_ids: Sequence[str]) -> Iterator[NDArray[Any]]:
        """The rows of these videos, one after another."""
        return (self._store.rows(video_id) for video_id in video_ids)


def open_features(
    paths: Path | Sequence[Path], name: str, encoder: str | None = None, rows_per_second: float | None = None
) -> FeatureSource:
    """Open features of any form: a store, an HDF5 file, a BigFile folder, a folder of `.npy` or `.npz` files.

    Args:
        paths: one, or several that are joined row by row.
        name: of the data; without `encoder`, features of files that do not say are called `imported:<name>`.
    Raises:
        DataError: none of these forms, or damaged.
    """
    if isinstance(paths, Path):
        return _open_one(paths, encoder, f"imported:{name}", rows_per_second)
    if len(paths) == 1:
        return _open_one(paths[0], encoder, f"imported:{name}", rows_per_second)
    parts = [_open_one(path, None, f"imported:{path.stem}", rows_per_second) for path in paths]
    return JoinedSource(parts, encoder, rows_per_second)


def _open_one(path: Path, encoder: str | None, default: str, rows_per_second: float | None) -> FeatureSource:
    if not path.is_dir():
        return Hdf5Source(path, encoder or default, rows_per_second)
    if is_bigfile(path):
        return BigFileSource(path, encoder or default, rows_per_second)
    if not (path / MANIFEST_FILE).exists() and any(path.glob("*.np[yz]")):
        return ArrayFolderSource(path, encoder or default, rows_per_second)
    return StoreSource(path, encoder, rows_per_second)


def write_store(
    source: FeatureSource,
    store_path: Path,
    video_ids: Collection[str],
    durations: Mapping[str, float],
    *,
    keep_rate: bool = True,
    seen: RowsSeen | None = None,
) -> FeatureStore:
    """Write a store of these videos with these durations, video by video, in the order of the source.

    Args:
        keep_rate: False: the store does not say how many rows a second has. Else rows that begin after the end of
            their video are left out.
        seen: is shown all rows that are written.
    Raises:
        DataError: no video, one without a duration, or rows that a store cannot hold; the message names the place.
    """
    chosen = frozenset(video_ids)
    wanted = [video_id for video_id in source.video_ids if video_id in chosen]
    if not wanted:
        raise DataError(
            "none of the wanted videos has features here", where=source.path, mend="check the ids"
        )
    rows_of = source.read(wanted)
    first = next(rows_of)
    width = int(first.shape[1])
    rate = source.rows_per_second if keep_rate else None
    manifest = StoreManifest(source.encoder, width, rate, source.encoder_specs)
    with FeatureStoreWriter(store_path, manifest, commit_every=_COMMIT_EVERY) as writer:
        for video_id, rows in zip(wanted, chain([first], rows_of), strict=True):
            seconds = durations.get(video_id, source.durations.get(video_id))
            if seconds is None:
                raise unknown_duration(source.place(video_id))
            kept = rows[: rows_inside(seconds, rate)] if rate else rows
            try:
                writer.append(video_id, kept, seconds, source.origin(video_id))
            except DataError as error:  # the store names itself; the user needs the file that is to be mended
                raise DataError(error.what, where=source.place(video_id), mend=error.mend) from error
            if seen is not None:
                seen.add(video_id, kept)
    return FeatureStore.open(store_path)


def unknown_duration(place: Where) -> DataError:
    """The error for a video whose length nothing tells."""
    return DataError(
        "the duration of the video is not known",
        where=place,
        mend="write `duration` into the sentences, set the attribute `duration` of its HDF5 dataset, or say how many "
        "rows a second has with --rows-per-second",
    )
