"""Dropout that does not wait for random numbers: on a CPU one random byte an element instead of one random float."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import local

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LEVELS = 256

_of_thread = local()


@contextmanager
def drawing_from(generator: torch.Generator) -> Iterator[None]:
    """Dropout on a CPU draws from this generator, in this thread; else from the one that all threads share."""
    before = getattr(_of_thread, "generator", None)
    _of_thread.generator = generator
    try:
        yield
    finally:
        _of_thread.generator = before


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
        words = torch.empty(-(-x.numel() // 8), dtype=torch.int64)
        words.random_(-(2**63), None, generator=getattr(_of_thread, "generator", None))
        # 1 or 0, written in the kind of `x` at once: by way of a mask of booleans it takes six times as long.
        kept = torch.empty_like(x)
        torch.ge(words.view(torch.uint8)[: x.numel()].view(x.shape), dropped, out=kept)
        return x * kept.mul_(LEVELS / (LEVELS - dropped))

    def extra_repr(self) -> str:
        return f"probability={self.probability}"
