from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dciml.errors import DataError, ModelError
from dciml.features.store import FeatureStore, FeatureStoreWriter, StoreManifest
from dciml.search.answer import rank_moments
from dciml.search.stores import VideoStores
from dciml.types import SearchHit

SENTENCES = [f"sentence {number}" for number in range(70)]


def assert_same(ours: list[SearchHit], theirs: list[SearchHit]) -> None:
    assert [(hit.rank, hit.video_id) for hit in ours] == [(hit.rank, hit.video_id) for hit in theirs]
    numbers = [[(hit.start_seconds, hit.end_seconds, hit.score) for hit in hits] for hits in (ours, theirs)]
    np.testing.assert_allclose(numbers[0], numbers[1], atol=1e-5)


def test_search_finds_the_planted_moment(corpus: Any) -> None:
    vectors = corpus.engine.fused_clips(corpus.store, ["v3"])[0]
    corpus.engine.planted["planted"] = vectors[5] * 10
    hit = corpus.searcher(candidates="windows").search("planted")[0]
    assert (hit.rank, hit.video_id) == (1, "v3")
    assert hit.start_seconds <= 5.5 / 8 * 13.0 <= hit.end_seconds


def test_batch_equals_one_by_one(corpus: Any) -> None:
    searcher = corpus.searcher(num_videos=4, ground_videos=2)
    for sentence, hits in zip(SENTENCES, searcher.search_batch(SENTENCES, 8), strict=True):
        assert_same(searcher.search(sentence, 8), hits)


def test_hits_are_ordered_numbered_and_inside_their_videos(corpus: Any) -> None:
    for hits in corpus.searcher().search_batch(SENTENCES[:5]):
        assert [hit.rank for hit in hits] == list(range(1, len(hits) + 1))
        scores = [hit.score for hit in hits]
        assert scores == sorted(scores, reverse=True)
        for hit in hits:
            duration = corpus.store.duration_seconds(hit.video_id)
            assert 0 <= hit.start_seconds <= hit.end_seconds <= duration + 1e-6


def test_only_the_first_videos_are_grounded(corpus: Any) -> None:
    searcher = corpus.searcher(ground_videos=2)
    searcher.search("a dog")
    best = [match.video_id for match in searcher.match_videos(["a dog"], 2)[0]]
    assert corpus.engine.grounded == [("a dog", video_id) for video_id in best]


def test_no_grounding_when_windows_are_the_candidates(corpus: Any) -> None:
    searcher = corpus.searcher(candidates="windows")
    assert len(searcher.search("a dog", 100)) == 7 * 5
    assert len(searcher.ground_given(["a dog"], ["v1"])[0]) == 5
    assert corpus.engine.grounded == []


def test_k_takes_the_first_hits(corpus: Any) -> None:
    searcher = corpus.searcher(max_hits=20)
    assert len(searcher.search_batch(["a dog"])[0]) == 20
    assert searcher.search("a dog", 3) == searcher.search("a dog", 50)[:3]
    with pytest.raises(ValueError, match="k must be positive"):
        searcher.search("a dog", 0)


def test_within_searches_these_videos_only(corpus: Any) -> None:
    hits = corpus.searcher().search("a dog", 100, within=["v2", "v5"])
    assert {hit.video_id for hit in hits} == {"v2", "v5"}


def test_ground_given_is_search_within_one_video(corpus: Any) -> None:
    searcher = corpus.searcher()
    sentences, videos = ["a dog", "a cat", "a dog"], ["v2", "v2", "v6"]
    for sentence, video_id, hits in zip(
        sentences, videos, searcher.ground_given(sentences, videos), strict=True
    ):
        found = searcher.search(sentence, 100, within=[video_id])
        shift = found[0].score - hits[0].score  # the video's own score does not count when it is given
        assert_same([replace(hit, score=hit.score - shift) for hit in found], hits)
    with pytest.raises(ValueError, match="3 sentences, but 1 videos"):
        searcher.ground_given(sentences, ["v2"])


