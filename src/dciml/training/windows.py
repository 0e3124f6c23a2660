"""Which window of a long video does a sentence tell of? (docs/decisions/0016-windows-of-long-videos.md)"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from dciml.method.batch import collate_queries, collate_videos
from dciml.method.layers import as_teacher
from dciml.method.mutual import DualBranch
from dciml.method.retrieval import score_matrix
from dciml.training.loader import Chosen, PairData

WINDOWS_AT_ONCE = 64


def choose_windows(model: DualBranch, data: PairData, device: torch.device, epoch: int) -> Chosen:
    """The window of each sentence of a long video in an epoch: any in the first one, then the best.

    A function of (seed, epoch) and of the weights; the model is left as it was.
    """
    if not data.windows:
        return {}
    return random_windows(data) if epoch == 0 else best_windows(model, data, device)


def random_windows(data: PairData) -> Chosen:
    """Any window, drawn by the seed."""
    chosen: dict[int, str] = {}
    for video_id, members in data.by_video().items():
        windows = data.windows.get(video_id)
        if windows is not None:
            places = np.random.default_rng([data.config.seed, members[0]]).integers(
                len(windows), size=len(members)
            )
            chosen |= {index: windows[place] for index, place in zip(members, places.tolist(), strict=True)}
    return chosen


def best_windows(model: DualBranch, data: PairData, device: torch.device) -> Chosen:
    """The window that the retrieval branch scores best, without dropout; the earlier one of equals."""
    chosen: dict[int, str] = {}
    with as_teacher(model):
        for video_id, members in data.by_video().items():
            windows = data.windows.get(video_id)
            if windows is not None:
                scores = window_scores(model, data, windows, _queries(model, data, members, device))
                best = scores.argmax(dim=1).tolist()
                chosen |= {index: windows[place] for index, place in zip(members, best, strict=True)}
    return chosen


def window_scores(model: DualBranch, data: PairData, windows: Sequence[str], queries: Tensor) -> Tensor:
    """The retrieval score of each query (Q, hidden) and each window: (Q, windows)."""
    settings, parts = data.config.retrieval, []
    for start in range(0, len(windows), WINDOWS_AT_ONCE):
        videos = collate_videos(
            data.store,
            windows[start : start + WINDOWS_AT_ONCE],
            num_clips=settings.num_clips,
            max_frames=settings.max_frames,
        ).to(queries.device)
        fused = model.retrieval.fused_clips(model.retrieval.encode_videos(videos))
        parts.append(score_matrix(queries, fused))
    return torch.cat(parts, dim=1)


def _queries(model: DualBranch, data: PairData, members: Sequence[int], device: torch.device) -> Tensor:
    batch = collate_queries(
        [data.pairs[index].query_id for index in members],
        [data.sentences.get(index) for index in members],
        data.vocabulary,
        max_words=data.config.text.max_words,
    )
    return model.retrieval.encode_queries(batch.to(device))
