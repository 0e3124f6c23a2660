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
"""How many logits are worked on at a time: 16 MB, which a processor's cache still holds."""


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

    Only the log-probabilities are kept for the backward pass, and only where one is asked for. PyTorch's own
    `linear_cross_entropy` works in pieces too, but gives sums over rows alone; here each sentence has its own weight.
    """
    device = rows.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else rows.dtype
    total: Tensor = _LinearLogSumExp.apply(  # type: ignore[no-untyped-call]
        rows.to(dtype), weight.to(dtype), bias.to(dtype), torch.is_grad_enabled()
    )
    return total


class _LinearLogSumExp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor, bias: Tensor, keep: bool) -> Tensor:
        exact = torch.promote_types(rows.dtype, torch.float32)
        pieces = list(_pieces(len(rows), len(weight)))
        most = pieces[0].stop if pieces else 0
        logits = rows.new_empty(most, len(weight))
        kept = rows.new_empty(len(rows) if keep else most, len(weight), dtype=exact)
        total = rows.new_empty(len(rows), dtype=exact)
        for piece in pieces:
            part = rows[piece]
            z = torch.addmm(bias, part, weight.t(), out=logits[: len(part)])
            place = kept[piece] if keep else kept[: len(part)]
            log_p = torch.log_softmax(z, dim=1, dtype=exact, out=place)
            total[piece] = z[:, 0] - log_p[:, 0]
        if keep:
            ctx.save_for_backward(rows, weight, kept)
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        rows, weight, kept = ctx.saved_tensors
        to_rows = torch.empty_like(rows)
        to_weight = torch.zeros_like(weight, dtype=kept.dtype)  # sums over pieces are not rounded in between
        to_bias = to_weight.new_zeros(len(weight))
        for piece in _pieces(len(rows), len(weight)):
            z_grad = kept[piece].exp().mul_(grad[piece, None])
            to_bias += z_grad.sum(dim=0)
            z_grad = z_grad.to(rows.dtype)
            torch.mm(z_grad, weight, out=to_rows[piece])
            to_weight += z_grad.t() @ rows[piece]
        return to_rows, to_weight.to(weight.dtype), to_bias.to(weight.dtype), None


def _pieces(rows: int, classes: int) -> Iterator[slice]:
    at_once = max(1, LOGITS_AT_ONCE // classes)
    for start in range(0, rows, at_once):
        yield slice(start, min(start + at_once, rows))
