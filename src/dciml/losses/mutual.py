"""Losses by which the branches teach each other (METHOD §5). Per query, paired with the query's own video.

A hinge asks the modulated side to be better than the plain side by a margin. The plain side is a fixed value there:
with a gradient it would be pushed to be worse, which satisfies the hinge and helps no one
(docs/decisions/0003-plain-side-of-the-hinge-is-fixed.md).
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from dciml.outputs import Proposals


def span_on_clips(best: Proposals, num_clips: int) -> Float[Tensor, "queries clips"]:
    """1 for clips whose centre lies in the span, else 0; the clip nearest to the span's middle is always 1.

    Args:
        best: (queries, 1).
    """
    centers = (torch.arange(num_clips, device=best.centers.device) + 0.5) / num_clips
    inside = (centers >= best.starts()) & (centers <= best.ends())
    nearest = (centers - best.centers).abs().argmin(dim=1)
    return (inside | F.one_hot(nearest, num_clips).bool()).float()


def explicit_to_retrieval(
    similarity: Float[Tensor, "queries clips"], best: Proposals, temperature: float
) -> Float[Tensor, "queries"]:
    """The best proposal's span, as a 0/1 mask, teaches the clip similarities: cross-entropy of sigmoid(cos / τ).

    The published code thresholds both sides, so its loss has no gradient; here the similarities stay real-valued.
    """
    target = span_on_clips(best, similarity.shape[1])
    return F.binary_cross_entropy_with_logits(
        similarity.float() / temperature, target, reduction="none"
    ).mean(dim=1)


def explicit_to_grounding(
    proposals: Proposals, best_clip_unit: Float[Tensor, "queries"]
) -> Float[Tensor, "queries"]:
    """The best clip's time must lie inside the proposals: (start − t)₊ + (t − end)₊, mean over proposals.

    Only the centres move. With a gradient to the widths the cheapest way to hold every t is to cover the whole
    video, and that is where all proposals went (docs/decisions/0014-the-best-clip-moves-centres-only.md).
    """
    t, half = best_clip_unit[:, None], proposals.widths.detach() / 2
    starts, ends = proposals.centers - half, proposals.centers + half
    return ((starts - t).clamp(min=0) + (t - ends).clamp(min=0)).mean(dim=1)


def better_by(
    modulated: Float[Tensor, "queries"], plain: Float[Tensor, "queries"], margin: float
) -> Float[Tensor, "queries"]:
    """Hinge: modulated ≥ plain + margin, `plain` fixed. For a loss, hand in its negative."""
    return (plain.detach() + margin - modulated).clamp(min=0)


def match(
    plain: Float[Tensor, "queries *rest"], modulated: Float[Tensor, "queries *rest"]
) -> Float[Tensor, "queries"]:
    """Squared distance of the normalised plain feature to the fixed, normalised modulated one, mean over elements."""
    target = F.normalize(modulated.detach(), dim=-1)
    return (F.normalize(plain, dim=-1) - target).square().flatten(1).mean(dim=1)
