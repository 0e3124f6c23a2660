"""One training step of each branch, the two mirrors of each other, and the joint step as contrast (METHOD §5.1)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, partial

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.nn import functional as F

from dciml.config import RunConfig
from dciml.errors import TrainingError
from dciml.method.batch import Batch
from dciml.method.dual import DualBranch
from dciml.method.losses import (
    better_by,
    explicit_to_grounding,
    explicit_to_retrieval,
    grounding_losses,
    match,
    query_diversity,
    retrieval_losses,
)
from dciml.method.mutual import BestClip, best_clip, proposal_feature
from dciml.method.outputs import GroundingOutput, Proposals, RetrievalOutput, Selection
from dciml.training.distributed import gather_output, mean_over_all, sum_gradients
from dciml.training.parts import Part, in_parts, split
from dciml.training.schedule import PATHWAY_TERMS, easiness, hard_pool_size, loss_weights

MODULATED_RETRIEVAL = PATHWAY_TERMS["implicit_to_retrieval"]


@dataclass(frozen=True)
class Step:
    """What one step knows besides its batch.

    `generator` draws negatives, and the sentences that grounding looks at; it is the same in every process.
    """

    fabric: Fabric
    model: DualBranch
    config: RunConfig
    epoch: int
    generator: torch.Generator

    @cached_property
    def weights(self) -> dict[str, float]:
        """Weight of each loss term in this epoch."""
        return loss_weights(self.config, self.epoch)

    @property
    def num_parts(self) -> int:
        """In how many parts a batch is computed at most; in joint mode gradients go from branch to branch: one."""
        training = self.config.training
        return training.parts if training.mode == "alternating" else 1

    def wants(self, *terms: str) -> bool:
        """Is one of these terms part of the loss?"""
        return any(self.weights[term] > 0 for term in terms)


@contextmanager
def as_teacher(module: nn.Module) -> Iterator[None]:
    """Run a module without gradients and without dropout."""
    was_training = module.training
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        module.train(was_training)


def retrieval_terms(
    step: Step,
    batch: Batch,
    selection: Selection | None,
    condition: Tensor | None,
    places: Tensor | None = None,
) -> dict[str, Tensor]:
    """All losses of the retrieval side, by name.

    Args:
        selection: what the grounding branch chose, fixed values; None when no term wants it.
        condition: (queries, grounding hidden): the grounding feature that modulates; None when no term wants it.
        places: of the sentences that selection and condition speak of; None: all, in order.
    """
    retrieval = step.model.retrieval
    encoded = in_parts(
        lambda part: retrieval(part.batch), split(batch, step.num_parts), retrieval.parameters()
    )
    output = replace(encoded, video_of_query=batch.video_of_query)
    everyone = gather_output(step.fabric, output)
    taught = output if places is None else output.at(places)
    settings = step.config.retrieval
    terms = retrieval_losses(
        everyone,
        margin=settings.margin,
        hard_pool_size=hard_pool_size(step.config, step.epoch),
        generator=step.generator,
        nce_temperature=settings.nce_temperature,
        clip_pool_temperature=settings.clip_pool_temperature,
    )
    if step.wants("query_diversity"):
        terms["query_diversity"] = query_diversity(
            everyone.query,
            everyone.video_of_query,
            alpha=settings.diversity_alpha,
            delta=settings.diversity_delta,
        )
    if selection is not None and step.wants("explicit_to_retrieval"):
        loss = explicit_to_retrieval(
            taught.paired_similarity(), selection.best(), step.config.mutual.temperature
        )
        terms["explicit_to_retrieval"] = mean_over_all(step.fabric, loss)
    if condition is not None:
        terms |= _modulated_retrieval(step, taught, condition)
    return terms


def _modulated_retrieval(step: Step, output: RetrievalOutput, condition: Tensor) -> dict[str, Tensor]:
    clips, frames = step.model.to_retrieval(output, condition)
    query = F.normalize(output.query, dim=-1)
    plain_frames = output.frames[output.video_of_query]
    margin = step.config.mutual.retrieval_margin
    best_plain = output.paired_similarity().amax(dim=1)
    best_modulated = (F.normalize(clips, dim=-1) @ query[:, :, None])[..., 0].amax(dim=1)
    losses = {
        "modulated_clip": better_by(best_modulated, best_plain, margin),
        "modulated_frame": better_by(
            F.cosine_similarity(query, frames), F.cosine_similarity(query, plain_frames), margin
        ),
        "match_clip": match(output.clips[output.video_of_query], clips),
        "match_frame": match(plain_frames, frames),
    }
    return {name: mean_over_all(step.fabric, loss) for name, loss in losses.items()}


def grounding_terms(
    step: Step, batch: Batch, selection: Selection, clip: BestClip | None
) -> dict[str, Tensor]:
    """All losses of the grounding side, by name.

    Args:
        selection: made with the present grounding weights; says which proposal is the best.
        clip: each query's best clip in its own video, from the retrieval branch; None when no term wants it.
    """
    grounding, settings = step.model.grounding, step.config.grounding
    condition = None
    if clip is not None and step.wants("modulated_nll", "match_grounding"):
        condition = clip.feature

    def reconstruct(part: Part) -> GroundingOutput:
        modulate = None
        if condition is not None:
            modulate = partial(step.model.to_grounding, condition=condition[part.queries])
        index = selection.best_index[part.queries]
        return grounding(part.batch, index, easiness(step.config, step.epoch), modulate)  # type: ignore[no-any-return]

    parameters = (parameter for _, parameter in step.model.side("grounding"))
    output = in_parts(reconstruct, split(batch, step.num_parts), parameters)
    losses = grounding_losses(
        output,
        grounding.log_weights(output.proposals),
        reference_margin=settings.reference_margin,
        negative_margin=settings.negative_margin,
        diversity_lambda=settings.diversity_lambda,
    )
    if clip is not None and step.wants("explicit_to_grounding"):
        losses["explicit_to_grounding"] = explicit_to_grounding(output.proposals, clip.center_unit)
    if condition is not None:
        losses |= _modulated_grounding(output, batch.video_of_query, step.config.mutual.grounding_margin)
    return {name: mean_over_all(step.fabric, loss) for name, loss in losses.items()}


def _modulated_grounding(output: GroundingOutput, video_of_query: Tensor, margin: float) -> dict[str, Tensor]:
    assert output.modulated is not None
    assert output.nll_modulated is not None
    plain = output.sampled.mean(dim=1)[video_of_query]
    return {
        "modulated_nll": better_by(-output.nll_modulated, -output.nll_best, margin),
        "match_grounding": match(plain, output.modulated.mean(dim=1)),
    }


@dataclass(frozen=True)
class Grounded:
    """The sentences that grounding looks at in a step, and what it chose there.

    Attributes:
        batch: these sentences with their own videos.
        places: where they stand in the whole batch, ascending; None: they are all of it.
        selection: made with the present grounding weights.
    """

    batch: Batch
    places: Tensor | None
    selection: Selection


def training_step(step: Step, batch: Batch, optimizers: dict[str, torch.optim.Optimizer]) -> dict[str, float]:
    """One batch: alternating (retrieval, then grounding) or joint, as the optimisers say. Returns losses by name."""
    places = _grounded_places(step, batch)
    part = batch if places is None else batch.at(places)
    with step.fabric.autocast():
        grounded = Grounded(part, places, _select(step, part))
    if "joint" in optimizers:
        return joint_step(step, batch, grounded, optimizers["joint"])
    values = retrieval_step(step, batch, grounded, optimizers["retrieval"])
    return values | grounding_step(step, grounded, optimizers["grounding"])


def _select(step: Step, batch: Batch) -> Selection:
    grounding = step.model.grounding

    def choose(part: Part) -> Selection:
        own = part.batch
        return grounding.choose(grounding.watch(own.videos), own.queries, own.video_of_query)

    with as_teacher(grounding):  # here, as threads must not switch the module that they share
        return in_parts(choose, split(batch, step.num_parts))


def _grounded_places(step: Step, batch: Batch) -> Tensor | None:
    wanted, there = step.config.training.grounding_queries, len(batch.queries.query_ids)
    if wanted is None or wanted >= there:
        return None
    drawn = torch.randperm(there, generator=step.generator)[:wanted].sort().values
    return drawn.to(batch.video_of_query.device)


def retrieval_step(
    step: Step, batch: Batch, grounded: Grounded, optimizer: torch.optim.Optimizer
) -> dict[str, float]:
    """Update retrieval; grounding is a fixed teacher that says where each query happens."""
    with step.fabric.autocast():
        with as_teacher(step.model.grounding):
            condition = _condition(step, grounded)
        terms = retrieval_terms(step, batch, grounded.selection, condition, grounded.places)
    return apply_losses(step, batch, terms, optimizer)


def grounding_step(step: Step, grounded: Grounded, optimizer: torch.optim.Optimizer) -> dict[str, float]:
    """Update grounding; retrieval is a fixed teacher that says which clip of the video is most like the query."""
    with step.fabric.autocast():
        with as_teacher(step.model.retrieval):
            clip = _clip(step, grounded.batch)
        terms = grounding_terms(step, grounded.batch, grounded.selection, clip)
    return apply_losses(step, grounded.batch, terms, optimizer)


def joint_step(
    step: Step, batch: Batch, grounded: Grounded, optimizer: torch.optim.Optimizer
) -> dict[str, float]:
    """Update both at once; the modulating features carry gradients into the branch that they come from."""
    with step.fabric.autocast():
        condition = _condition(step, grounded)
        terms = retrieval_terms(step, batch, grounded.selection, condition, grounded.places)
        clip = _clip(step, grounded.batch)
        terms |= grounding_terms(step, grounded.batch, grounded.selection, clip)
    return apply_losses(step, batch, terms, optimizer)


def _condition(step: Step, grounded: Grounded) -> Tensor | None:
    if not step.wants(*MODULATED_RETRIEVAL):
        return None
    grounding, best = step.model.grounding, grounded.selection.best()

    def feature(part: Part) -> Tensor:
        own = Proposals(best.centers[part.queries], best.widths[part.queries])
        return proposal_feature(grounding, part.batch, own)

    return in_parts(feature, split(grounded.batch, step.num_parts))


def _clip(step: Step, batch: Batch) -> BestClip | None:
    if not step.wants("explicit_to_grounding", "modulated_nll", "match_grounding"):
        return None
    retrieval = step.model.retrieval
    return in_parts(lambda part: best_clip(retrieval, part.batch), split(batch, step.num_parts))


def apply_losses(
    step: Step, batch: Batch, terms: dict[str, Tensor], optimizer: torch.optim.Optimizer
) -> dict[str, float]:
    """Weigh, check, differentiate, update. Refuses a term without a gradient or with a value that is not finite."""
    used = {name: term for name, term in terms.items() if step.weights[name] > 0}
    if not used:  # all weights of this side are 0: it stays as it is
        return {}
    values = dict(zip(used, torch.stack([t.detach().float() for t in used.values()]).tolist(), strict=True))
    for name, term in used.items():
        if not term.requires_grad:
            raise TrainingError(f"the loss {name} carries no gradient")
        if values[name] != values[name] or abs(values[name]) == float("inf"):
            raise TrainingError(
                f"the loss {name} is {values[name]} in epoch {step.epoch}; videos of the batch: "
                f"{', '.join(batch.videos.video_ids)}; queries: {', '.join(batch.queries.query_ids)}. "
                "Check these inputs, or lower the learning rate"
            )
    optimizer.zero_grad(set_to_none=True)
    step.fabric.backward(sum((step.weights[name] * term for name, term in used.items()), torch.zeros(())))
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    sum_gradients(step.fabric, parameters)
    if step.config.training.clip_norm is not None:
        step.fabric.clip_gradients(
            step.model, optimizer, max_norm=step.config.training.clip_norm, error_if_nonfinite=False
        )
    optimizer.step()
    return values
