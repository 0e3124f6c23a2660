"""Features as a user hands them over, an HDF5 file or a store, behind one face."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Protocol

from dciml.features.hdf5 import import_hdf5, scan_hdf5
from dciml.features.store import FeatureStore, FeatureStoreWriter, StoreManifest


class FeatureSource(Protocol):
    """Features that can be copied into a store."""

    @property
    def path(self) -> Path:
        """Where they lie."""

    @property
    def video_ids(self) -> tuple[str, ...]:
        """All videos."""

    @property
    def durations(self) -> Mapping[str, float]:
        """Seconds of the videos whose length the source knows."""

    @property
    def splits(self) -> Mapping[str, str]:
        """The split of the videos for which the source names one."""

    def copy(self, store_path: Path, video_ids: Collection[str], durations: Mapping[str, float]) -> None:
        """Write a store of these videos with these durations; errors as a store writer's `append`."""


class Hdf5Source:
    """An HDF5 file; `encoder` and `rows_per_second` go into the manifest, since such a file does not say."""

    def __init__(self, path: Path, encoder: str, rows_per_second: float | None) -> None:
        self.path, self._encoder, self._rows_per_second = path, encoder, rows_per_second
        videos = scan_hdf5(path).values()
        self.video_ids = tuple(video.video_id for video in videos)
        self.durations = {v.video_id: v.duration_seconds for v in videos if v.duration_seconds is not None}
        self.splits = {v.video_id: v.split for v in videos if v.split is not None}

    def copy(self, store_path: Path, video_ids: Collection[str], durations: Mapping[str, float]) -> None:
        """Write a store of these videos with these durations."""
        import_hdf5(
            self.path, store_path, self._encoder, self._rows_per_second, durations, video_ids=video_ids
        )


class StoreSource:
    """A feature store that exists; its manifest is kept unless it is overruled."""

    def __init__(self, path: Path, encoder: str | None, rows_per_second: float | None) -> None:
        self.path, self._store = path, FeatureStore.open(path)
        manifest = self._store.manifest
        self._manifest = StoreManifest(
            encoder or manifest.encoder, manifest.width, rows_per_second or manifest.rows_per_second
        )
        self.video_ids = self._store.video_ids
        self.durations = {video_id: self._store.duration_seconds(video_id) for video_id in self.video_ids}
        self.splits: Mapping[str, str] = {}

    def copy(self, store_path: Path, video_ids: Collection[str], durations: Mapping[str, float]) -> None:
        """Write a store of these videos with these durations."""
        wanted = set(video_ids)
        with FeatureStoreWriter(store_path, self._manifest, commit_every=256) as writer:
            for video_id in self.video_ids:
                if video_id in wanted:
                    seconds = durations.get(video_id, self.durations[video_id])
                    writer.append(video_id, self._store.rows(video_id), seconds, self._store.source(video_id))


def open_features(
    path: str | Path, name: str, encoder: str | None = None, rows_per_second: float | None = None
) -> FeatureSource:
    """Open an HDF5 file or a store folder.

    Args:
        name: of the data; without `encoder`, HDF5 features are said to be `imported:<name>`.
    Raises:
        DataError: neither of the two.
    """
    path = Path(path)
    if path.is_dir():
        return StoreSource(path, encoder, rows_per_second)
    return Hdf5Source(path, encoder or f"imported:{name}", rows_per_second)
