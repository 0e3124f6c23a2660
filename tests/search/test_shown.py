"""An answer as it is shown: by video, without what is far below the best, no moment too short to be seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import PurePath
from typing import Any

import numpy as np
import pytest

from dciml.config import AnswerConfig
from dciml.search.contrast import deviations_below
from dciml.search.shown import grouped, show, widened
from dciml.search.titles import Named, telling_titles
from dciml.types import SearchHit

HITS = [
    SearchHit(1, "b", 4.0, 9.0, 5.0),
    SearchHit(2, "a", 0.0, 5.0, 4.0),
    SearchHit(3, "b", 9.5, 9.6, 3.0),
    SearchHit(4, "c", 1.0, 2.0, 1.0),
]


def to_millisecond_of(hit: SearchHit) -> SearchHit:
    return replace(hit, start_seconds=round(hit.start_seconds, 3), end_seconds=round(hit.end_seconds, 3))


def room(_: SearchHit) -> tuple[float, float]:
    return 0.0, 10.0


def test_moments_are_grouped_by_video_best_first() -> None:
    answered = show(HITS, (0.0, 1.0, 2.0, 2.9), AnswerConfig(), room)
    assert [one.video_rank for one in answered.hits] == [1, 2, 1, 3]
    assert [[one.hit.rank for one in own] for own in grouped(answered.hits)] == [[1, 3], [2], [4]]
    assert answered.num_far_below == 0


def test_what_is_far_below_is_marked_and_the_best_never_is() -> None:
    below = (9.0, 0.0, 3.0, 3.1)
    answered = show(HITS, below, AnswerConfig(far_below_deviations=3.0), room)
    assert [one.is_far_below for one in answered.hits] == [False, False, False, True]
    assert ([one.hit.rank for one in answered.close], answered.num_far_below) == ([1, 2, 3], 1)
    assert show(HITS, below, AnswerConfig(far_below_deviations=None), room).num_far_below == 0


@pytest.mark.parametrize(
    ("span", "limits", "shown"),
    [
        ((4.0, 6.0), (0.0, 10.0), (4.0, 6.0)),
        ((4.9, 5.1), (0.0, 10.0), (4.5, 5.5)),
        ((0.0, 0.2), (0.0, 10.0), (0.0, 1.0)),
        ((9.9, 10.0), (0.0, 10.0), (9.0, 10.0)),
        ((0.1, 0.2), (0.0, 0.6), (0.0, 0.6)),
        ((7.0, 7.2), (7.0, 10.0), (7.0, 8.0)),
    ],
)
def test_a_short_moment_is_widened_within_its_room(
    span: tuple[float, float], limits: tuple[float, float], shown: tuple[float, float]
) -> None:
    hit = widened(SearchHit(1, "v", *span, 1.0), 1.0, limits)
    assert (hit.start_seconds, hit.end_seconds) == pytest.approx(shown)


def test_alike_clips_are_not_far_from_each_other() -> None:
    scores = np.full((3, 4), 0.5, dtype=np.float32)
    times = np.array([[0.0, 1.0], [1.0, 2.0], [2.0, 3.0], [3.0, 4.0]])
    assert deviations_below(scores, [[(row, times)] for row in range(3)], [(0.0, 4.0)] * 3) == (0.0, 0.0, 0.0)


def test_a_clear_winner_leaves_the_others_far_below() -> None:
    scores = np.zeros((10, 4), dtype=np.float32)
    scores[0, 2] = 1.0
    scores[1, 0] = 0.9
    times = np.array([[0.0, 1.0], [1.0, 2.0], [2.0, 3.0], [3.0, 4.0]])
    spans = [(2.0, 3.0), (0.0, 1.0), (0.0, 4.0)]
    best, close, far = deviations_below(scores, [[(row, times)] for row in range(3)], spans)
    assert best == 0.0
    assert 0.0 < close < 1.0
    assert far > 3.0


def test_how_answers_are_shown_changes_nothing_of_what_is_found(corpus: Any) -> None:
    sentences = ["a dog", "a cat sleeps"]
    plain = corpus.searcher(far_below_deviations=None, min_seconds=0, max_inside=None)
    narrow = corpus.searcher(far_below_deviations=0.01, min_seconds=8, max_inside=0)
    assert narrow.search_batch(sentences, 100) == plain.search_batch(sentences, 100)
    assert narrow.search_variants(sentences, [narrow.config]) == plain.search_variants(
        sentences, [plain.config]
    )
    assert narrow.ground_given(sentences, ["v0", "v1"]) == plain.ground_given(sentences, ["v0", "v1"])
    answer = narrow.answer("a dog", 100)
    answered = narrow.shown(answer)
    assert 0 < answered.num_far_below < len(answered.hits)
    assert all(one.hit.end_seconds - one.hit.start_seconds >= 8 - 1e-9 for one in answered.hits)
    assert plain.shown(answer).num_far_below == 0
    assert [one.hit for one in plain.shown(answer).hits] == [to_millisecond_of(hit) for hit in answer.hits]


def inside_a_better_one(hits: Sequence[SearchHit], most: float) -> int:
    """How many hits share more than a part of the shorter one with a better one of their video, counted plainly."""
    found = 0
    for place, hit in enumerate(hits):
        for better in hits[:place]:
            shared = min(hit.end_seconds, better.end_seconds) - max(hit.start_seconds, better.start_seconds)
            shorter = min(hit.end_seconds - hit.start_seconds, better.end_seconds - better.start_seconds)
            found += hit.video_id == better.video_id and shared > most * shorter + 0.002
    return found


@pytest.mark.parametrize("settings", [{}, {"span_reference": "absolute", "nms_iou": None}])
@pytest.mark.parametrize("k", [3, 12])
def test_what_is_mostly_inside_a_better_moment_makes_room_for_the_next(
    corpus: Any, settings: dict[str, Any], k: int
) -> None:
    sentences = [f"sentence {number}" for number in range(20)]
    searcher = corpus.searcher(min_seconds=0, far_below_deviations=None, **settings)
    every, answers = searcher.answer_batch(sentences), searcher.answer_batch(sentences, k, to_show=True)
    assert any(inside_a_better_one(answer.hits, 0.5) for answer in every)
    for all_hits, answer in zip(every, answers, strict=True):
        every_hit = [to_millisecond_of(hit) for hit in all_hits.hits]
        moments = [(hit.video_id, hit.start_seconds, hit.end_seconds) for hit in every_hit]
        shown = [one.hit for one in searcher.shown(answer).hits]
        assert len(shown) == k
        assert [hit.rank for hit in shown] == list(range(1, k + 1))
        assert inside_a_better_one(shown, 0.5) == 0
        # The very ones that are left of all moments when the others are crossed out.
        assert shown == [one.hit for one in searcher.shown(all_hits).hits][:k]
        assert {(hit.video_id, hit.start_seconds, hit.end_seconds) for hit in shown} <= set(moments)


def test_times_for_programs_end_at_the_millisecond() -> None:
    hits = [SearchHit(1, "v", 1 / 3, 29.000000000000004, 1.0)]
    (one,) = show(hits, (0.0,), AnswerConfig(), lambda _: (0.0, 40.0)).hits
    assert (one.hit.start_seconds, one.hit.end_seconds) == (0.333, 29.0)


def test_moments_that_widening_brings_together_are_shown_once() -> None:
    hits = [
        SearchHit(1, "v", 2.0, 2.2, 3.0),
        SearchHit(2, "v", 2.4, 2.6, 2.0),
        SearchHit(3, "v", 5.0, 5.2, 1.0),
    ]
    wide = show(hits, (0.0, 0.0, 0.0), AnswerConfig(min_seconds=1.0), room)
    assert [(one.hit.rank, round(one.hit.start_seconds, 2)) for one in wide.hits] == [(1, 1.6), (2, 4.6)]
    assert len(show(hits, (0.0, 0.0, 0.0), AnswerConfig(max_inside=None), room).hits) == 3


def test_what_is_like_a_moment_is_never_widened_into_it(corpus: Any) -> None:
    searcher = corpus.searcher(min_seconds=3)
    answer = searcher.similar("v6", 5.0, 8.0, 100)
    for one in searcher.shown(answer).hits:
        hit = one.hit
        assert hit.video_id != "v6" or hit.end_seconds <= 5.0 + 1e-9 or hit.start_seconds >= 8.0 - 1e-9


def named(*files: str) -> list[Named]:
    return [Named(file.strip("/"), PurePath(file).stem, PurePath(file)) for file in files]


@pytest.mark.parametrize(
    ("files", "titles"),
    [
        (("/f/a/clip.mp4", "/f/b/clip.mp4", "/f/b/other.mp4"), ["a/clip", "b/clip"]),
        (("/f/x/raw/clip.mp4", "/f/y/raw/clip.mp4"), ["x/raw/clip", "y/raw/clip"]),
        (("/f/clip.mp4", "/f/deep/clip.mp4"), ["f/clip", "deep/clip"]),
        (("/f/a/clip.mp4", "/f/a/clip.mkv"), ["clip.mp4", "clip.mkv"]),
        (("/f/a/clip.mp4", "/f/a/clip.mkv", "/f/b/clip.mp4"), ["a/clip.mp4", "a/clip.mkv", "b/clip"]),
        (("/f/one.mp4", "/f/two.mp4"), []),
    ],
)
def test_titles_tell_files_of_one_name_apart(files: tuple[str, ...], titles: list[str]) -> None:
    assert list(telling_titles(named(*files)).values()) == titles


def test_titles_that_nothing_tells_apart_get_the_id() -> None:
    told = telling_titles([Named("one", "film", None), Named("two", "film", None)])
    assert told == {"one": "film (one)", "two": "film (two)"}
