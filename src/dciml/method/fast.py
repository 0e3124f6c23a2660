"""What is only for speed, and gives the same as its plain counterpart (METHOD §9; tests/method/test_fast.py).

Sequences of different length are packed without their padding where layers work row by row, and padded for attention
alone; those that read the same rows share them (`Sequences`, `View`). Cross-entropy works in pieces that a cache holds,
dropout on random bytes.

How many rows are left is a value, and a processor that feeds a GPU would have to wait for it. Inside `fixed_shapes` no
size depends on a value: padding stays, and counts for nothing.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor
from torch.nn import functional as F

NEGLIGIBLE = 1e-9
"""A position with less than this share of the weight of the heaviest one is left out.

That is far below float32 rounding (6e-8), also when attention prefers the position by a factor of a hundred. It is
enough to look at the sequence's heaviest position, although each row weighs only itself and what comes before it: a
row in front of the peak may well read a row that is left out, but it counts for so little itself that the product of
the two shares is the share that was left out.
"""
PADDING = -1e9
"""Added to the scores of padding; finite, so that a row without any valid key gives an even softmax and not NaN."""

LOGITS_AT_ONCE = {"cpu": 1 << 22, "cuda": 1 << 26}
"""How many logits are worked on at a time where gradients are asked for: 16 MB on a CPU; more where each call costs
more."""

CLASSES_AT_ONCE = 1000
ROWS_AT_ONCE = {"cpu": 1000, "cuda": 16_000}
"""The tile that is worked on where none are: 4 MB on a CPU, which its cache holds; more where each call costs more."""

LEVELS = 256
"""Of a random byte, by which dropout decides."""


class _Shapes(threading.local):  # torch.compile reads an attribute, but not a ContextVar
    fixed = False


_shapes = _Shapes()


@contextmanager
def fixed_shapes(on: bool = True) -> Iterator[None]:
    """Inside, the size of everything follows from the sizes of what goes in, and no value is read on the host."""
    before, _shapes.fixed = _shapes.fixed, on
    try:
        yield
    finally:
        _shapes.fixed = before


def shapes_are_fixed() -> bool:
    """Are we inside `fixed_shapes`?"""
    return _shapes.fixed


@dataclass(frozen=True)
class Packing:
    """Where the real rows of a padded (batch, length) stand; `index` is None when nothing is left out.

    `kept` is there where padding is kept too (`fixed_shapes`): True at the real positions.

    >>> packing = Packing.of(torch.tensor([[True, False], [True, True]]))
    >>> packing.pack(torch.tensor([[[1.0], [0.0]], [[2.0], [3.0]]])).tolist()
    [[1.0], [2.0], [3.0]]
    """

    batch: int
    length: int
    index: Int[Tensor, " rows"] | None
    kept: Bool[Tensor, "batch length"] | None = None

    @classmethod
    def of(cls, mask: Bool[Tensor, "batch length"]) -> Packing:
        """The rows where `mask` is True."""
        if shapes_are_fixed():
            return cls(mask.shape[0], mask.shape[1], None, mask)
        index = mask.flatten().nonzero()[:, 0]
        return cls(mask.shape[0], mask.shape[1], None if len(index) == mask.numel() else index)

    @classmethod
    def full(cls, batch: int, length: int) -> Packing:
        """Nothing is padding."""
        return cls(batch, length, None)

    def pack(self, padded: Shaped[Tensor, "batch length *width"]) -> Shaped[Tensor, " rows *width"]:
        """The real rows, one sequence after the other."""
        rows = padded.flatten(0, 1)
        return rows if self.index is None else rows.index_select(0, self.index)

    def pad(self, rows: Float[Tensor, "rows width"]) -> Float[Tensor, "batch length width"]:
        """The inverse of `pack`; padding is 0 where it was left out."""
        if self.index is not None:
            room = rows.new_zeros(self.batch * self.length, rows.shape[1])
            rows = room.index_copy_(0, self.index, rows)
        return rows.reshape(self.batch, self.length, rows.shape[1])

    def at(self, chosen: Int[Tensor, " chosen"]) -> Packing:
        """Some of the sequences, in the order of `chosen`; one may be there several times."""
        if self.kept is not None:
            return replace(self, batch=len(chosen), kept=self.kept[chosen])
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
        if self.kept is not None:
            return self.kept
        mask = torch.full((self.batch * self.length,), self.index is None, device=device)
        if self.index is not None:
            mask[self.index] = True
        return mask.reshape(self.batch, self.length)

    def sequence_of_row(self, device: torch.device) -> Int[Tensor, " rows"]:
        """Which sequence each real row belongs to."""
        return self._index(device) // self.length

    def position_of_row(self, device: torch.device) -> Int[Tensor, " rows"]:
        """Where each real row stands in its sequence."""
        return self._index(device) % self.length

    def last_rows(self, device: torch.device) -> Int[Tensor, " batch"]:
        """Where the last real row of each sequence stands among the packed rows."""
        counts = self.mask(device).sum(dim=1)
        if self.index is not None:
            return counts.cumsum(dim=0) - 1
        return torch.arange(self.batch, device=device) * self.length + counts - 1

    def only_real(self, values: Float[Tensor, " rows"]) -> Float[Tensor, " rows"]:
        """The same with 0 for padding."""
        return values if self.kept is None else values.masked_fill(~self.kept.flatten(), 0.0)

    def _index(self, device: torch.device) -> Int[Tensor, " rows"]:
        return torch.arange(self.batch * self.length, device=device) if self.index is None else self.index


@dataclass(frozen=True)
class Sequences:
    """Sequences of rows, of different length.

    What works row by row reads `rows`; attention reads the sequences padded (`pad`); `with_rows` takes its answers.
    Sequences may share rows; what is computed of `rows` is then computed once for all of them.

    Attributes:
        rows: (rows, width).
        packing: which positions of the padded sequences are real.
        places: which of `rows` stands at each position, any at padding; None: `rows` are the real positions, packed.
        log_weights: by which attention weighs the positions, very low at padding; None: all real ones alike.
    """

    rows: Float[Tensor, "rows width"]
    packing: Packing
    places: Int[Tensor, "sequences length"] | None = None
    log_weights: Float[Tensor, "sequences length"] | None = None

    @classmethod
    def of(
        cls, padded: Float[Tensor, "sequences length width"], mask: Bool[Tensor, "sequences length"]
    ) -> Sequences:
        """Padded sequences, without the padding."""
        packing = Packing.of(mask)
        return cls(packing.pack(padded), packing)

    @classmethod
    def full(cls, x: Float[Tensor, "sequences length width"]) -> Sequences:
        """Sequences of one length."""
        return cls(x.flatten(0, 1), Packing.full(*x.shape[:2]))

    @classmethod
    def shared(
        cls,
        x: Float[Tensor, "videos length width"],
        mask: Bool[Tensor, "videos length"],
        video_of_sequence: Int[Tensor, " sequences"],
    ) -> Sequences:
        """Each sequence is a video; padding at its end."""
        every = torch.arange(x.shape[0] * x.shape[1], device=x.device).reshape(x.shape[:2])
        return cls(x.flatten(0, 1), Packing.of(mask[video_of_sequence]), every[video_of_sequence])

    @classmethod
    def weighed(
        cls,
        x: Float[Tensor, "videos length width"],
        video_of_sequence: Int[Tensor, " sequences"],
        log_weights: Float[Tensor, "sequences length"],
        *,
        whole: bool = False,
    ) -> Sequences:
        """Each sequence is a video whose positions are weighed; weights have a single peak.

        Positions that weigh next to nothing are left out (`NEGLIGIBLE`), unless all are asked for (`whole`).
        """
        positions, weights, packing = _support(log_weights, whole)
        places = video_of_sequence[:, None] * x.shape[1] + positions
        return cls(x.flatten(0, 1), packing, places, weights)

    @property
    def bias(self) -> Float[Tensor, "sequences 1 length"]:
        """What attention to these sequences adds to its scores."""
        if self.log_weights is not None:
            return self.log_weights[:, None]
        mask = self.packing.mask(self.rows.device)
        return torch.zeros(mask.shape, device=mask.device).masked_fill(~mask, PADDING)[:, None]

    def real_rows(self) -> Float[Tensor, "real width"]:
        """The rows at all real positions, packed."""
        return self.rows if self.places is None else F.embedding(self.packing.pack(self.places), self.rows)

    def pad(self, values: Float[Tensor, "rows any"]) -> Float[Tensor, "sequences length any"]:
        """What was computed of each of `rows`, at the positions where it stands."""
        return self.packing.pad(values) if self.places is None else F.embedding(self.places, values)

    def with_rows(self, rows: Float[Tensor, "real any"]) -> Sequences:
        """Other rows at the real positions, packed."""
        return replace(self, rows=rows, places=None)

    def read_by(self, reads: Int[Tensor, " readers"]) -> Sequences:
        """For each reader the sequence that it reads; the rows stay where they are."""
        places = self.packing.places(self.rows.device) if self.places is None else self.places
        weights = None if self.log_weights is None else self.log_weights[reads]
        return Sequences(self.rows, self.packing.at(reads), places[reads], weights)

    def last(self) -> Sequences:
        """The last row of each, as sequences of one row."""
        rows = self.real_rows()[self.packing.last_rows(self.rows.device)]
        return Sequences(rows, Packing.full(self.packing.batch, 1))


def _support(
    log_weights: Float[Tensor, "sequences length"], whole: bool
) -> tuple[Int[Tensor, "sequences kept"], Float[Tensor, "sequences kept"], Packing]:
    """The neighbouring positions that weigh more than `NEGLIGIBLE`, from the left; at least the heaviest one."""
    length, device = log_weights.shape[1], log_weights.device
    if whole or shapes_are_fixed():
        positions = torch.arange(length, device=device).expand(log_weights.shape)
        return positions, log_weights, Packing.full(*log_weights.shape)
    seen = _seen(log_weights)
    first, counts = seen.int().argmax(dim=1), seen.sum(dim=1)
    steps = torch.arange(int(counts.max()), device=device)
    real = steps < counts[:, None]
    positions = (first[:, None] + steps).clamp(max=length - 1)
    weights = log_weights.gather(1, positions).masked_fill(~real, PADDING)
    return positions, weights, Packing.of(real)


def alike(
    log_weights: Float[Tensor, "queries proposals length"], at_once: int
) -> list[tuple[Int[Tensor, " group"], Int[Tensor, " group"]]]:
    """All pairs of query and proposal, in groups of limited size, alike in how much is kept."""
    queries, count, _ = log_weights.shape
    if shapes_are_fixed():  # all of it is
        order = torch.arange(queries * count, device=log_weights.device)
    else:
        order = _seen(log_weights.flatten(0, 1)).sum(dim=1).argsort(stable=True)
    return [(group // count, group % count) for group in torch.split(order, at_once)]


def _seen(log_weights: Float[Tensor, "sequences length"]) -> Bool[Tensor, "sequences length"]:
    lowest = log_weights.amax(dim=1, keepdim=True) + math.log(NEGLIGIBLE)
    return ~(log_weights < lowest)  # not ≥: a weight that is not a number has to stay and be seen


@dataclass(frozen=True)
class View:
    """What each query looks at: frames of some videos, weighed in some ways, and which of these ways is the query's.

    Attributes:
        frames: of each video.
        video: which video each way looks at.
        log_weights: of each way.
        way_of_query: which way each query reads. Two may read the same one, which is then computed once.
    """

    frames: Float[Tensor, "videos positions hidden"]
    video: Int[Tensor, " ways"]
    log_weights: Float[Tensor, "ways positions"]
    way_of_query: Int[Tensor, " queries"]

    @classmethod
    def own(
        cls,
        frames: Float[Tensor, "videos positions hidden"],
        video_of_query: Int[Tensor, " queries"],
        log_weights: Float[Tensor, "queries positions"],
    ) -> View:
        """Whether each query has a distinct one."""
        return cls(frames, video_of_query, log_weights, _count(video_of_query))

    @classmethod
    def evenly(
        cls, frames: Float[Tensor, "videos positions hidden"], video_of_query: Int[Tensor, " queries"]
    ) -> View:
        """Each query looks at its whole video; one way a video."""
        even = torch.zeros(frames.shape[:2], device=frames.device)
        return cls(frames, _count(frames), even, video_of_query)

    @classmethod
    def together(cls, views: Sequence[View]) -> View:
        """All views as one, whose queries are those of the first view, then those of the second, and so on."""
        frames: list[Tensor] = []
        videos, ways, start, begin = [], [], {}, 0
        for view in views:
            if id(view.frames) not in start:
                start[id(view.frames)] = sum(map(len, frames))
                frames.append(view.frames)
            videos.append(start[id(view.frames)] + view.video)
            ways.append(begin + view.way_of_query)
            begin += len(view.video)
        weights = torch.cat([view.log_weights for view in views])
        all_frames = frames[0] if len(frames) == 1 else torch.cat(frames)
        return cls(all_frames, torch.cat(videos), weights, torch.cat(ways))


def _count(of: Tensor) -> Int[Tensor, " number"]:
    return torch.arange(len(of), device=of.device)


def linear_cross_entropy(
    rows: Float[Tensor, "rows width"],
    classes: Int[Tensor, " rows"],
    weight: Float[Tensor, "classes width"],
    bias: Float[Tensor, " classes"],
    label_smoothing: float,
) -> Float[Tensor, " rows"]:
    """Cross-entropy of logits z = row · weightᵀ + bias, with gradients to rows, weight and bias.

    With smoothing ε the loss of a row is logsumexp(z) − (1 − ε)·z_class − ε·mean(z), as in
    `torch.nn.functional.cross_entropy`. The last two are had from the row directly, so that the logits are read for
    their sum alone, and only the gradient of the logits is kept for the backward pass. PyTorch's own
    `linear_cross_entropy` works in pieces too, but gives sums over rows alone; here each sentence has its own weight.
    """
    device = rows.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else rows.dtype
    rows, weight, bias = rows.to(dtype), weight.to(dtype), bias.to(dtype)
    loss: Tensor
    if torch.is_grad_enabled():
        loss = _LinearCrossEntropy.apply(rows, classes, weight, bias, label_smoothing)  # type: ignore[no-untyped-call]
    else:
        loss = _logsumexp_in_tiles(rows, weight, bias) - _aims(rows, classes, weight, bias, label_smoothing)
    return loss


def _aims(rows: Tensor, classes: Tensor, weight: Tensor, bias: Tensor, label_smoothing: float) -> Tensor:
    """(1 − ε)·z_class + ε·mean(z) of each row, not rounded where the rows are of half precision."""
    exact = torch.promote_types(rows.dtype, torch.float32)
    rows, bias = rows.to(exact), bias.to(exact)
    # Written as sums: autocast would round a product of matrices.
    z_class = (rows * F.embedding(classes, weight)).sum(dim=1) + bias[classes]
    z_mean = (rows * weight.mean(dim=0, dtype=exact)).sum(dim=1) + bias.mean()
    return (1 - label_smoothing) * z_class + label_smoothing * z_mean


def _logsumexp_in_tiles(rows: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    exact = torch.promote_types(rows.dtype, torch.float32)
    over_rows = list(_pieces(len(rows), at_once(ROWS_AT_ONCE, rows.device)))
    over_classes = list(_pieces(len(weight), CLASSES_AT_ONCE))
    room = rows.new_empty(min(len(rows), over_rows[0].stop) * over_classes[0].stop) if over_rows else rows
    sums = rows.new_empty(len(rows), len(over_classes), dtype=exact)
    for at in over_rows:
        part = rows[at]
        for number, of in enumerate(over_classes):
            z = room[: len(part) * len(weight[of])].view(len(part), -1)
            torch.addmm(bias[of], part, weight[of].t(), out=z)
            terms = z.to(exact)  # in place where z is exact
            top = terms.amax(dim=1)
            sums[at, number] = terms.sub_(top[:, None]).exp_().sum(dim=1).log_().add_(top)
    return sums.logsumexp(dim=1)


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, rows: Tensor, classes: Tensor, weight: Tensor, bias: Tensor, label_smoothing: float
    ) -> Tensor:
        exact = torch.promote_types(rows.dtype, torch.float32)
        shares = rows.new_empty(len(rows), len(weight))  # of each class in its row's sum
        total = rows.new_empty(len(rows), dtype=exact)
        for piece in _pieces(len(rows), max(1, at_once(LOGITS_AT_ONCE, rows.device) // len(weight))):
            z = torch.addmm(bias, rows[piece], weight.t(), out=shares[piece])
            terms = z.to(exact)  # in place where z is exact
            top = terms.amax(dim=1, keepdim=True)
            sums = terms.sub_(top).exp_().sum(dim=1, keepdim=True)
            total[piece] = (top + sums.log())[:, 0]
            torch.div(terms, sums, out=z)
        loss = total - _aims(rows, classes, weight, bias, label_smoothing)
        each = torch.arange(len(rows), device=rows.device)
        shares[each, classes] -= 1 - label_smoothing
        ctx.save_for_backward(rows, weight, shares)
        ctx.label_smoothing = label_smoothing
        return loss

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """The gradient of the logits is grad · (shares − ε / classes).

        The factor is put on the narrow side of each product, and what is the same for all classes is added after it.
        """
        rows, weight, shares = ctx.saved_tensors
        each, even = grad.to(rows.dtype)[:, None], ctx.label_smoothing / len(weight)
        own = rows * each
        to_rows = (shares @ weight).sub_(even * weight.sum(dim=0)).mul_(each)
        to_weight = (shares.t() @ own).sub_(even * own.sum(dim=0))
        to_bias = (each.t() @ shares)[0].sub_(even * each.sum())
        return to_rows, None, to_weight, to_bias, None


def at_once(how_many: Mapping[str, int], device: torch.device) -> int:
    """What such a table says for a device; other devices than a CPU are like a GPU."""
    return how_many["cpu" if device.type == "cpu" else "cuda"]


def _pieces(length: int, most: int) -> Iterator[slice]:
    for start in range(0, length, most):
        yield slice(start, min(start + most, length))


def dropout(x: Float[Tensor, "*shape"], probability: float) -> Float[Tensor, "*shape"]:
    """As `torch.nn.functional.dropout`, on a CPU with one random byte an element instead of one random float.

    The probability is then rounded to a multiple of 1/256 (0.2 → 0.1992), and what is kept is scaled by that very
    probability, so that the mean stays exact.
    """
    if x.device.type != "cpu":
        return F.dropout(x, probability)
    dropped = max(1, round(probability * LEVELS))
    words = torch.empty(-(-x.numel() // 8), dtype=torch.int64).random_(-(2**63), None)
    # 1 or 0, written in the dtype of `x` directly: through a boolean mask it takes six times as long.
    kept = torch.empty_like(x)
    torch.ge(words.view(torch.uint8)[: x.numel()].view(x.shape), dropped, out=kept)
    return x * kept.mul_(LEVELS / (LEVELS - dropped))
