"""Proposals begin at the windows in which the local scale fits the sentence best (METHOD §5.6)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dciml.config import RunConfig, parse_config
from dciml.errors import ConfigError
from dciml.features.store import FeatureStore
from dciml.method.batch import Batch, collate_videos
from dciml.method.grounding import GroundingBranch
from dciml.method.mutual import DualBranch, best_windows
from dciml.method.outputs import paired_similarity
from dciml.method.retrieval import LocalScale, RetrievalBranch
from dciml.model_folder import load_model
from dciml.recipes.train import train
from dciml.search.engines import DualEngine

PROPOSALS = 4


def make_model(seed: int = 0) -> DualBranch:
    torch.manual_seed(seed)
    sizes: dict[str, Any] = {"video_width": 12, "hidden": 16, "heads": 2, "max_words": 9, "dropout": 0.0}
    local = LocalScale(video_width=12, text_width=10, width=6, dropout=0.0)
    retrieval = RetrievalBranch(text_width=10, num_clips=8, max_frames=16, local=local, **sizes)
    grounding = GroundingBranch(
        static_width=8, vocabulary_size=20, num_proposals=PROPOSALS, num_positions=6, anchored=True, **sizes
    )
    return DualBranch(retrieval, grounding, 16)


def test_at_first_every_proposal_is_the_window_of_its_own_video(batch_of: Callable[..., Batch]) -> None:
    model, batch = make_model(), batch_of((2, 1, 3))
    found = model.select(batch)
    local = model.retrieval.local
    assert local is not None
    for query, video in enumerate(batch.video_of_query.tolist()):
        with torch.no_grad():
            clips = local.encode_clips(batch.videos)[[video]]
            similarity = paired_similarity(local.encode_queries(batch.queries)[[query]], clips)
            windows = best_windows(similarity, PROPOSALS, floor=0.4)
        torch.testing.assert_close(found.proposals.centers[query], windows.centers[0], atol=2e-3, rtol=0)
        assert found.proposals.log_prior is not None
        torch.testing.assert_close(
            found.proposals.log_prior[query].exp(), windows.shares[0], atol=1e-5, rtol=0
        )
    assert found.proposals.log_prior is not None
    torch.testing.assert_close(found.cost, found.nll - found.proposals.log_prior)
    assert torch.equal(found.best_index, found.cost.argmin(dim=1))


def test_anchors_carry_no_gradient_and_the_head_moves_away_from_them(batch_of: Callable[..., Batch]) -> None:
    model, batch = make_model(), batch_of((2, 1, 3))
    anchored = model.anchored(batch)
    proposals = model.grounding.propose(
        model.grounding.watch(batch.videos), anchored.queries, batch.video_of_query
    )
    (proposals.centers.sum() + proposals.widths.sum()).backward()
    assert model.grounding.span_head.weight.grad is not None
    assert model.grounding.span_head.weight.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in model.retrieval.parameters())
    with torch.no_grad():
        model.grounding.span_head.bias[:PROPOSALS] = 1.0
        moved = model.grounding.propose(
            model.grounding.watch(batch.videos), anchored.queries, batch.video_of_query
        )
    assert (moved.centers > proposals.centers).all()
    torch.testing.assert_close(moved.widths, proposals.widths)


def test_anchors_do_not_depend_on_batch_mates(batch_of: Callable[..., Batch]) -> None:
    model, batch = make_model(), batch_of((2, 1, 3))
    whole = model.anchored(batch).queries.anchors
    assert whole is not None
    places = torch.tensor([4, 2])
    some = model.anchored(batch.at(places)).queries.anchors
    assert some is not None
    torch.testing.assert_close(some, whole[places])


def test_videos_of_few_clips_repeat_their_last_window(batch_of: Callable[..., Batch]) -> None:
    model, batch = make_model(), batch_of((1, 1))
    videos = batch.videos
    few = replace(
        batch, videos=replace(videos, clips=videos.clips[:, :2], clip_centers=videos.clip_centers[:, :2])
    )
    anchors = model.anchored(few).queries.anchors
    assert anchors is not None
    assert anchors.shape == (2, PROPOSALS, 3)
    torch.testing.assert_close(anchors[:, -1], anchors[:, -2])


def test_without_a_local_scale_there_are_none() -> None:
    with pytest.raises(ConfigError, match="needs the local scale"):
        parse_config({"name": "x", "data": {"folder": "x"}, "grounding": {"anchors": True}}, "x")


def test_a_trained_model_answers_as_it_was_trained(
    tiny_config: Callable[..., RunConfig], tiny_data: Path, tmp_path: Path
) -> None:
    base = tiny_config().model_dump(exclude_defaults=True)
    config = tiny_config(
        retrieval={**base["retrieval"], "local": "linear", "local_width": 8},
        grounding={**base["grounding"], "anchors": True},
    )
    engine = load_model(train(config, tmp_path / "model", quiet=True)).engine
    assert isinstance(engine, DualEngine)
    store = FeatureStore.open(tiny_data / "features")
    sentences, videos = ["a dog runs", "a cat sits", "a dog runs"], list(store.video_ids[:3])
    found = engine.ground(store, sentences, videos)
    rows = collate_videos(store, videos, num_clips=engine.num_clips, max_frames=engine.sizes.max_frames)
    queries = replace(engine._queries(sentences), query_ids=("0", "1", "2"))
    selection = engine.dual.select(Batch(rows, queries, torch.arange(3)))
    best = selection.best()
    expected = torch.cat([best.starts(), best.ends()], dim=1)
    np.testing.assert_allclose(found.spans_unit[:, 0], expected, atol=1e-5)
    np.testing.assert_allclose(found.scores[:, 0], -selection.cost.amin(dim=1), atol=1e-5)
    again = engine.ground(store, sentences[:1], videos[:1])  # from what is kept of the video
    np.testing.assert_allclose(again.spans_unit[0], found.spans_unit[0], atol=1e-5)
