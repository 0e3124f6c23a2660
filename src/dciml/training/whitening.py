"""By what the local scale whitens: the words and the clips of the training data, without a label."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from dciml.method import LocalScale, as_teacher
from dciml.training.loader import PairData

MOST_ROWS = 40_000
VIDEOS_AT_ONCE = 64


def fit_whitening(local: LocalScale, data: PairData) -> None:
    """Fit both whitenings of a local scale that has them; a function of the data alone, the same in every process."""
    if local.whiten_words is None or local.whiten_clips is None:
        return
    device = local.whiten_words.mean.device
    local.whiten_words.fit(_words(data).to(device))
    local.whiten_clips.fit(_clips(local, data, device))


def _words(data: PairData) -> Tensor:
    """Words of sentences spread evenly over the training pairs, (rows, width); about `MOST_ROWS` at most."""
    most = data.sizes.max_words
    wanted = max(1, MOST_ROWS // most)
    rows = [
        data.sentences.get(index).contextual[:most] for index in _spread(len(data.pairs), wanted).tolist()
    ]
    return torch.from_numpy(np.concatenate(rows))


def _clips(local: LocalScale, data: PairData, device: torch.device) -> Tensor:
    """Clips of videos spread evenly over the training videos, (rows, width); of a long video its first window."""
    groups = [
        (data.windows[name][0] if name in data.windows else name, own)
        for name, own in data.by_video().items()
    ]
    chosen = _spread(len(groups), max(1, MOST_ROWS // data.sizes.num_clips)).tolist()
    parts = []
    with as_teacher(local):
        for start in range(0, len(chosen), VIDEOS_AT_ONCE):
            some = [
                (groups[place][0], groups[place][1][:1]) for place in chosen[start : start + VIDEOS_AT_ONCE]
            ]
            parts.append(local.propagated(data.collate(some, epoch=0).videos.to(device)).flatten(0, 1))
    return torch.cat(parts)


def _spread(count: int, wanted: int) -> np.ndarray:
    """`wanted` places of `count`, or all of them, evenly spread and ascending."""
    return np.unique(np.linspace(0, count - 1, min(count, wanted)).round().astype(np.int64))
