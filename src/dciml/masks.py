"""Masks, with one polarity everywhere: True where valid."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def length_mask(lengths: Int[Tensor, "batch"], max_length: int) -> Bool[Tensor, "batch length"]:
    """True at the first `lengths[i]` positions of row i.

    >>> length_mask(torch.tensor([1, 3]), 3).int().tolist()
    [[1, 0, 0], [1, 1, 1]]
    """
    return torch.arange(max_length, device=lengths.device)[None, :] < lengths[:, None]


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


def masked_mean(
    values: Float[Tensor, "batch length width"], mask: Bool[Tensor, "batch length"]
) -> Float[Tensor, "batch width"]:
    """Mean over the valid positions; 0 for a row without any."""
    weights = mask.to(values.dtype)[..., None]
    return (values * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1.0)
