"""Sequences of different length without their padding: rows for what works row by row, padded for attention alone."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Packing:
    """Where the real rows of a padded (batch, length) stand; `index` is None when all of them are real.

    >>> packing = Packing.of(torch.tensor([[True, False], [True, True]]))
    >>> packing.pack(torch.tensor([[[1.0], [0.0]], [[2.0], [3.0]]])).tolist()
    [[1.0], [2.0], [3.0]]
    """

    batch: int
    length: int
    index: Int[Tensor, "rows"] | None

    @classmethod
    def of(cls, mask: Bool[Tensor, "batch length"]) -> Packing:
        """The rows where `mask` is True."""
        index = mask.flatten().nonzero()[:, 0]
        return cls(mask.shape[0], mask.shape[1], None if len(index) == mask.numel() else index)

    @classmethod
    def full(cls, batch: int, length: int) -> Packing:
        """Nothing is padding."""
        return cls(batch, length, None)

    def pack(self, padded: Float[Tensor, "batch length width"]) -> Float[Tensor, "rows width"]:
        """The real rows, one sequence after the other."""
        rows = padded.flatten(0, 1)
        return rows if self.index is None else rows.index_select(0, self.index)

    def pad(self, rows: Float[Tensor, "rows width"]) -> Float[Tensor, "batch length width"]:
        """The inverse of `pack`; padding is 0."""
        if self.index is not None:
            room = rows.new_zeros(self.batch * self.length, rows.shape[1])
            rows = room.index_copy_(0, self.index, rows)
        return rows.reshape(self.batch, self.length, rows.shape[1])

    def repeat(self, times: int) -> Packing:
        """The same sequences `times` times over, as `rows.repeat(times, 1)` holds them."""
        if self.index is None:
            return Packing.full(times * self.batch, self.length)
        offsets = torch.arange(times, device=self.index.device)[:, None] * (self.batch * self.length)
        return Packing(times * self.batch, self.length, (offsets + self.index).flatten())

    def places(self, device: torch.device) -> Int[Tensor, "batch length"]:
        """Where each position stands among the packed rows; 0 at padding."""
        places = torch.zeros(self.batch * self.length, dtype=torch.int64, device=device)
        if self.index is None:
            places = torch.arange(self.batch * self.length, device=device)
        else:
            places[self.index] = torch.arange(len(self.index), device=device)
        return places.reshape(self.batch, self.length)

    def sequence_of_row(self) -> Int[Tensor, "rows"]:
        """Which sequence each real row belongs to."""
        index = torch.arange(self.batch * self.length) if self.index is None else self.index
        return index // self.length


@dataclass(frozen=True)
class Picks:
    """Padded sequences that read rows of another set: `places[s, t]` is the row at position t of sequence s.

    A row may be read by several sequences. What stands at padding is any row: whoever reads it must not look there.
    """

    places: Int[Tensor, "batch length"]

    def pad(self, rows: Float[Tensor, "rows width"]) -> Float[Tensor, "batch length width"]:
        """The rows of each sequence."""
        return F.embedding(self.places, rows)
