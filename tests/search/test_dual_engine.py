"""The trained model as search sees it: batches, fused vectors, order, determinism."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dciml.config import RunConfig
from dciml.datasets.folder import DataFolder
from dciml.errors import DataError
from dciml.features.store import FeatureStore
from dciml.method.batch import Batch, collate_videos
from dciml.method.retrieval import score_matrix
from dciml.model_folder import ModelCard, build_dual
from dciml.search.engines import DualEngine
from dciml.threads import set_num_shares

SENTENCES = [
    "red dog runs left",
    "cat",
    "a blue bird sits on the right and jumps slowly",
    "zebra",
    "dog runs",
]


@pytest.fixture
def store(tiny_data: Path) -> FeatureStore:
    return DataFolder.open(tiny_data).store


def test_queries_in_a_batch_equal_queries_one_by_one(engine: DualEngine) -> None:
    together = engine.embed_queries(SENTENCES)
    assert together.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, rtol=1e-5)
    for row, sentence in enumerate(SENTENCES):
        np.testing.assert_allclose(engine.embed_queries([sentence])[0], together[row], atol=2e-6)
    np.testing.assert_allclose(engine.embed_queries(SENTENCES[::-1])[::-1], together, atol=2e-6)


def test_more_queries_and_videos_than_fit_at_once_keep_their_order(
    engine: DualEngine, store: FeatureStore
) -> None:
    many = SENTENCES * 60  # 300 > 256
    np.testing.assert_allclose(
        engine.embed_queries(many), np.tile(engine.embed_queries(SENTENCES), (60, 1)), atol=2e-6
    )
    videos = list(store.video_ids) * 3  # 96 > 64
    np.testing.assert_allclose(
        engine.fused_clips(store, videos),
        np.tile(engine.fused_clips(store, store.video_ids), (3, 1, 1)),
        atol=2e-6,
    )


def test_products_with_fused_clips_are_the_retrieval_score(engine: DualEngine, store: FeatureStore) -> None:
    fused = engine.fused_clips(store, store.video_ids)
    queries = engine.embed_queries(SENTENCES)
    scores = np.einsum("qd,vsd->qvs", queries, fused).max(axis=2)
    videos = collate_videos(store, store.video_ids, num_clips=8, max_frames=16)
    with torch.no_grad():
        encoded = engine.dual.retrieval.encode_videos(videos)
        retrieval = engine.dual.retrieval
        vectors = retrieval.search_vectors(retrieval.encode_queries(engine._queries(SENTENCES)))
        clip_cosine = torch.cosine_similarity(vectors[:, None, None], encoded.clips[None], dim=-1).amax(dim=2)
        frame_cosine = torch.cosine_similarity(vectors[:, None], encoded.frames[None], dim=-1)
        matrix = score_matrix(vectors, engine.dual.retrieval.fused_clips(encoded))
    np.testing.assert_allclose(scores, (0.7 * clip_cosine + 0.3 * frame_cosine).numpy(), atol=2e-6)
    np.testing.assert_allclose(scores, matrix.numpy(), atol=2e-6)


def test_spans_come_best_first_and_lie_in_the_video(engine: DualEngine, store: FeatureStore) -> None:
    videos = store.video_ids[: len(SENTENCES)]
    found = engine.ground(store, SENTENCES, videos)
    assert found.spans_unit.shape == (5, 3, 2)
    assert found.scores.shape == (5, 3)
    assert (np.diff(found.scores, axis=1) <= 0).all()
    assert (found.spans_unit >= 0).all()
    assert (found.spans_unit <= 1).all()
    assert (found.spans_unit[..., 0] <= found.spans_unit[..., 1]).all()
    rows = collate_videos(store, videos, num_clips=0, max_frames=16)
    selection = engine.dual.grounding.select(Batch(rows, engine._queries(SENTENCES), torch.arange(5)))
    best = selection.proposals.at(selection.best_index)
    expected = torch.stack([best.starts(), best.ends()], dim=-1)[:, 0]
    np.testing.assert_allclose(found.spans_unit[:, 0], expected, atol=1e-6)
    np.testing.assert_allclose(found.scores[:, 0], -selection.nll.amin(dim=1), atol=1e-6)


def test_spans_do_not_depend_on_batch_mates(engine: DualEngine, store: FeatureStore) -> None:
    videos = ["train3", "train3", "test30", "train1", "test30"]
    together = engine.ground(store, SENTENCES, videos)
    for row, (sentence, video_id) in enumerate(zip(SENTENCES, videos, strict=True)):
        alone = replace(engine).ground(store, [sentence], [video_id])  # nothing kept of `together`
        np.testing.assert_allclose(alone.scores[0], together.scores[row], atol=1e-5)
        np.testing.assert_allclose(
            np.sort(alone.spans_unit[0], axis=0), np.sort(together.spans_unit[row], axis=0), atol=1e-5
        )
    many = engine.ground(store, SENTENCES * 14, videos * 14)  # 70 > 64
    np.testing.assert_allclose(many.scores, np.tile(together.scores, (14, 1)), atol=1e-5)


def test_spans_do_not_depend_on_how_the_work_is_shared_out(engine: DualEngine, store: FeatureStore) -> None:
    sentences, videos = SENTENCES * 14, ["train3", "train3", "test30", "train1", "test30"] * 14
    alone = engine.ground(store, sentences, videos)
    set_num_shares(3)
    try:
        shared = replace(engine).ground(store, sentences, videos)
        with pytest.raises(DataError, match="nowhere"):
            engine.ground(store, SENTENCES[:3], ["test30", "nowhere", "train1"])
    finally:
        set_num_shares(None)
    np.testing.assert_allclose(shared.scores, alone.scores, atol=1e-5)
    np.testing.assert_allclose(
        np.sort(shared.spans_unit, axis=1), np.sort(alone.spans_unit, axis=1), atol=1e-5
    )


def test_answers_are_the_same_each_time(engine: DualEngine, store: FeatureStore) -> None:
    torch.manual_seed(3)
    first = engine.ground(store, SENTENCES, ["test30"] * 5), engine.embed_queries(SENTENCES)
    torch.manual_seed(4)
    second = engine.ground(store, SENTENCES, ["test30"] * 5), engine.embed_queries(SENTENCES)
    np.testing.assert_array_equal(first[0].scores, second[0].scores)
    np.testing.assert_array_equal(first[0].spans_unit, second[0].spans_unit)
    np.testing.assert_array_equal(first[1], second[1])


def test_hidden_words_are_a_function_of_the_sentence(engine: DualEngine) -> None:
    rows = engine._queries(SENTENCES).hidden_words
    for row, sentence in enumerate(SENTENCES):
        alone = engine._queries([sentence]).hidden_words[0]
        assert torch.equal(rows[row, : len(alone)], alone)
        assert alone.sum() == max(1, min(8, len(sentence.split())) // 3)


def test_other_weights_give_other_answers(
    engine: DualEngine, store: FeatureStore, tiny_config: Callable[..., RunConfig]
) -> None:
    """The tests above would pass for an engine that ignores its model."""
    torch.manual_seed(1)
    card = ModelCard("dciml", 1, "test-encoder", "words", 16, 16, 16, len(engine.vocabulary))
    other = replace(engine, dual=build_dual(tiny_config(), card).eval())
    assert not np.allclose(other.embed_queries(SENTENCES), engine.embed_queries(SENTENCES), atol=0.01)
    one, two = (e.ground(store, SENTENCES[:1], ["test30"]) for e in (engine, other))
    assert not np.allclose(one.spans_unit, two.spans_unit, atol=0.01)


def test_nothing_asked_gives_nothing(engine: DualEngine, store: FeatureStore) -> None:
    assert engine.embed_queries([]).shape == (0, 16)
    assert engine.fused_clips(store, []).shape == (0, 8, 16)
    nothing = engine.ground(store, [], [])
    assert nothing.spans_unit.shape == (0, 3, 2)
    assert nothing.scores.shape == (0, 3)


def test_what_cannot_be_answered_is_explained(engine: DualEngine, store: FeatureStore) -> None:
    with pytest.raises(DataError, match="no word"):
        engine.embed_queries(["?!"])
    with pytest.raises(DataError, match="no word"):
        engine.ground(store, [""], ["test30"])
    with pytest.raises(DataError, match="nowhere"):
        engine.ground(store, ["dog"], ["nowhere"])
    with pytest.raises(DataError, match="nowhere"):
        engine.fused_clips(store, ["nowhere"])
    with pytest.raises(ValueError, match="2 sentences, but 1 videos"):
        engine.ground(store, ["dog", "cat"], ["test30"])
