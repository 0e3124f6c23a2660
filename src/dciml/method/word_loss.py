"""The loss of reconstructed words, over real words only."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from dciml.method.packed import Packing

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

    Only real words are here; padding never meets the vocabulary.

    Args:
        states, word_ids: the packed words of the sentences.
        head: weight and bias that turn a state into logits.
    """
    per_word = linear_cross_entropy(states, word_ids, *head, label_smoothing)
    sentence = packing.sequence_of_row(per_word.device)
    zeros = per_word.new_zeros(packing.batch)
    counts = zeros.index_add(0, sentence, torch.ones_like(per_word))
    return zeros.index_add(0, sentence, per_word) / counts.clamp(min=1)


def linear_cross_entropy(
    rows: Float[Tensor, "rows width"],
    classes: Int[Tensor, "rows"],
    weight: Float[Tensor, "classes width"],
    bias: Float[Tensor, "classes"],
    label_smoothing: float,
) -> Float[Tensor, "rows"]:
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


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, rows: Tensor, classes: Tensor, weight: Tensor, bias: Tensor, label_smoothing: float
    ) -> Tensor:
        exact = torch.promote_types(rows.dtype, torch.float32)
        shares = rows.new_empty(len(rows), len(weight))  # of each class in its row's sum
        total = rows.new_empty(len(rows), dtype=exact)
        for piece in _pieces(len(rows), max(1, LOGITS_AT_ONCE // len(weight))):
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


def _pieces(length: int, most: int) -> Iterator[slice]:
    for start in range(0, length, most):
        yield slice(start, min(start + most, length))
