"""`Searcher.answer`: the hits of search, with probabilities, relevance and "nothing found"."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from dciml.features.row_times import RowTimes
from dciml.search.calibration import Calibration
from dciml.search.compose import Looked, compose, with_chances
from dciml.search.long_videos import WindowedIds
from dciml.search.searcher import Searcher
from dciml.spans import temporal_iou
from dciml.types import SearchHit

SENTENCES = [f"sentence {number}" for number in range(40)]
CALIBRATION = Calibration(3.0, 2.0, 0.5, (0.9, -0.05), (0.1, 0.2, 0, 0, 0, 0.3), 100, 50, "fake engine")


def calibrated(corpus: Any, **settings: Any) -> Searcher:
    plain = corpus.searcher(**settings)
    return Searcher(corpus.engine, corpus.index, corpus.store, plain.config, CALIBRATION)


def test_hits_are_those_of_search_and_of_the_ranking_that_is_evaluated(corpus: Any) -> None:
    searcher = calibrated(corpus, nms_iou=0.5)
    ranked = searcher.search_variants(SENTENCES, [searcher.config], 12)[0]
    answers = searcher.answer_batch(SENTENCES, 12)
    for answer, hits, scored in zip(answers, searcher.search_batch(SENTENCES, 12), ranked, strict=True):
        assert list(answer.hits) == hits
        assert [replace(hit, confidence=None, moment_confidence=None) for hit in hits] == scored
    uncalibrated = corpus.searcher(nms_iou=0.5).search_batch(SENTENCES, 12)
    assert uncalibrated == ranked


def test_spans_of_one_video_overlap_at_most_as_the_setting_says(corpus: Any) -> None:
    for answer in corpus.searcher(nms_iou=0.3).answer_batch(SENTENCES[:10]):
        of_video: dict[str, list[tuple[float, float]]] = {}
        for hit in answer.hits:
            of_video.setdefault(hit.video_id, []).append((hit.start_seconds, hit.end_seconds))
        assert max(map(len, of_video.values())) > 1  # several moments in one video
        for spans in of_video.values():
            overlap = temporal_iou(spans, spans) - np.eye(len(spans))
            assert (overlap <= 0.3 + 1e-6).all()


@pytest.mark.parametrize("within", [None, ["v1", "v4", "v5", "v1"], ["v3"]])
def test_confidence_is_the_calibrations(corpus: Any, within: list[str] | None) -> None:
    searcher = calibrated(corpus)
    answer = searcher.answer("a dog", 50, within)
    videos = searcher.match_videos(["a dog"], 100, within)[0]
    scores = np.array([[video.score for video in videos]], dtype=np.float32)
    vectors = corpus.engine.embed_queries(["a dog"])
    known = CALIBRATION.probabilities(vectors, scores, len(videos))
    assert answer.confidence == pytest.approx(known.present[0])
    expected = {video.video_id: chance for video, chance in zip(videos, known.videos[0], strict=True)}
    assert {hit.video_id for hit in answer.hits} == set(expected)
    for hit in answer.hits:
        assert hit.confidence == pytest.approx(expected[hit.video_id])


def test_a_moment_has_its_own_confidence(corpus: Any) -> None:
    searcher = calibrated(corpus)
    answer = searcher.answer("a dog", 50)
    clips = {video.video_id: video.clip_scores for video in searcher.match_videos(["a dog"], 100)[0]}
    stated = set()
    for hit in answer.hits:
        times = searcher.row_times(hit.video_id)
        spans = times.clip_spans(corpus.index.num_clips)
        speaks, inside = 0.0, 0.0
        for (begin, end), score in zip(spans.tolist(), clips[hit.video_id].tolist(), strict=True):
            shared = max(0.0, min(end, hit.end_seconds) - max(begin, hit.start_seconds)) / (end - begin)
            speaks += math.exp(CALIBRATION.scale * score)
            inside += math.exp(CALIBRATION.scale * score) * shared
        assert hit.confidence is not None
        assert hit.moment_confidence == pytest.approx(hit.confidence * inside / speaks, rel=1e-4)
        assert hit.moment_confidence <= hit.confidence
        stated.add(round(hit.moment_confidence / hit.confidence, 6))
    assert len(stated) > 1
    assert all(hit.moment_confidence is None for hit in corpus.searcher().answer("a dog").hits)


def test_parts_of_a_video_share_its_confidence() -> None:
    clips = np.array([[0.1, 0.9, 0.4, 0.2]], dtype=np.float32)
    hits = [
        SearchHit(rank, "a", start, start + 15.0, 1.0)
        for rank, start in enumerate((0.0, 15.0, 30.0, 45.0), 1)
    ]
    looked = with_chances(
        Looked(["a"], clips), CALIBRATION, np.ones(6, np.float32), np.array([0.9], np.float32), 1
    )
    answer = compose(looked, hits, WindowedIds(["a"]), lambda own: RowTimes(4, 15.0, 60.0), 10, 0.0)
    own = [hit.moment_confidence or 0.0 for hit in answer.hits]
    assert sum(own) == pytest.approx(answer.hits[0].confidence)
    assert max(own) == own[1]
    everything = [SearchHit(1, "a", 0.0, 60.0, 1.0)]
    whole = compose(looked, everything, WindowedIds(["a"]), lambda own: RowTimes(4, 15.0, 60.0), 1, 0.0)
    assert whole.hits[0].moment_confidence == pytest.approx(whole.hits[0].confidence)


def test_one_grounding_batch_serves_an_answer(corpus: Any) -> None:
    batches: list[int] = []
    ground = corpus.engine.ground

    def counted(store: Any, sentences: Any, video_ids: Any) -> Any:
        batches.append(len(video_ids))
        return ground(store, sentences, video_ids)

    corpus.engine.ground = counted
    calibrated(corpus, ground_videos=4).answer("a dog", 50)
    assert batches == [4]


def test_below_the_threshold_nothing_is_found_and_the_nearest_hits_are_there(corpus: Any) -> None:
    sure = calibrated(corpus).answer("a dog").confidence
    assert sure is not None
    at, above = (
        calibrated(corpus, min_confidence=value).answer("a dog") for value in (sure, min(1.0, sure + 1e-6))
    )
    assert (at.found, above.found) == (True, False)
    assert at.hits == above.hits
    assert above.hits


def test_without_a_calibration_every_answer_is_found(corpus: Any) -> None:
    answer = corpus.searcher(min_confidence=1.0).answer("a dog")
    assert (answer.found, answer.confidence) == (True, None)
    assert all(hit.confidence is None for hit in answer.hits)
    nowhere = corpus.searcher().answer("a dog", within=[])
    assert (nowhere.hits, nowhere.found, nowhere.relevance) == ((), False, {})
    calm = calibrated(corpus).answer("a dog", within=[])
    assert (calm.found, calm.confidence) == (False, 0.0)


def test_a_calibration_that_tells_nothing_of_presence_says_so_and_no_number(corpus: Any) -> None:
    """As one of few sentences, by which the odds of any sentence come to about one half."""
    plain = calibrated(corpus)
    weak = Searcher(
        corpus.engine, corpus.index, corpus.store, plain.config, replace(CALIBRATION, tells_up_to=1)
    )
    known, unknown = plain.answer("a dog"), weak.answer("a dog")
    assert known.confidence is not None
    assert max(hit.confidence or 0.0 for hit in unknown.hits) < 0.5
    assert (unknown.found, unknown.confidence) == (True, None)
    assert [hit.moment_confidence for hit in unknown.hits] == [hit.moment_confidence for hit in known.hits]
    assert any("cannot tell: the 100 sentences" in note for note in weak.notes("a dog", unknown))
    assert not any("cannot tell" in note for note in plain.notes("a dog", known))
    one = weak.answer("a dog", within=["v0"])  # in so few it does tell
    assert one.confidence is not None
    sure = Searcher(
        corpus.engine,
        corpus.index,
        corpus.store,
        plain.config,
        replace(weak.calibration, offset=-50.0, scale=90.0),
    )
    assert (sure.answer("a dog").confidence or 0) > 0.5  # one video that is likely by itself is enough


def test_relevance_is_there_for_each_video_of_a_hit(corpus: Any) -> None:
    searcher = corpus.searcher()
    answer = searcher.answer("a dog", 5)
    assert list(answer.relevance) == list(dict.fromkeys(hit.video_id for hit in answer.hits))
    rows = np.stack(list(answer.relevance.values()))
    assert rows.shape == (len(answer.relevance), corpus.index.num_clips)
    assert rows.min() >= 0
    assert rows.max() <= 1
    best = searcher.match_videos(["a dog"], 1)[0][0]
    assert answer.relevance[best.video_id][best.clip_scores.argmax()] == 1


def test_batch_of_answers_equals_one_by_one(corpus: Any) -> None:
    searcher = calibrated(corpus)
    for sentence, together in zip(SENTENCES, searcher.answer_batch(SENTENCES, 6), strict=True):
        alone = searcher.answer(sentence, 6)
        assert (alone.found, [hit.video_id for hit in alone.hits]) == (
            together.found,
            [hit.video_id for hit in together.hits],
        )
        assert alone.confidence == pytest.approx(together.confidence, rel=1e-4)
        for video_id, row in alone.relevance.items():
            np.testing.assert_allclose(row, together.relevance[video_id], atol=1e-4)


def test_long_video_counts_once_and_has_one_timeline() -> None:
    ids = ["talk#t=0,60", "a", "talk#t=30,90"]
    clips = np.array([[0.1, 0.9], [0.2, 0.1], [0.8, 0.1]], dtype=np.float32)
    hits = [
        SearchHit(1, "talk#t=0,60", 32.0, 58.0, 3.0),
        SearchHit(2, "talk#t=30,90", 2.0, 28.0, 2.9),
        SearchHit(3, "a", 0.0, 5.0, 1.0),
    ]
    vector, scores = np.ones(6, dtype=np.float32), np.array([0.9, 0.8, 0.8], dtype=np.float32)
    looked = with_chances(Looked(ids, clips), CALIBRATION, vector, scores, 2)
    once = CALIBRATION.probabilities(vector[None], scores[None, :2], 2)
    answer = compose(looked, hits, WindowedIds(ids), lambda own: RowTimes(2, 30.0, 60.0), 10, 0.0)
    assert answer.confidence == once.present[0]
    assert [hit.video_id for hit in answer.hits] == ["talk", "a"]
    assert [hit.confidence for hit in answer.hits] == once.videos[0].tolist()
    speaks = np.exp(CALIBRATION.scale * clips)  # the moment, 32 to 58, in the windows 0 to 60 and 30 to 90
    there = (speaks[0, 1] * 26 / 30 + speaks[2, 0] * 26 / 30) / (speaks[0] + speaks[2]).sum()
    assert answer.hits[0].moment_confidence == pytest.approx(once.videos[0, 0] * there, rel=1e-5)
    assert answer.relevance["talk"].shape == (3,)
    assert answer.relevance["talk"].argmax() == 1
    assert answer.relevance["a"].shape == (2,)
