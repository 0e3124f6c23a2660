"""Shares of an extraction: each video in exactly one; stores join again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dciml.errors import DataError
from dciml.features.extract import Shard, merge_stores
from dciml.features.store import FeatureStore, FeatureStoreWriter, StoreManifest
from dciml.features.store_format import FileStamp

MANIFEST = StoreManifest("test-encoder", 4, 2.0)


def make_store(path: Path, seeds: dict[str, int], manifest: StoreManifest = MANIFEST) -> Path:
    with FeatureStoreWriter(path, manifest) as writer:
        for video_id, seed in seeds.items():
            rows = np.random.default_rng(seed).standard_normal((seed + 1, 4))
            writer.append(video_id, rows, seed + 1.0, f"/{video_id}.mp4", stamp=FileStamp(seed, 2, "ab"))
    return path


@settings(deadline=None, max_examples=30)
@given(st.sets(st.text(max_size=12), max_size=40), st.integers(1, 7))
def test_each_video_is_in_exactly_one_shard(ids: set[str], count: int) -> None:
    videos = dict.fromkeys(ids, 0)
    parts = [Shard(number, count).of(videos) for number in range(1, count + 1)]
    assert sorted(video_id for part in parts for video_id in part) == sorted(ids)
    fewer = dict.fromkeys(sorted(ids)[::2], 0)
    assert all(set(Shard(k + 1, count).of(fewer)) <= set(part) for k, part in enumerate(parts))


def test_shards_are_the_same_on_every_machine() -> None:
    videos = dict.fromkeys((f"v{k}" for k in range(10)), 0)
    assert list(Shard(1, 3).of(videos)) == ["v1", "v7"]
    assert Shard(2, 3).store_path(Path("a/store")) == Path("a/store.shards/2-of-3")


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "1/", "a/b", "-1/2", "1/0", "1/2/3"])
def test_what_is_no_shard_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="a shard is i/n"):
        Shard.parse(text)


def test_merging_gives_the_store_of_all(tmp_path: Path) -> None:
    parts = [make_store(tmp_path / "1", {"a": 1, "b": 2}), make_store(tmp_path / "2", {"c": 3, "b": 2})]
    with FeatureStoreWriter(parts[0], MANIFEST) as writer:
        writer.append("a", np.ones((2, 4)), 1.0, "/a.mp4", replace=True)
    merged = merge_stores([*parts, make_store(tmp_path / "3", {})], tmp_path / "all")
    assert merged.video_ids == ("a", "b", "c")
    np.testing.assert_array_equal(merged.rows("a"), np.ones((2, 4)))
    assert merged.entry("c").stamp == FileStamp(3, 2, "ab")
    assert merged.source("c") == "/c.mp4"
    assert merged.verify() == []
    assert (tmp_path / "all/rows.bin").stat().st_size == (2 + 3 + 4) * 8  # superseded rows are gone
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "2", "3", "all"]


def test_stores_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    one = make_store(tmp_path / "1", {"a": 1})
    other = make_store(tmp_path / "2", {"a": 2})
    rate = make_store(tmp_path / "3", {"b": 2}, StoreManifest("test-encoder", 4, 1.0))
    with pytest.raises(DataError, match=r"2: the video 'a' is in .*1 too, with other rows"):
        merge_stores([one, other], tmp_path / "out")
    with pytest.raises(DataError, match="merge only stores that were made with the same"):
        merge_stores([one, rate], tmp_path / "out")
    with pytest.raises(DataError, match="something here already"):
        merge_stores([one], tmp_path / "2")
    (other / "rows.bin").write_bytes(b"x" * 24)
    with pytest.raises(DataError, match="do not match their checksum"):
        merge_stores([other], tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert FeatureStore.open(one).video_ids == ("a",)
