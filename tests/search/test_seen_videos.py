"""What is kept of videos between two sentences changes no answer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from dciml.errors import DataError
from dciml.features.store import FeatureStore, FeatureStoreWriter, StoreManifest
from dciml.method.grounding import Watched
from dciml.search.engines import SeenVideos


class Watcher:
    """Gives the rows themselves, padded, and writes down what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    def __call__(self, store: FeatureStore, video_ids: Sequence[str]) -> Watched:
        self.asked.append(list(video_ids))
        rows = [torch.from_numpy(store.rows(v).astype(np.float32)) for v in video_ids]
        mask = [torch.ones(len(r), dtype=torch.bool) for r in rows]
        pad = torch.nn.utils.rnn.pad_sequence
        return Watched(torch.stack([r[:1] for r in rows]), pad(rows, True), pad(mask, True))


def make_store(folder: Path, values: dict[str, float]) -> FeatureStore:
    """Videos of 2, 3, … rows, all of one value."""
    with FeatureStoreWriter(folder, StoreManifest("test", 4, 1.0)) as writer:
        for place, (video_id, value) in enumerate(values.items()):
            writer.append(video_id, np.full((place + 2, 4), value, dtype=np.float32), place + 2.0)
    return FeatureStore.open(folder)


def test_a_video_is_watched_once_and_comes_back_as_it_was(tmp_path: Path) -> None:
    store, watch, seen = make_store(tmp_path / "s", {"a": 1.0, "b": 2.0, "c": 3.0}), Watcher(), SeenVideos()
    seen.watch(store, ["c", "a"], watch)
    found = seen.watch(store, ["a", "b", "c"], watch)
    assert watch.asked == [["c", "a"], ["b"]]
    expected = Watcher()(store, ["a", "b", "c"])
    for name in ("sampled", "rows", "mask"):
        assert torch.equal(getattr(found, name), getattr(expected, name))


def test_the_longest_unused_falls_out(tmp_path: Path) -> None:
    store, watch, seen = make_store(tmp_path / "s", {"a": 1.0, "b": 2.0, "c": 3.0}), Watcher(), SeenVideos(2)
    for video_id in ("a", "b", "a", "c", "a", "b"):
        seen.watch(store, [video_id], watch)
    assert watch.asked == [["a"], ["b"], ["c"], ["b"]]
    assert len(seen) == 2
    assert len(seen.watch(store, ["a", "b", "c"], watch).rows) == 3  # more at once than are kept


def test_other_features_of_the_same_video_are_watched_anew(tmp_path: Path) -> None:
    watch, seen = Watcher(), SeenVideos()
    old, new = (make_store(tmp_path / name, {"a": value}) for name, value in (("old", 1.0), ("new", 2.0)))
    replaced = make_store(tmp_path / "again", {"a": 1.0})
    for store in (old, new, replaced):
        assert float(seen.watch(store, ["a"], watch).rows[0, 0, 0]) == float(store.rows("a")[0, 0])
    with FeatureStoreWriter(tmp_path / "again", StoreManifest("test", 4, 1.0)) as writer:
        writer.append("b", np.full((2, 4), 5.0, dtype=np.float32), 2.0)
    seen.watch(FeatureStore.open(tmp_path / "again"), ["a", "b"], watch)
    assert watch.asked == [["a"], ["a"], ["a"], ["b"]]


def test_a_video_that_the_store_does_not_hold_is_named(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s", {"a": 1.0})
    with pytest.raises(DataError, match="'x'"):
        SeenVideos().watch(store, ["a", "x"], Watcher())
