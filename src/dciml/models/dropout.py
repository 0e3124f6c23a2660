"""Dropout that does not wait for random numbers: on a CPU one random byte an element instead of one random float."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LEVELS = 256


class Dropout(nn.Module):
    """As `torch.nn.Dropout`; on a CPU the probability is rounded to a multiple of 1/256 (0.2 → 0.1992).

    What is kept is scaled by that very probability, so that the mean stays exact. On a CPU, drawing the numbers of
    `torch.nn.Dropout` took 8 % of a training step (docs/PERFORMANCE.md).
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        if not 0 <= probability < 1:
            raise ValueError(f"the probability of dropout must lie in [0, 1), not {probability}")
        self.probability = probability

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.probability == 0:
            return x
        if x.device.type != "cpu":
            return F.dropout(x, self.probability)
        dropped = max(1, round(self.probability * LEVELS))
        words = torch.empty(-(-x.numel() // 8), dtype=torch.int64).random_(-(2**63), None)
        kept = words.view(torch.uint8)[: x.numel()].view(x.shape) >= dropped
        return x * kept.to(x.dtype).mul_(LEVELS / (LEVELS - dropped))

    def extra_repr(self) -> str:
        return f"probability={self.probability}"
