"""Masks, with one polarity everywhere: True where valid."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def padding_bias(mask: Bool[Tensor, "*batch keys"]) -> Float[Tensor, "*batch keys"]:
    """What attention adds to its scores: 0 where valid, a very large negative number at padding.

    Finite, so that a row without any valid key gives an even softmax and not NaN.
    """
    zeros = torch.zeros(mask.shape, dtype=torch.float32, device=mask.device)
    return zeros.masked_fill(~mask, -1e9)


def causal_bias(length: int, device: torch.device) -> Float[Tensor, "length length"]:
    """0 on and below the diagonal, a very large negative number above: position i sees positions ≤ i."""
    allowed = torch.ones(length, length, dtype=torch.bool, device=device).tril()
    return padding_bias(allowed)
