from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from dciml.config import AnswerConfig
from dciml.search.answer import Evidence, RankedMoments, rank_moments, rank_spans
from dciml.search.contrast import similarity_spread, span_contrast, with_floor
from dciml.search.engines import Grounding
from dciml.spans import temporal_iou


def evidence(
    num_queries: int = 3, num_videos: int = 4, num_grounded: int = 2, num_proposals: int = 3, seed: int = 0
) -> Evidence:
    rng = np.random.default_rng(seed)
    clip_scores = rng.uniform(0, 1, (num_queries, num_videos, 8)).astype(np.float32)
    video_scores = -np.sort(-clip_scores.max(axis=2), axis=1)
    pairs = num_queries * num_grounded
    spans = np.sort(rng.uniform(size=(pairs, num_proposals, 2)), axis=2)
    scores = -np.sort(rng.uniform(1, 3, (pairs, num_proposals)), axis=1)
    return Evidence(video_scores, clip_scores, Grounding(spans, scores) if num_grounded else None)


def config(**settings: Any) -> AnswerConfig:
    return AnswerConfig(**{"nms_iou": None, "reconstruction_weight": 1.0, **settings})


def pick(grounding: Grounding, row: int) -> Grounding:
    return Grounding(grounding.spans_unit[row : row + 1], grounding.scores[row : row + 1])


def as_rows(ranked: RankedMoments, query: int) -> list[tuple[int, float, float, float]]:
    return [
        (int(place), float(span[0]), float(span[1]), float(score))
        for place, span, score in zip(
            ranked.video_places[query], ranked.spans_unit[query], ranked.scores[query], strict=True
        )
        if np.isfinite(score)
    ]


def slow_moments(
    known: Evidence, settings: AnswerConfig, query: int
) -> list[tuple[int, float, float, float]]:
    """The rule of the module's docstring, one video and one span after the other."""
    grounding, found = known.grounding, []
    num_grounded = 0 if grounding is None else len(grounding.scores) // len(known.video_scores)
    for place, clips in enumerate(known.clip_scores[query]):
        own = pick(grounding, query * num_grounded + place) if place < num_grounded else None
        counts = None if known.num_rows is None else known.num_rows[query, place : place + 1]
        ranked = rank_spans(clips[None], own, settings, counts)
        for span, score in zip(ranked.spans_unit[0], ranked.scores[0], strict=True):
            if np.isfinite(score):
                term = score - ranked.scores[0, 0] if settings.span_reference == "best" else score
                if settings.span_reference == "softmax":
                    term = score - np.log(np.exp(ranked.scores[0]).sum())
                total = settings.video_weight * float(known.video_scores[query, place]) + term
                found.append((place, float(span[0]), float(span[1]), float(total)))
    return sorted(found, key=lambda moment: -moment[3])


@pytest.mark.parametrize("reference", ["best", "softmax", "absolute"])
@pytest.mark.parametrize("candidates", ["proposals", "windows", "both"])
@pytest.mark.parametrize("num_grounded", [0, 2, 4])
def test_rank_moments_equals_the_slow_rule(reference: str, candidates: str, num_grounded: int) -> None:
    known = evidence(num_grounded=num_grounded)
    settings = config(span_reference=reference, candidates=candidates, num_windows=4, nms_iou=0.8)
    ranked = rank_moments(known, settings, 100)
    for query in range(3):
        np.testing.assert_allclose(
            as_rows(ranked, query), slow_moments(known, settings, query), atol=1e-5, err_msg=str(query)
        )


def test_fewer_moments_are_the_first_ones() -> None:
    known = evidence()
    whole, short = rank_moments(known, config(), 100), rank_moments(known, config(), 5)
    assert short.scores.shape == (3, 5)
    np.testing.assert_array_equal(short.spans_unit, whole.spans_unit[:, :5])


def test_settings_reach_both_orders_of_videos_and_spans() -> None:
    known = evidence(num_queries=1, num_grounded=0)
    spread_out = rank_moments(known, config(contrast_weight=1e6), 4).video_places[0]
    assert spread_out.tolist() == [0, 1, 2, 3]  # the first span of each video
    deep = rank_moments(known, config(video_weight=1e6, num_windows=3), 12).video_places[0]
    assert deep.tolist() == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3