def test_evidence_can_be_ranked_again_with_other_settings(corpus: Any) -> None:
    searcher, other = corpus.searcher(), corpus.searcher(contrast_weight=3.0, nms_iou=0.5)
    hits = []
    for matches, evidence in searcher.evidence(SENTENCES[:40]):
        hits += searcher._hits(matches, rank_moments(evidence, other.config, 10))
    assert hits == other.search_batch(SENTENCES[:40], 10)


def test_videos_of_another_store_are_grounded_from_it(corpus: Any, tmp_path: Path) -> None:
    rows = np.ones((9, corpus.engine.vector_width), dtype=np.float32)
    with FeatureStoreWriter(tmp_path / "more", corpus.store.manifest) as writer:
        writer.append("new", rows, 5.0)
    more = FeatureStore.open(tmp_path / "more")
    corpus.index.add(["new"], corpus.engine.fused_clips(more, ["new"]), [5.0], more.path)
    hits = corpus.searcher(ground_videos=8).search_batch(["a dog", "a cat"])
    assert any(hit.video_id == "new" for hit in hits[0])
    mixed = corpus.searcher().ground_given(["a dog", "x"], ["new", "v1"])
    alone = corpus.searcher().ground_given(["x"], ["v1"])
    assert_same(mixed[1], alone[0])
    assert mixed[0][0].video_id == "new"


def test_a_new_video_of_an_old_name_is_grounded_from_its_own_store(corpus: Any, tmp_path: Path) -> None:
    with FeatureStoreWriter(tmp_path / "more", corpus.store.manifest) as writer:
        writer.append("v1", np.ones((9, corpus.engine.vector_width), dtype=np.float32), 5.0)
    more = FeatureStore.open(tmp_path / "more")
    corpus.index.remove(["v1"])
    corpus.index.add(["v1"], corpus.engine.fused_clips(more, ["v1"]), [5.0], more.path)
    stores = VideoStores(corpus.index, corpus.store)
    groups = {store.path: places for store, places in stores.group(["v0", "v1", "v2"])}
    assert groups == {corpus.store.path: [0, 2], more.path: [1]}
    more.path.rename(tmp_path / "gone")  # all features may have been put into one store since
    assert [places for _, places in VideoStores(corpus.index, corpus.store).group(["v0", "v1"])] == [[0, 1]]


@pytest.mark.parametrize("sentence", ["", "  ", "?!"])
def test_sentence_without_words_is_refused(corpus: Any, sentence: str) -> None:
    with pytest.raises(DataError, match="sentence"):
        corpus.searcher().search(sentence)


def test_unknown_video_is_refused(corpus: Any) -> None:
    with pytest.raises(DataError, match="does not hold the video 'v9'"):
        corpus.searcher().search("a dog", within=["v9"])


def test_empty_index_is_refused(corpus: Any) -> None:
    corpus.index.remove(corpus.index.video_ids)
    with pytest.raises(DataError, match="the index holds no video"):
        corpus.searcher().search("a dog")


def test_no_sentences_give_no_answers(corpus: Any) -> None:
    assert corpus.searcher().search_batch([]) == []
    assert corpus.searcher().ground_given([], []) == []


def test_index_of_another_model_is_refused(corpus: Any) -> None:
    corpus.engine.fingerprint = "another"
    with pytest.raises(ModelError, match="built with another model"):
        corpus.searcher()


def test_video_that_left_its_store_is_named(corpus: Any, tmp_path: Path) -> None:
    with FeatureStoreWriter(tmp_path / "short", StoreManifest("fake", 6, 1.0)) as writer:
        writer.append("v0", np.ones((9, 6), dtype=np.float32), 10.0)
    searcher = corpus.searcher()
    corpus.index.add(["gone"], np.ones((1, 8, 6)), [5.0], tmp_path / "short")
    with pytest.raises(DataError, match="no features of the video 'gone'"):
        searcher.ground_given(["a dog"], ["gone"])
