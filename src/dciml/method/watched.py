"""What the grounding branch computes of a video before it knows a sentence."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence


@dataclass(frozen=True)
class Watched:
    """Some videos.

    Attributes:
        sampled: the frames that the reconstruction reads.
        rows: what stands at each frame, and at the [PRED] row after a video's last one, after the first
            self-attention of the frame stack.
        mask: which of these rows are real.
    """

    sampled: Float[Tensor, "videos positions hidden"]
    rows: Float[Tensor, "videos length hidden"]
    mask: Bool[Tensor, "videos length"]

    def each(self) -> Iterator[Watched]:
        """One video after the other, without padding; copies, so that one may be kept without the others."""
        for sampled, rows, mask in zip(self.sampled, self.rows, self.mask, strict=True):
            yield Watched(sampled[None].clone(), rows[mask][None], mask[mask][None])

    @classmethod
    def join(cls, parts: Sequence[Watched]) -> Watched:
        """The inverse of `each`."""
        return cls(
            torch.cat([part.sampled for part in parts]),
            pad_sequence([part.rows[0] for part in parts], batch_first=True),
            pad_sequence([part.mask[0] for part in parts], batch_first=True),
        )
