"""What changes over a run, as functions of the epoch or step; the training loop has no `if` for it."""

from __future__ import annotations

from dciml.config import RunConfig

PATHWAY_TERMS = {
    "explicit_to_retrieval": ("explicit_to_retrieval",),
    "implicit_to_retrieval": ("modulated_clip", "modulated_frame", "match_clip", "match_frame"),
    "explicit_to_grounding": ("explicit_to_grounding",),
    "implicit_to_grounding": ("modulated_nll", "match_grounding"),
}


def loss_weights(config: RunConfig, epoch: int) -> dict[str, float]:
    """Weight of each term in this epoch: pathways count once the warm-up is over and where they are switched on."""
    weights: dict[str, float] = config.weights.model_dump()
    for switch, terms in PATHWAY_TERMS.items():
        if epoch < config.mutual.from_epoch or not getattr(config.mutual, switch):
            weights.update(dict.fromkeys(terms, 0.0))
    return weights


def easiness(config: RunConfig, epoch: int) -> float:
    """How far negatives reach towards the proposal: min(epoch / epochs, 1)^γ (METHOD §4.4)."""
    share = min(epoch / config.grounding.easiness_epochs, 1.0)
    return float(share**config.grounding.easiness_exponent)


def hard_pool_size(config: RunConfig, epoch: int) -> int | None:
    """None while negatives are drawn at random, then the size of the hard pool."""
    hard = epoch >= config.retrieval.hard_negatives_from_epoch
    return config.retrieval.hard_pool_size if hard else None


def lr_factor(config: RunConfig, step: int, total_steps: int) -> float:
    """Linear warm-up over the first share of all steps, then linear decay to 0."""
    warmup = max(1, round(config.training.warmup_fraction * total_steps))
    if step < warmup:
        return (step + 1) / warmup
    return max(0.0, (total_steps - step) / max(1, total_steps - warmup))
