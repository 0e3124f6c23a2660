"""Hits in windows of long videos: in the time of the whole video, and each moment once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dciml.config import AnswerConfig
from dciml.errors import DataError
from dciml.features.long_videos import WindowedStore, WindowRule, split_long
from dciml.features.store import FeatureStore, FeatureStoreWriter, StoreManifest
from dciml.index import ClipIndex, VideoFilter
from dciml.search.long_videos import WindowedIds, select_whole
from dciml.search.searcher import Searcher
from dciml.types import SearchHit

IDS = ("short", "film#t=0,60", "film#t=30,90", "film#t=60,120")


def joined(*spans: tuple[str, float, float], most: int = 10) -> list[tuple[str, float, float]]:
    """What becomes of hits (id, start, end), best first."""
    hits = [SearchHit(rank, *span, score=-float(rank)) for rank, span in enumerate(spans, start=1)]
    found = WindowedIds(IDS).whole_hits(hits, most)
    assert [hit.rank for hit in found] == list(range(1, len(found) + 1))
    assert [hit.score for hit in found] == sorted((hit.score for hit in found), reverse=True)
    return [(hit.video_id, hit.start_seconds, hit.end_seconds) for hit in found]


def test_times_are_those_of_the_whole_video() -> None:
    assert joined(("film#t=60,120", 10.0, 20.0), ("short", 1.0, 2.0)) == [
        ("film", 70.0, 80.0),
        ("short", 1.0, 2.0),
    ]


def test_a_moment_that_two_windows_see_is_one_hit_with_the_times_of_the_better() -> None:
    assert joined(("film#t=0,60", 40.0, 50.0), ("film#t=30,90", 9.0, 21.0)) == [("film", 40.0, 50.0)]


def test_a_moment_that_a_window_cuts_off_takes_the_times_of_the_window_that_sees_it_whole() -> None:
    assert joined(("film#t=0,60", 55.0, 60.0), ("film#t=30,90", 25.0, 36.0)) == [("film", 55.0, 66.0)]
    assert joined(("film#t=30,90", 0.0, 4.0), ("film#t=0,60", 25.0, 34.0)) == [("film", 25.0, 34.0)]


def test_the_start_of_the_video_cuts_nothing_off() -> None:
    assert joined(("film#t=0,60", 0.0, 40.0), ("film#t=30,90", 2.0, 10.0)) == [("film", 0.0, 40.0)]


def test_hits_apart_hits_of_one_window_and_hits_of_other_videos_stay() -> None:
    spans = [
        ("film#t=0,60", 40.0, 50.0),
        ("film#t=0,60", 41.0, 51.0),
        ("film#t=30,90", 18.0, 28.0),
        ("short", 40.0, 50.0),
    ]
    assert joined(*spans) == [
        ("film", 40.0, 50.0),
        ("film", 41.0, 51.0),
        ("film", 48.0, 58.0),
        ("short", 40.0, 50.0),
    ]


def test_only_so_many_hits_are_left_and_later_twins_still_make_them_whole() -> None:
    spans = [("film#t=0,60", 55.0, 60.0), ("short", 0.0, 9.0), ("film#t=30,90", 25.0, 36.0)]
    assert joined(*spans, most=1) == [("film", 55.0, 66.0)]


def test_without_windows_hits_are_what_they_were() -> None:
    hits = [SearchHit(1, "a", 0.0, 5.0, 2.0), SearchHit(2, "a", 0.0, 5.0, 1.0)]
    assert WindowedIds(["a", "b"]).whole_hits(hits, 1) == hits[:1]


@pytest.fixture
def films(tmp_path: Path, corpus: Any) -> Searcher:
    """A long video of 600 s with something at 400–408 s, and five short ones of noise, indexed in windows of 60 s."""
    rng = np.random.default_rng(3)
    engine, width = corpus.engine, corpus.engine.vector_width
    with FeatureStoreWriter(tmp_path / "films", StoreManifest("fake", width, 1.0)) as writer:
        rows = rng.normal([1, 0, 0, 0, 0, 0], 0.1, (600, width))
        rows[400:408] = [0, 8, 0, 0, 0, 0]
        writer.append("film", rows, 600.0)
        for number in range(5):
            writer.append(f"clip{number}", rng.normal([0, 0, 3, 0, 0, 0], 1.0, (40, width)), 40.0)
    store = WindowedStore.of(FeatureStore.open(tmp_path / "films"))
    ids = split_long(store, store.video_ids, WindowRule(60.0, 30.0))
    index = ClipIndex.create(
        tmp_path / "films-index",
        num_clips=engine.num_clips,
        width=width,
        fingerprint=engine.fingerprint,
        model_folder=tmp_path / "model",
        store_path=store.path,
    )
    index.add(ids, engine.fused_clips(store, ids), [store.duration_seconds(name) for name in ids])
    engine.planted["it happens"] = np.array([0, 1, 0, 0, 0, 0], dtype=np.float32)
    return Searcher(engine, index, FeatureStore.open(tmp_path / "films"), AnswerConfig(candidates="windows"))


def spans_of(hits: Sequence[SearchHit]) -> list[tuple[str, float, float]]:
    """Ids and times."""
    return [(hit.video_id, hit.start_seconds, hit.end_seconds) for hit in hits]


def test_search_finds_the_moment_of_a_long_video_in_its_own_time(films: Searcher) -> None:
    first, *others = films.search("it happens", 5)
    assert first.video_id == "film"
    assert first.start_seconds == pytest.approx(400, abs=7.5)
    assert first.end_seconds == pytest.approx(408, abs=7.5)
    assert all(hit.video_id in films.windowed.whole_videos for hit in others)
    for hit in others:
        shared = min(hit.end_seconds, first.end_seconds) - max(hit.start_seconds, first.start_seconds)
        assert hit.video_id != "film" or shared < 8


def test_searching_within_a_long_video_takes_its_own_id(films: Searcher) -> None:
    everywhere = films.search("it happens", 3)
    assert {hit.video_id for hit in films.search("it happens", 20, within=["film"])} == {"film"}
    assert spans_of(films.search("it happens", 1, within=["film"])) == spans_of(everywhere[:1])
    assert {hit.video_id for hit in films.search("it happens", 20, within=["clip1", "clip3"])} == {
        "clip1",
        "clip3",
    }
    with pytest.raises(DataError, match="does not hold"):
        films.search("it happens", within=["no film"])


def test_the_model_grounds_in_windows_too(films: Searcher) -> None:
    searcher = Searcher(
        films.engine, films.index, FeatureStore.open(films.index.store_path()), AnswerConfig()
    )
    hits = searcher.search("it happens", 50)
    assert any("#t=" in video_id for _, video_id in films.engine.grounded)  # type: ignore[attr-defined]
    assert all(0 <= hit.start_seconds < hit.end_seconds <= 600 for hit in hits)
    assert {hit.video_id for hit in hits} <= set(searcher.windowed.whole_videos)


def test_filters_choose_whole_videos(films: Searcher) -> None:
    index = films.index
    assert select_whole(index, VideoFilter(video_ids=["film", "clip0"]), films.windowed) == ("film", "clip0")
    assert select_whole(index, VideoFilter(min_duration_seconds=100.0), films.windowed) == ("film",)
    assert select_whole(index, VideoFilter(max_duration_seconds=100.0), films.windowed) == tuple(
        f"clip{i}" for i in range(5)
    )
    assert (
        select_whole(index, VideoFilter(video_ids=["film"], max_duration_seconds=100.0), films.windowed) == ()
    )
    with pytest.raises(DataError, match="does not hold"):
        select_whole(index, VideoFilter(video_ids=["films"]), films.windowed)


def test_a_changed_index_is_seen(films: Searcher) -> None:
    films.index.remove(films.windowed.expand(["film"]))
    assert not films.windowed.has_windows
    assert all(hit.video_id.startswith("clip") for hit in films.search("it happens", 10))
