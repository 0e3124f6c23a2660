"""The loss of reconstructed words, over real words only."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from dciml.models.packing import Packing

LOGITS_AT_ONCE = 1 << 21
"""How many logits are held at a time where no gradient is asked for: 8 MB, which a processor's cache still holds."""


def word_nll(
    states: Float[Tensor, "rows hidden"],
    word_ids: Int[Tensor, "rows"],
    packing: Packing,
    head: tuple[Float[Tensor, "vocabulary hidden"], Float[Tensor, "vocabulary"]],
    label_smoothing: float,
) -> Float[Tensor, "sentences"]:
    """Mean over each sentence's words of the label-smoothed cross-entropy, in nats.

    Only real words are here; padding never meets the vocabulary. With smoothing ε the loss of a word is
    logsumexp(z) − (1 − ε)·z_y − ε·mean(z), as in `torch.nn.functional.cross_entropy`.

    Args:
        states, word_ids: the packed words of the sentences.
        head: weight and bias that turn a state into logits.
    """

    def losses(rows: Tensor, ids: Tensor) -> Tensor:
        logits = F.linear(rows, *head).float()
        return F.cross_entropy(logits, ids, label_smoothing=label_smoothing, reduction="none")

    at_once = len(states) if torch.is_grad_enabled() else max(1, LOGITS_AT_ONCE // len(head[0]))
    parts = zip(torch.split(states, at_once), torch.split(word_ids, at_once), strict=True)
    per_word = torch.cat([losses(rows, ids) for rows, ids in parts])
    sentence = packing.sequence_of_row().to(per_word.device)
    zeros = per_word.new_zeros(packing.batch)
    counts = zeros.index_add(0, sentence, torch.ones_like(per_word))
    return zeros.index_add(0, sentence, per_word) / counts.clamp(min=1)
