"""The part of a video that a Gaussian lets a sequence see. What weighs next to nothing is not computed at all."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dciml.method.packed import Packing, Picks, Run

NEGLIGIBLE = 1e-9
"""A position with less than this share of the weight of the heaviest one is left out.

That is far below float32 rounding (6e-8), also when attention prefers the position by a factor of a hundred. It is
enough to look at the sequence's heaviest position, although each row weighs only itself and what comes before it: a
row in front of the peak may well read a row that is left out, but it counts for so little itself that the product of
the two shares is the share that was left out.
"""
PADDING = -1e9


@dataclass(frozen=True)
class Support:
    """A run of neighbouring positions for each sequence, from the left of a padded (sequences, kept).

    Attributes:
        positions: where in its video each of them stands; any position at padding.
        log_weights: log g of each of them; very low at padding.
        packing: which of them are real.
    """

    positions: Int[Tensor, "sequences kept"]
    log_weights: Float[Tensor, "sequences kept"]
    packing: Packing

    @classmethod
    def whole(cls, log_weights: Float[Tensor, "sequences length"]) -> Support:
        """All positions."""
        positions = torch.arange(log_weights.shape[1], device=log_weights.device).expand(log_weights.shape)
        return cls(positions, log_weights, Packing.full(*log_weights.shape))

    @classmethod
    def of(cls, log_weights: Float[Tensor, "sequences length"]) -> Support:
        """The positions that weigh more than `NEGLIGIBLE`; at least the heaviest one. Weights have a single peak.

        Without gradients on a CPU they come in runs: best in the order of `num_seen`.
        """
        seen = _seen(log_weights)
        first, counts = seen.int().argmax(dim=1), seen.sum(dim=1)
        steps = torch.arange(int(counts.max()), device=log_weights.device)
        real = steps < counts[:, None]
        positions = (first[:, None] + steps).clamp(max=log_weights.shape[1] - 1)
        weights = log_weights.gather(1, positions).masked_fill(~real, PADDING)
        runs = None
        if log_weights.device.type == "cpu" and not torch.is_grad_enabled():
            runs = Run.all_of(counts.tolist())
        return cls(positions, weights, Packing.of(real, runs))

    @staticmethod
    def num_seen(log_weights: Float[Tensor, "sequences length"]) -> Int[Tensor, "sequences"]:
        """How many positions `of` keeps of each sequence."""
        return _seen(log_weights).sum(dim=1)

    def picks(self, video_of_sequence: Int[Tensor, "sequences"], length: int) -> Picks:
        """The rows of videos of `length` positions, one video after the other, that each sequence reads."""
        return Picks(video_of_sequence[:, None] * length + self.positions, self.packing.runs)


def _seen(log_weights: Float[Tensor, "sequences length"]) -> Bool[Tensor, "sequences length"]:
    lowest = log_weights.amax(dim=1, keepdim=True) + math.log(NEGLIGIBLE)
    return ~(log_weights < lowest)  # not ≥: a weight that is not a number has to stay and be seen


@dataclass(frozen=True)
class Memory:
    """What a stack has encoded, for another to read: packed rows, and how they stand in padded sequences.

    Attributes:
        layout: rows → (sequences, kept, width).
        bias: what attention adds to its scores, (sequences, 1, kept); very low at padding.
    """

    rows: Float[Tensor, "rows width"]
    layout: Packing | Picks
    bias: Float[Tensor, "sequences 1 kept"]

    def read_by(self, reads: Int[Tensor, "readers"]) -> Memory:
        """The memory of other sequences, each of which reads one of these."""
        layout = self.layout
        places = layout.places if isinstance(layout, Picks) else layout.places(self.rows.device)
        return Memory(self.rows, Picks(places[reads]), self.bias[reads])
