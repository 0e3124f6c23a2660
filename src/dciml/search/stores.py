"""The features of the indexed videos, wherever they lie."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dciml.errors import ModelError
from dciml.features import FeatureStore, RowTimes, WindowedStore
from dciml.index import ClipIndex


class VideoStores:
    """Finds the store of each video; others than the first are opened when a video of theirs is first needed.

    The stores also serve windows of long videos, which an index has as videos.
    """

    def __init__(self, index: ClipIndex, first: FeatureStore) -> None:
        self._index, self._first = index, WindowedStore.of(first)
        self._others: dict[Path, WindowedStore] = {}

    def group(self, video_ids: Sequence[str]) -> list[tuple[FeatureStore, list[int]]]:
        """The places in `video_ids` that each store serves.

        Raises:
            DataError: the index does not hold a video, or its store cannot be opened.
            ModelError: a store has moved.
        """
        groups: dict[int, tuple[FeatureStore, list[int]]] = {}
        for place, video_id in enumerate(video_ids):
            store = self._store_of(video_id)
            groups.setdefault(id(store), (store, []))[1].append(place)
        return list(groups.values())

    def row_times(self, video_id: str) -> RowTimes:
        """When the rows of a video are. Raises as `group`."""
        return self._store_of(video_id).row_times(video_id)

    def _store_of(self, video_id: str) -> FeatureStore:
        # The first store may hold another video of that name, which has left the index since.
        if video_id in self._first and self._index.is_in_first_store(video_id):
            return self._first
        try:
            path = self._index.store_path(video_id)
        except ModelError:  # it has moved, perhaps into the store that is given now
            if video_id in self._first:
                return self._first
            raise
        if path not in self._others:
            self._others[path] = WindowedStore.open(path)
        return self._others[path]
