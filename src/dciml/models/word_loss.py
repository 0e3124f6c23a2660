"""The loss of reconstructed words, over real words only."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from dciml.models.packing import Packing

LOGITS_AT_ONCE = 1 << 22
"""How many logits are worked on at a time where gradients are asked for: 16 MB."""

CLASSES_AT_ONCE = 1000
ROWS_AT_ONCE = {"cpu": 1000, "cuda": 16_000}
"""The tile that is worked on where none are: 4 MB on a CPU, which its cache holds; more where each call costs more."""


def word_nll(
    states: Float[Tensor, "rows hidden"],
    word_ids: Int[Tensor, "rows"],
    packing: Packing,
    head: tuple[Float[Tensor, "vocabulary hidden"], Float[Tensor, "vocabulary"]],
    label_smoothing: float,
) -> Float[Tensor, "sentences"]:
    """Mean over each sentence's words of the label-smoothed cross-entropy, in nats.

    Only real words are here; padding never meets the vocabulary. With smoothing ε the loss of a word is
    logsumexp(z) − (1 − ε)·z_y − ε·mean(z), as in `torch.nn.functional.cross_entropy`. Both z_y and mean(z) are had
    from the state directly, so that the logits are read for their sum alone.

    Args:
        states, word_ids: the packed words of the sentences.
        head: weight and bias that turn a state into logits.
    """
    weight, bias = head
    rows = states.to(weight.dtype)
    z_word = (rows * F.embedding(word_ids, weight)).sum(dim=1) + bias[word_ids]
    z_mean = rows @ weight.mean(dim=0) + bias.mean()
    per_word = (
        linear_logsumexp(states, weight, bias) - (1 - label_smoothing) * z_word - label_smoothing * z_mean
    )
    sentence = packing.sequence_of_row().to(per_word.device)
    zeros = per_word.new_zeros(packing.batch)
    counts = zeros.index_add(0, sentence, torch.ones_like(per_word))
    return zeros.index_add(0, sentence, per_word) / counts.clamp(min=1)


def linear_logsumexp(
    rows: Float[Tensor, "rows width"], weight: Float[Tensor, "classes width"], bias: Float[Tensor, "classes"]
) -> Float[Tensor, "rows"]:
    """logsumexp(rows · weightᵀ + bias) of each row, with gradients to all three.

    Only the log-probabilities are kept for the backward pass. PyTorch's own `linear_cross_entropy` works in pieces
    too, but gives sums over rows alone; here each sentence has its own weight.
    """
    device = rows.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else rows.dtype
    operands = rows.to(dtype), weight.to(dtype), bias.to(dtype)
    if not torch.is_grad_enabled():
        return _logsumexp_in_tiles(*operands)
    total: Tensor = _LinearLogSumExp.apply(*operands)  # type: ignore[no-untyped-call]
    return total


def _logsumexp_in_tiles(rows: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    exact = torch.promote_types(rows.dtype, torch.float32)
    over_rows = list(_pieces(len(rows), ROWS_AT_ONCE.get(rows.device.type, ROWS_AT_ONCE["cuda"])))
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


class _LinearLogSumExp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        exact = torch.promote_types(rows.dtype, torch.float32)
        pieces = list(_pieces(len(rows), max(1, LOGITS_AT_ONCE // len(weight))))
        logits = rows.new_empty(pieces[0].stop if pieces else 0, len(weight))
        log_p = rows.new_empty(len(rows), len(weight), dtype=exact)
        total = rows.new_empty(len(rows), dtype=exact)
        for piece in pieces:
            part = rows[piece]
            z = torch.addmm(bias, part, weight.t(), out=logits[: len(part)])
            torch.log_softmax(z, dim=1, dtype=exact, out=log_p[piece])
            total[piece] = z[:, 0] - log_p[piece, 0]
        ctx.save_for_backward(rows, weight, log_p)
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        rows, weight, log_p = ctx.saved_tensors
        to_rows = torch.empty_like(rows)
        to_weight = torch.zeros_like(weight, dtype=log_p.dtype)  # sums over pieces are not rounded in between
        to_bias = to_weight.new_zeros(len(weight))
        for piece in _pieces(len(rows), max(1, LOGITS_AT_ONCE // len(weight))):
            z_grad = log_p[piece].exp().mul_(grad[piece, None])
            to_bias += z_grad.sum(dim=0)
            z_grad = z_grad.to(rows.dtype)
            torch.mm(z_grad, weight, out=to_rows[piece])
            to_weight += z_grad.t() @ rows[piece]
        return to_rows, to_weight.to(weight.dtype), to_bias.to(weight.dtype)


def _pieces(length: int, most: int) -> Iterator[slice]:
    for start in range(0, length, most):
        yield slice(start, min(start + most, length))
