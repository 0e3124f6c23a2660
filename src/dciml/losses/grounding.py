"""Losses of the grounding branch (METHOD §4.5). All are per query; the caller takes the mean over the whole batch."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from dciml.outputs import GroundingOutput


def proposal_diversity(
    log_weights: Float[Tensor, "queries proposals positions"], lam: float
) -> Float[Tensor, "queries"]:
    """‖λI − GGᵀ‖² with the proposals' Gaussians, each summing to 1, as the rows of G (CPL, CVPR 2022)."""
    rows = torch.softmax(log_weights, dim=-1)  # exp(log g) / Σ exp(log g)
    target = lam * torch.eye(rows.shape[1], device=rows.device)
    return (target - rows @ rows.transpose(1, 2)).square().sum(dim=(1, 2))


def grounding_losses(
    output: GroundingOutput,
    log_weights: Float[Tensor, "queries proposals positions"],
    *,
    reference_margin: float,
    negative_margin: float,
    diversity_lambda: float,
) -> dict[str, Float[Tensor, "queries"]]:
    """The losses of METHOD §4.5, by name."""
    best = output.nll_best
    return {
        "reconstruct": 0.5 * (best + output.nll_reference),
        "contrast_reference": (best - output.nll_reference + reference_margin).clamp(min=0),
        "contrast_left": (best - output.nll_left + negative_margin).clamp(min=0),
        "contrast_right": (best - output.nll_right + negative_margin).clamp(min=0),
        "proposal_diversity": proposal_diversity(log_weights, diversity_lambda),
    }
