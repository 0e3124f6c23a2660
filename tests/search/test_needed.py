"""What is grounded only where it changes an answer gives the answer of grounding everything, to the bit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from dciml.config import AnswerConfig
from dciml.datasets.folder import DataFolder
from dciml.index import ClipIndex
from dciml.search.answer import Evidence, RankedMoments, rank_moments
from dciml.search.engines import DualEngine, Grounding
from dciml.search.needed import first_moments
from dciml.search.searcher import Searcher

Places = NDArray[np.int64]
NUM_QUERIES, NUM_VIDEOS, NUM_GROUNDED, NUM_PROPOSALS, NUM_CLIPS = 4, 12, 5, 3, 8


class Known:
    """Random evidence on the videos of some queries, and proposals for all of the first videos; counts what is asked.

    Args:
        spread: how far the scores of videos lie apart.
    """

    def __init__(self, seed: int, spread: float) -> None:
        rng = np.random.default_rng(seed)
        shape = (NUM_QUERIES, NUM_VIDEOS)
        clip_scores = rng.uniform(0, 1, (*shape, NUM_CLIPS)).astype(np.float32)
        # On a coarse grid, so that videos tie.
        video_scores = -np.sort(-rng.integers(0, 9, shape) / 8 * spread, axis=1).astype(np.float32)
        spans = np.sort(rng.uniform(size=(NUM_QUERIES, NUM_GROUNDED, NUM_PROPOSALS, 2)), axis=-1)
        scores = -np.sort(rng.uniform(1, 3, (NUM_QUERIES, NUM_GROUNDED, NUM_PROPOSALS)), axis=-1)
        rows = rng.integers(2, 30, shape)
        self.evidence = Evidence(video_scores, clip_scores, None, rows)
        self._spans, self._scores = spans, scores
        self.asked: list[tuple[int, int]] = []
        self.num_calls = 0

    def ground(self, queries: Places, places: Places) -> Grounding:
        self.num_calls += 1
        self.asked += zip(queries.tolist(), places.tolist(), strict=True)
        return Grounding(self._spans[queries, places], self._scores[queries, places])

    def all_grounded(self, num_grounded: int) -> Evidence:
        spans, scores = self._spans[:, :num_grounded], self._scores[:, :num_grounded]
        grounding = Grounding(spans.reshape(-1, NUM_PROPOSALS, 2), scores.reshape(-1, NUM_PROPOSALS))
        return replace(self.evidence, grounding=grounding if num_grounded else None)


def moments(ranked: RankedMoments) -> list[list[tuple[int, float, float, float]]]:
    """Those that are there, of each query."""
    return [
        [
            (place, start, end, score)
            for place, (start, end), score in zip(*(c.tolist() for c in own), strict=True)
            if np.isfinite(score)
        ]
        for own in zip(ranked.video_places, ranked.spans_unit, ranked.scores, strict=True)
    ]


SETTINGS: dict[str, dict[str, Any]] = {
    "usual": {},
    "close": {"video_weight": 0.5},
    "no_video_weight": {"video_weight": 0.0},
    "proposals": {"candidates": "proposals"},
    "few_spans": {"max_spans": 2, "nms_iou": None},
    "floor": {"contrast_floor": 0.0, "contrast_scale": "similarity", "reconstruction_weight": 2.0},
    "softmax": {"span_reference": "softmax"},
    "absolute": {"span_reference": "absolute"},
}


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("num_grounded", [0, 1, NUM_GROUNDED])
@pytest.mark.parametrize("max_inside", [None, 0.5])
def test_moments_are_those_of_grounding_everything(
    name: str, num_grounded: int, max_inside: float | None
) -> None:
    config = AnswerConfig(**SETTINGS[name])
    for seed in range(3):
        for spread in (0.0, 0.05, 1.0):
            for num_moments in (1, 3, 7, 40):
                known = Known(seed, spread)
                found = first_moments(
                    known.evidence, config, num_moments, num_grounded, known.ground, max_inside
                )
                plain = rank_moments(known.all_grounded(num_grounded), config, num_moments, max_inside)
                assert moments(found) == moments(plain), (seed, spread, num_moments)
                assert len(set(known.asked)) == len(known.asked)
                assert all(place < num_grounded for _, place in known.asked)
                assert known.num_calls <= 2


def test_videos_that_cannot_have_a_moment_are_not_grounded() -> None:
    config = AnswerConfig()
    for seed in range(10):
        known = Known(seed, spread=0.0)
        scores = np.linspace(1, 0, NUM_VIDEOS, dtype=np.float32)[None].repeat(4, axis=0)
        known.evidence = replace(known.evidence, video_scores=scores)
        found = first_moments(known.evidence, config, 1, NUM_GROUNDED, known.ground)
        assert sorted(known.asked) == [(query, 0) for query in range(4)]
        assert moments(found) == moments(rank_moments(known.all_grounded(NUM_GROUNDED), config, 1))
    known = Known(0, spread=0.0)  # all alike: each may have one
    first_moments(known.evidence, config, 30, NUM_GROUNDED, known.ground)
    assert len(known.asked) == 4 * NUM_GROUNDED


@pytest.mark.parametrize("k", [1, 3, 10])
def test_a_real_model_answers_the_same(engine: DualEngine, tiny_data: Path, tmp_path: Path, k: int) -> None:
    store = DataFolder.open(tiny_data).store
    sentences = [pair.sentence for pair in DataFolder.open(tiny_data).pairs("train")][:12]
    index = ClipIndex.create(
        tmp_path / "index",
        num_clips=engine.num_clips,
        width=engine.vector_width,
        fingerprint=engine.fingerprint,
        model_folder=tmp_path / "model",
        store_path=store.path,
    )
    ids = store.video_ids
    index.add(ids, engine.fused_clips(store, ids), [store.duration_seconds(video_id) for video_id in ids])
    searcher = Searcher(engine, index, store, AnswerConfig())
    fewer = searcher.search_batch(sentences, k)
    all_grounded = searcher.search_variants(sentences, [searcher.config], k)[0]
    for ours, theirs in zip(fewer, all_grounded, strict=True):
        assert [hit.video_id for hit in ours] == [hit.video_id for hit in theirs]
        numbers = [
            [(hit.start_seconds, hit.end_seconds, hit.score) for hit in hits] for hits in (ours, theirs)
        ]
        np.testing.assert_allclose(numbers[0], numbers[1], atol=1e-4)
