"""The loss of reconstructed words, over real words only, in pieces that fit in a cache."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F


def word_nll(
    states: Float[Tensor, "queries words hidden"],
    word_ids: Int[Tensor, "queries words"],
    word_mask: Bool[Tensor, "queries words"],
    weight: Float[Tensor, "vocabulary hidden"],
    bias: Float[Tensor, "vocabulary"],
    label_smoothing: float,
) -> Float[Tensor, "queries"]:
    """Mean over each sentence's words of the label-smoothed cross-entropy, in nats.

    Only real words are computed; padding never meets the vocabulary. With smoothing ε the loss of a word is
    logsumexp(z) − (1 − ε)·z_y − ε·mean(z), as in `torch.nn.functional.cross_entropy`.
    """
    packed = states[word_mask]  # (real words, hidden)
    losses = F.cross_entropy(
        F.linear(packed, weight, bias).float(),
        word_ids[word_mask],
        label_smoothing=label_smoothing,
        reduction="none",
    )
    query_index = word_mask.nonzero()[:, 0]
    sums = torch.zeros(len(states), dtype=losses.dtype, device=losses.device).index_add(
        0, query_index, losses
    )
    return sums / word_mask.sum(dim=1).clamp(min=1)
