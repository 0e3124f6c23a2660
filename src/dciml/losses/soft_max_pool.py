"""A soft maximum over clips: every clip learns, the best one most."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def soft_max_pool(
    similarity: Float[Tensor, "queries videos clips"], temperature: float
) -> Float[Tensor, "queries videos"]:
    """τ·logsumexp(similarity / τ) over clips: at least the maximum, at most τ·ln(clips) above it.

    Args:
        temperature: τ > 0; towards 0 it becomes the maximum.

    >>> soft_max_pool(torch.tensor([[[0.0, 1.0]]]), 0.1).round(decimals=3).tolist()
    [[1.0]]
    """
    return temperature * torch.logsumexp(similarity / temperature, dim=-1)
