"""Grounding without any of its shortcuts (tests/oracle), for the benchmarks to compare with."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from dciml.features import FeatureStore
from dciml.method import Batch, collate_videos
from dciml.search import DualEngine

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "oracle"))
from plain_step import gaussian, padded_queries, plain_propose, plain_sentence_nll


@torch.inference_mode()
def plain_ground(
    engine: DualEngine, store: FeatureStore, sentences: Sequence[str], video_ids: Sequence[str]
) -> NDArray[np.float64]:
    """Scores of the proposals of sentence i in video i, best first, as `DualEngine.ground` gives them.

    Every pair has its own copy of its sentence, padded to the most words, and of its video; every proposal is
    reconstructed whole.
    """
    branch, sizes = engine.dual.grounding, engine.sizes
    videos = collate_videos(store, video_ids, num_clips=0, max_frames=sizes.max_frames)
    queries = padded_queries(engine._queries(sentences), sizes.max_words)
    batch = Batch(videos, queries, torch.arange(len(sentences))).to(engine.device)
    proposals, sampled = plain_propose(branch, batch)
    weights = gaussian(proposals.centers, proposals.widths / branch.gaussian_sigma, branch.num_positions)
    nll = [plain_sentence_nll(branch, batch.queries, sampled, own)[0] for own in weights.unbind(dim=1)]
    return -torch.stack(nll, dim=1).sort(dim=1).values.cpu().double().numpy()


def largest_difference(found: NDArray[np.float64], expected: NDArray[np.float64]) -> float:
    """Of two sets of scores, in nats."""
    return float(np.abs(found - expected).max())
