"""Sequences of different length without their padding: rows for what works row by row, padded for attention alone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Run:
    """Neighbouring sequences of one length, and their rows among those of all sequences, packed."""

    sequences: slice
    rows: slice
    length: int

    @classmethod
    def all_of(cls, lengths: Iterable[int]) -> tuple[Run, ...]:
        """The runs of sequences of these lengths; few, if the lengths are in order."""
        runs, sequence, row = [], 0, 0
        for length, alike in groupby(lengths):
            count = len(list(alike))
            runs.append(cls(slice(sequence, sequence + count), slice(row, row + count * length), length))
            sequence, row = sequence + count, row + count * length
        return tuple(runs)


@dataclass(frozen=True)
class Packing:
    """Where the real rows of a padded (batch, length) stand; `index` is None when all of them are real.

    Attributes:
        runs: for whoever would rather go through runs without padding than pad; None: pad.

    >>> packing = Packing.of(torch.tensor([[True, False], [True, True]]))
    >>> packing.pack(torch.tensor([[[1.0], [0.0]], [[2.0], [3.0]]])).tolist()
    [[1.0], [2.0], [3.0]]
    """

    batch: int
    length: int
    index: Int[Tensor, "rows"] | None
    runs: tuple[Run, ...] | None = None

    @classmethod
    def of(cls, mask: Bool[Tensor, "batch length"], runs: tuple[Run, ...] | None = None) -> Packing:
        """The rows where `mask` is True."""
        index = mask.flatten().nonzero()[:, 0]
        return cls(mask.shape[0], mask.shape[1], None if len(index) == mask.numel() else index, runs)

    @classmethod
    def full(cls, batch: int, length: int) -> Packing:
        """Nothing is padding."""
        return cls(batch, length, None)

    def pack(self, padded: Shaped[Tensor, "batch length *width"]) -> Shaped[Tensor, "rows *width"]:
        """The real rows, one sequence after the other."""
        rows = padded.flatten(0, 1)
        return rows if self.index is None else rows.index_select(0, self.index)

    def pad(self, rows: Float[Tensor, "rows width"]) -> Float[Tensor, "batch length width"]:
        """The inverse of `pack`; padding is 0."""
        if self.index is not None:
            room = rows.new_zeros(self.batch * self.length, rows.shape[1])
            rows = room.index_copy_(0, self.index, rows)
        return rows.reshape(self.batch, self.length, rows.shape[1])

    def take(self, rows: Float[Tensor, "rows width"], run: Run) -> Float[Tensor, "sequences length width"]:
        """The sequences of a run."""
        return rows[run.rows].reshape(-1, run.length, rows.shape[1])

    def at(self, chosen: Int[Tensor, "chosen"]) -> Packing:
        """Some of the sequences, in the order of `chosen`; one may be there several times."""
        if self.index is None:
            return Packing.full(len(chosen), self.length)
        return Packing.of(self.mask(self.index.device)[chosen])

    def places(self, device: torch.device) -> Int[Tensor, "batch length"]:
        """Where each position stands among the packed rows; 0 at padding."""
        places = torch.zeros(self.batch * self.length, dtype=torch.int64, device=device)
        if self.index is None:
            places = torch.arange(self.batch * self.length, device=device)
        else:
            places[self.index] = torch.arange(len(self.index), device=device)
        return places.reshape(self.batch, self.length)

    def mask(self, device: torch.device) -> Bool[Tensor, "batch length"]:
        """True where a row is real."""
        mask = torch.full((self.batch * self.length,), self.index is None, device=device)
        if self.index is not None:
            mask[self.index] = True
        return mask.reshape(self.batch, self.length)

    def sequence_of_row(self, device: torch.device) -> Int[Tensor, "rows"]:
        """Which sequence each real row belongs to."""
        return self._index(device) // self.length

    def position_of_row(self, device: torch.device) -> Int[Tensor, "rows"]:
        """Where each real row stands in its sequence."""
        return self._index(device) % self.length

    def _index(self, device: torch.device) -> Int[Tensor, "rows"]:
        return torch.arange(self.batch * self.length, device=device) if self.index is None else self.index


@dataclass(frozen=True)
class Picks:
    """Padded sequences that read rows of another set: `places[s, t]` is the row at position t of sequence s.

    A row may be read by several sequences. What stands at padding is any row: whoever reads it must not look there.

    Attributes:
        runs: as a `Packing` has them.
    """

    places: Int[Tensor, "batch length"]
    runs: tuple[Run, ...] | None = None

    def pad(self, rows: Float[Tensor, "rows width"]) -> Float[Tensor, "batch length width"]:
        """The rows of each sequence."""
        return F.embedding(self.places, rows)

    def take(self, rows: Float[Tensor, "rows width"], run: Run) -> Float[Tensor, "sequences length width"]:
        """The sequences of a run."""
        return F.embedding(self.places[run.sequences, : run.length], rows)

    def pack(self, rows: Float[Tensor, "rows width"], packing: Packing) -> Float[Tensor, "read width"]:
        """The rows that the sequences read, packed."""
        return F.embedding(packing.pack(self.places), rows)
