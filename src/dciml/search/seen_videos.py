"""Keeps what was computed of videos for the next sentence that is looked for in them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from threading import Lock

from dciml.features.store import FeatureStore
from dciml.method.grounding import Watched

MOST_VIDEOS = 256
"""About 165 KB each at the published sizes (128 frames, 256 wide): 42 MB."""


class SeenVideos:
    """The videos that one model has watched last. Several threads may use it.

    A video is known by its store and its line there, checksum included, so that new features are never answered
    with what was computed from old ones.
    """

    def __init__(self, most: int = MOST_VIDEOS) -> None:
        self._most = most
        self._kept: OrderedDict[Hashable, Watched] = OrderedDict()
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._kept)

    def watch(
        self,
        store: FeatureStore,
        video_ids: Sequence[str],
        watch: Callable[[FeatureStore, Sequence[str]], Watched],
    ) -> Watched:
        """Videos in the order of `video_ids`; `watch` computes those that are not kept.

        Raises:
            DataError: the store does not hold one of them.
        """
        keys = {video_id: (store.path, store.entry(video_id)) for video_id in video_ids}
        with self._lock:
            found = {v: self._kept[key] for v, key in keys.items() if key in self._kept}
        missing = [video_id for video_id in keys if video_id not in found]
        if missing:
            found |= zip(missing, watch(store, missing).each(), strict=True)
        with self._lock:
            for video_id, key in keys.items():
                self._kept[key] = found[video_id]
                self._kept.move_to_end(key)
            while len(self._kept) > self._most:
                self._kept.popitem(last=False)
        return Watched.join([found[video_id] for video_id in video_ids])