def test_spans_of_equal_weight_keep_the_models_order() -> None:
    known = evidence(num_queries=1, num_videos=1, num_grounded=1)
    assert known.grounding is not None
    settings = config(candidates="proposals", contrast_weight=0.0)
    ranked = rank_spans(known.clip_scores[0], known.grounding, settings)
    np.testing.assert_array_equal(ranked.spans_unit, known.grounding.spans_unit)
    expected = known.grounding.scores - known.grounding.scores.max()
    np.testing.assert_allclose(ranked.scores, expected)


@pytest.mark.parametrize("scale", ["correlation", "similarity"])
def test_proposal_score_is_the_documented_sum(scale: str) -> None:
    known = evidence(num_queries=1, num_videos=1, num_grounded=1)
    assert known.grounding is not None
    settings = config(
        candidates="proposals", contrast_weight=2.0, reconstruction_weight=3.0, contrast_scale=scale
    )
    clips = known.clip_scores[0]
    lifted = with_floor(clips, settings.contrast_floor)
    contrast = span_contrast(lifted, known.grounding.spans_unit)
    if scale == "correlation":
        contrast = contrast / similarity_spread(lifted)[:, None]
    below = known.grounding.scores - known.grounding.scores.max()
    expected = -np.sort(-(2.0 * contrast + 3.0 * below), axis=1)
    np.testing.assert_allclose(rank_spans(clips, known.grounding, settings).scores, expected, rtol=1e-5)


def test_window_counts_as_an_average_proposal() -> None:
    known = evidence(num_queries=1, num_videos=1, num_grounded=1)
    assert known.grounding is not None
    settings = config(contrast_weight=0.0, num_windows=2)
    scores = rank_spans(known.clip_scores[0], known.grounding, settings).scores[0]
    below = known.grounding.scores[0] - known.grounding.scores[0].max()
    np.testing.assert_allclose(scores, -np.sort(-np.append(below, [below.mean()] * 2)))


def test_each_video_of_an_answer_has_spans_of_its_own_rows() -> None:
    """In a video of fewer rows than clips, spans are of whole rows."""
    rows = np.random.default_rng(3).integers(1, 20, (3, 4))
    known = replace(evidence(num_grounded=4, num_proposals=6), num_rows=rows)
    ranked = rank_moments(known, config(), 200)
    for query in range(3):
        np.testing.assert_allclose(as_rows(ranked, query), slow_moments(known, config(), query), atol=1e-5)
        for place, start, end, _ in as_rows(ranked, query):
            borders = np.array([start, end]) * rows[query, place]
            if rows[query, place] < 8:
                np.testing.assert_allclose(borders, borders.round(), atol=1e-9)
                assert borders[1] > borders[0]


def test_suppression_leaves_no_pair_that_overlaps_more() -> None:
    known = evidence(num_videos=5, num_grounded=5, num_proposals=6)
    clips = known.clip_scores.reshape(-1, 8)
    free = rank_spans(clips, known.grounding, config())
    apart = rank_spans(clips, known.grounding, config(nms_iou=0.4))
    assert np.isneginf(apart.scores).any()
    for row in range(len(clips)):
        kept = np.isfinite(apart.scores[row])
        assert apart.scores[row, 0] == free.scores[row, 0]
        overlap = temporal_iou(apart.spans_unit[row, kept], apart.spans_unit[row, kept])
        assert (overlap - np.eye(len(overlap)) <= 0.4 + 1e-9).all()


def test_max_spans_keeps_the_best() -> None:
    known = evidence(num_queries=1, num_videos=1, num_grounded=1)
    free = rank_spans(known.clip_scores[0], known.grounding, config())
    two = rank_spans(known.clip_scores[0], known.grounding, config(max_spans=2))
    np.testing.assert_array_equal(two.scores, free.scores[:, :2])


def test_video_of_alike_clips_has_spans_of_no_contrast() -> None:
    ranked = rank_spans(np.full((1, 8), 0.25, dtype=np.float32), None, config())
    assert (ranked.scores == 0).all()
