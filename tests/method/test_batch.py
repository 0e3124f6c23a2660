"""Collating: padding, masks, cutting, and the choice of hidden words."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dciml.datasets.folder import DataFolder
from dciml.errors import DataError
from dciml.features.encoders.words import WordEncoder
from dciml.features.store import FeatureStore
from dciml.features.vocabulary import Vocabulary
from dciml.method.batch import Batch, collate_queries, collate_videos, hidden_positions


@pytest.fixture
def store(tiny_data: Path) -> FeatureStore:
    return DataFolder.open(tiny_data).store


def test_videos_are_the_same_alone_and_in_a_batch(store: FeatureStore) -> None:
    together = collate_videos(store, store.video_ids[:6], num_clips=8, max_frames=20)
    assert together.video_ids == store.video_ids[:6]
    for row, video_id in enumerate(together.video_ids):
        alone = collate_videos(store, [video_id], num_clips=8, max_frames=20)
        length = alone.frames.shape[1]
        assert length == min(20, store.num_rows(video_id))
        assert torch.equal(together.clips[row], alone.clips[0])
        assert torch.equal(together.frames[row, :length], alone.frames[0])
        assert together.frame_mask[row].tolist() == [i < length for i in range(together.frames.shape[1])]
        assert (together.frames[row, length:] == 0).all()


def test_video_rows_have_unit_length_and_short_videos_keep_their_rows(store: FeatureStore) -> None:
    videos = collate_videos(store, store.video_ids[:4], num_clips=32, max_frames=128)
    assert videos.clips.shape == (4, 32, 16)
    torch.testing.assert_close(videos.clips.norm(dim=-1), torch.ones(4, 32))
    torch.testing.assert_close(videos.frames.norm(dim=-1)[videos.frame_mask].min(), torch.tensor(1.0))
    rows = torch.from_numpy(store.rows(store.video_ids[0]).astype(np.float32))
    expected = rows / rows.norm(dim=1, keepdim=True)
    torch.testing.assert_close(videos.frames[0, : len(rows)], expected)


@pytest.mark.parametrize("num_clips", [8, 32])
def test_a_clip_is_where_its_rows_are_for_training_as_for_search(store: FeatureStore, num_clips: int) -> None:
    """Both ways: the middles of clips lie in the seconds that an answer would give for the clip."""
    videos = collate_videos(store, store.video_ids, num_clips=num_clips, max_frames=16)
    for video_id, centers in zip(videos.video_ids, videos.clip_centers, strict=True):
        times = store.row_times(video_id)
        spans = times.clip_spans(num_clips)
        np.testing.assert_allclose(times.seconds(centers.numpy()), spans.mean(axis=1), rtol=1e-5)


def test_unknown_video_is_named(store: FeatureStore) -> None:
    with pytest.raises(DataError, match="nowhere"):
        collate_videos(store, ["nowhere"], num_clips=4, max_frames=4)


def test_queries_are_padded_cut_and_marked() -> None:
    sentences = ["a red dog runs", "cat", "a zebra sits down here now"]
    vocabulary = Vocabulary.build(["a red dog runs", "a cat sits"])
    encoded = WordEncoder(vocabulary, 8).encode(sentences)
    hidden = [np.array([1, 3]), np.array([0]), np.array([2])]
    queries = collate_queries(["x", "y", "z"], encoded, vocabulary, max_words=4, hidden=hidden)
    assert queries.query_ids == ("x", "y", "z")
    assert queries.words.shape == queries.static_words.shape == (3, 4, 8)
    assert queries.word_mask.sum(1).tolist() == [4, 1, 4]
    known = vocabulary.ids(["a", "red", "dog", "runs"]).tolist()
    assert queries.word_ids[0].tolist() == known
    assert queries.word_ids[2].tolist() == [known[0], 0, int(vocabulary.ids(["sits"])[0]), 0]
    assert queries.hidden_words.int().tolist() == [[0, 1, 0, 1], [1, 0, 0, 0], [0, 0, 1, 0]]
    assert not (queries.hidden_words & ~queries.word_mask).any()
    assert queries.content_words is not None
    weighty = [vocabulary.weights(sentence.words[:4]) > 1 for sentence in encoded]
    assert queries.content_words.tolist() == [[*row, *[False] * (4 - len(row))] for row in map(list, weighty)]
    assert queries.content_words[0].tolist() == [False, True, True, True]
    assert not collate_queries(["y"], encoded[1:2], vocabulary, max_words=4).hidden_words.any()


@settings(deadline=None, max_examples=50)
@given(st.lists(st.sampled_from([1.0, 2.0]), min_size=1, max_size=30), st.integers(0, 2**32))
def test_a_third_of_the_words_is_hidden(weights: list[float], seed: int) -> None:
    positions = hidden_positions(np.array(weights), np.random.default_rng(seed))
    assert len(positions) == max(1, len(weights) // 3)
    assert positions.tolist() == sorted(set(positions.tolist()))
    assert positions.min() >= 0
    assert positions.max() < len(weights)


def test_important_words_are_hidden_twice_as_often() -> None:
    rng = np.random.default_rng(0)
    chosen = np.concatenate([hidden_positions(np.array([2.0, 1.0, 1.0]), rng) for _ in range(4000)])
    share = np.bincount(chosen, minlength=3) / 4000
    np.testing.assert_allclose(share, [0.5, 0.25, 0.25], atol=0.03)


def test_batch_moves_whole(batch: Batch) -> None:
    moved = batch.to(torch.device("meta"))
    for part in (moved.videos, moved.queries):
        tensors = [value for value in vars(part).values() if isinstance(value, torch.Tensor)]
        assert tensors
        assert all(value.device.type == "meta" for value in tensors)
    assert moved.video_of_query.device.type == "meta"
    assert moved.videos.video_ids == batch.videos.video_ids
