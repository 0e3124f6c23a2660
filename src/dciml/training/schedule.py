"""What changes over a run, as functions of the epoch or step (METHOD §6); the training loop has no `if` for it."""

from __future__ import annotations

from collections.abc import Mapping

from dciml.method.terms import PATHWAY_TERMS


def loss_weights(
    weights: Mapping[str, float], *, switches: Mapping[str, bool], from_epoch: int, epoch: int
) -> dict[str, float]:
    """Weight of each term in this epoch: pathways count once the warm-up is over and where they are switched on.

    Args:
        weights: of all terms.
        switches: of the four pathways.
        from_epoch: in which the warm-up is over.
    """
    off = [name for name in PATHWAY_TERMS if epoch < from_epoch or not switches[name]]
    return {**weights, **{term: 0.0 for pathway in off for term in PATHWAY_TERMS[pathway]}}


def easiness(epoch: int, *, epochs: int, exponent: float) -> float:
    """How far negatives reach towards the proposal: min(epoch / epochs, 1)^γ (METHOD §4.4)."""
    return float(min(epoch / epochs, 1.0) ** exponent)


def hard_pool_size(epoch: int, *, from_epoch: int, size: int) -> int | None:
    """None while negatives are drawn at random, then the size of the hard pool."""
    return size if epoch >= from_epoch else None


def lr_factor(step: int, total_steps: int, *, warmup_fraction: float) -> float:
    """Linear warm-up over the first share of all steps, then linear decay to 0."""
    warmup = max(1, round(warmup_fraction * total_steps))
    if step < warmup:
        return (step + 1) / warmup
    return max(0.0, (total_steps - step) / max(1, total_steps - warmup))
