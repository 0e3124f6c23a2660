"""A moment as the query: its vector, what is left out, and the whole way through a searcher."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dciml.errors import DataError
from dciml.features.row_times import RowTimes
from dciml.features.store import FeatureStoreWriter
from dciml.index import VideoMatches
from dciml.search.similar import (
    REST_WEIGHT,
    checked_span,
    clip_shares,
    query_span,
    span_vector,
    without_span,
)


@settings(deadline=None, max_examples=60)
@given(start=st.floats(0, 1), end=st.floats(0, 1), num_rows=st.integers(1, 90), num_clips=st.integers(1, 40))
def test_shares_add_up_to_the_span(start: float, end: float, num_rows: int, num_clips: int) -> None:
    times = RowTimes(num_rows, 2.0, 2.0 * num_rows - 0.5)
    start, end = (times.duration_seconds * unit for unit in (min(start, end), max(start, end)))
    spans = times.clip_spans(num_clips)
    shares = clip_shares(spans, start, end)
    assert ((shares >= 0) & (shares <= 1)).all()
    shown = {tuple(span): share for span, share in zip(spans.tolist(), shares, strict=True)}
    assert sum((b - a) * share for (a, b), share in shown.items()) == pytest.approx(end - start, abs=1e-6)


def test_span_vector_is_what_the_rest_has_not() -> None:
    clips = np.eye(4, dtype=np.float32)
    found = span_vector(clips, np.array([0.0, 1.0, 0.5, 0.0]))
    inside = np.array([0, 1, 0.5, 0]) / 1.5
    outside = np.array([1, 0, 0.5, 1]) / 2.5
    expected = inside - REST_WEIGHT * outside
    np.testing.assert_allclose(found, expected / np.linalg.norm(expected), rtol=1e-6)
    whole = span_vector(clips, np.ones(4))
    np.testing.assert_allclose(whole, np.full(4, 0.5), rtol=1e-6)


@pytest.mark.parametrize(
    ("start", "end"),
    [(5, 5), (6, 5), (-1, 5), (10, 12), (math.nan, 5), (0, math.nan), (0, math.inf), (0, 12)],
)
def test_span_that_is_not_in_the_video_is_refused(start: float, end: float) -> None:
    with pytest.raises(DataError, match="no moment of the video 'v'") as error:
        checked_span("v", start, end, 10.0)
    assert "between 0 and 10 seconds" in str(error.value)


def test_most_of_the_span_decides_the_window() -> None:
    window = RowTimes(60, 1.0, 60.0).clip_spans(4)
    best, shares = query_span([window, 30 + window, 60 + window], 50.0, 75.0)
    assert best == 1
    assert [own.round(2).tolist() for own in shares] == [
        [0, 0, 0, 0.67], [0, 0.67, 1, 0], [1, 0, 0, 0],
    ]  # fmt: skip


def matches() -> VideoMatches:
    clips = np.array([[[0.9, 0.8, 0.2, 0.1], [0.5, 0.4, 0.3, 0.2], [0.1, 0.1, 0.3, 0.1]]], dtype=np.float32)
    return VideoMatches(np.array([[7, 3, 5]]), clips.max(axis=2), clips)


def test_video_of_the_span_keeps_its_other_clips_and_its_place_by_them() -> None:
    given = matches()
    found = without_span(given, 7, np.array([1.0, 0.3, 0.0, 0.0]))
    assert found.places.tolist() == [[3, 5, 7]]
    np.testing.assert_allclose(found.scores, [[0.5, 0.3, 0.2]])
    np.testing.assert_allclose(found.clip_scores[0, 2], [0.1, 0.1, 0.2, 0.1])
    np.testing.assert_array_equal(given.clip_scores, matches().clip_scores)
    np.testing.assert_array_equal(given.scores, matches().scores)


def test_video_that_is_all_span_is_left_out_and_others_are_not_touched() -> None:
    assert without_span(matches(), 7, np.full(4, 0.5)).places.tolist() == [[3, 5]]
    for place, shares in ((4, np.ones(4)), (7, np.zeros(4))):
        same = without_span(matches(), place, shares)
        np.testing.assert_array_equal(same.clip_scores, matches().clip_scores)


def test_searcher_finds_the_planted_twin_and_nothing_that_overlaps(corpus: Any, tmp_path: Path) -> None:
    vectors = corpus.engine.fused_clips(corpus.store, ["v3"])[0].copy()
    twin = np.random.default_rng(1).standard_normal((8, corpus.engine.vector_width)).astype(np.float32)
    twin /= np.linalg.norm(twin, axis=1, keepdims=True)
    shares = clip_shares(corpus.store.row_times("v3").clip_spans(8), 13.0 / 4, 13.0 / 2)
    twin[6] = span_vector(vectors, shares)
    with FeatureStoreWriter(tmp_path / "more", corpus.store.manifest) as writer:
        writer.append("twin", twin, 80.0)
    corpus.index.add(["twin"], twin[None], [80.0], tmp_path / "more")
    answer = corpus.searcher().similar("v3", 13.0 / 4, 13.0 / 2, 20)
    assert answer.hits[0].video_id == "twin"
    assert answer.hits[0].start_seconds <= 65 <= answer.hits[0].end_seconds
    assert (answer.found, answer.confidence) == (True, None)
    assert [hit.rank for hit in answer.hits] == list(range(1, len(answer.hits) + 1))
    for hit in answer.hits:
        assert hit.video_id != "v3" or hit.end_seconds <= 13 / 4 or hit.start_seconds >= 13 / 2
    assert set(answer.relevance) == {hit.video_id for hit in answer.hits}
    assert answer.relevance["twin"].argmax() == 6
    assert corpus.engine.grounded == []


def test_fewer_hits_are_the_first_ones_and_within_is_kept(corpus: Any) -> None:
    searcher = corpus.searcher(num_windows=5)
    many = searcher.similar("v2", 1.0, 4.0, 30).hits
    assert searcher.similar("v2", 1.0, 4.0, 3).hits == many[:3]
    some = searcher.similar("v2", 1.0, 4.0, 30, within=["v2", "v5"])
    assert {hit.video_id for hit in some.hits} == {"v2", "v5"}
    alone = searcher.similar("v2", 0.0, 12.0, 30, within=["v2"])
    assert (alone.hits, alone.found, alone.relevance) == ((), False, {})


def test_similar_says_what_is_wrong(corpus: Any) -> None:
    searcher = corpus.searcher()
    with pytest.raises(DataError, match="does not hold the video 'v9'"):
        searcher.similar("v9", 0, 1)
    with pytest.raises(DataError, match="no moment of the video 'v1'"):
        searcher.similar("v1", 3, 2)
    with pytest.raises(ValueError, match="k must be positive"):
        searcher.similar("v1", 0, 2, 0)
    corpus.index.remove(corpus.index.video_ids)
    with pytest.raises(DataError, match="the index holds no video"):
        searcher.similar("v1", 0, 1)
