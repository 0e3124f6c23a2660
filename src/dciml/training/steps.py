"""One training step of each branch, the two mirrors of each other, and the joint step; in one process or several.

Several processes are as one: each computes the same losses over the gathered outputs, with a gradient through its
own rows only. The sum of the processes' gradients is then the gradient of one process with all the rows.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from dciml.errors import TrainingError
from dciml.method import (
    BY_DISTRIBUTION,
    PATHWAY_TERMS,
    Batch,
    BestClip,
    DualBranch,
    GroundingLosses,
    LocalOutput,
    RetrievalLosses,
    RetrievalOutput,
    Selection,
    as_teacher,
    best_clip,
    fixed_shapes,
    proposal_feature,
)


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


def gather_rows(fabric: Fabric, rows: Tensor) -> Tensor:
    """All processes' rows in the order of their ranks, (sum of rows, ...); own rows keep their gradient."""
    if fabric.world_size == 1:
        return rows
    counts = _row_counts(fabric, rows)
    padded = torch.zeros(max(counts), *rows.shape[1:], dtype=rows.dtype, device=rows.device)
    padded[: len(rows)] = rows.detach()
    everyone = _gathered(fabric, padded)
    parts = [
        rows if rank == fabric.global_rank else everyone[rank, :count] for rank, count in enumerate(counts)
    ]
    return torch.cat(parts)


def mean_over_all(fabric: Fabric, values: Tensor) -> Tensor:
    """Mean of a per-query loss over the sentences of all processes."""
    return gather_rows(fabric, values).mean()


def gather_output(fabric: Fabric, output: RetrievalOutput) -> RetrievalOutput:
    """The retrieval output of all processes, with the indices of the own videos moved along."""
    if fabric.world_size == 1:
        return output
    counts = _row_counts(fabric, output.clips)
    offset = sum(counts[: fabric.global_rank])
    local = output.local
    if local is not None:
        local = LocalOutput(gather_rows(fabric, local.query), gather_rows(fabric, local.clips))
    return RetrievalOutput(
        gather_rows(fabric, output.query),
        gather_rows(fabric, output.clips),
        gather_rows(fabric, output.frames),
        gather_rows(fabric, output.video_of_query + offset),
        local,
    )


def any_process(fabric: Fabric, value: bool) -> bool:
    """Is the value True in at least one process? All get the same answer."""
    if fabric.world_size == 1:
        return value
    return bool(_gathered(fabric, torch.tensor(value, dtype=torch.int64, device=fabric.device)).any())


def _row_counts(fabric: Fabric, rows: Tensor) -> list[int]:
    counts: list[int] = _gathered(fabric, torch.tensor(len(rows), device=rows.device)).tolist()
    return counts


def _gathered(fabric: Fabric, values: Tensor) -> Tensor:
    everyone = fabric.all_gather(values)
    assert isinstance(everyone, Tensor)
    return everyone


def sum_gradients(fabric: Fabric, parameters: Iterable[nn.Parameter]) -> None:
    """Add up the gradients of all processes, in one message."""
    if fabric.world_size == 1:
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = fabric.all_reduce(torch.cat([g.flatten() for g in gradients]), reduce_op="sum")
    assert isinstance(flat, Tensor)
    for gradient, part in zip(gradients, torch.split(flat, [g.numel() for g in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))


Optimizers = Mapping[str, torch.optim.Optimizer]


@dataclass(frozen=True, kw_only=True)
class Step:
    """What one step knows besides its batch.

    Attributes:
        weights: of each loss term in this epoch; 0 leaves it out.
        easiness: how far negatives reach towards the proposal.
        hard_pool_size: of the triplet losses; None: negatives at random.
        grounding_queries: sentences of a batch that grounding and the pathways look at, drawn; None: all.
        grounding_updates: of the grounding branch for each of retrieval, each with sentences drawn anew.
        num_windows: how many windows retrieval gives grounding as labels; None: its best clip instead.
        clip_norm: largest norm of a side's gradient; None: any.
        fixed_shapes: sizes do not depend on values, so that the host need not wait for the device (`fixed_shapes`).
        generator: draws negatives, and the sentences that grounding looks at; the same in every process.
    """

    fabric: Fabric
    model: DualBranch
    retrieval_losses: RetrievalLosses
    grounding_losses: GroundingLosses
    weights: Mapping[str, float]
    easiness: float
    hard_pool_size: int | None
    grounding_queries: int | None
    grounding_updates: int
    num_windows: int | None
    clip_norm: float | None
    epoch: int
    generator: torch.Generator
    fixed_shapes: bool = False

    def wants(self, *pathways: str) -> bool:
        """Does a term of one of these pathways count?"""
        return any(self.weights[term] > 0 for pathway in pathways for term in PATHWAY_TERMS[pathway])


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


def training_step(step: Step, batch: Batch, optimizers: Optimizers) -> dict[str, float]:
    """One batch: alternating (retrieval, then grounding) or joint, as the optimisers say. Returns losses by name.

    Raises:
        TrainingError: a loss carries no gradient, or is not finite; the weights are then of no use.
    """
    with fixed_shapes(step.fixed_shapes):
        grounded = choose_proposals(step, batch)
        if "joint" in optimizers:
            terms = joint_step(step, batch, grounded, optimizers["joint"])
        else:
            terms = retrieval_step(step, batch, grounded, optimizers["retrieval"])
            terms |= grounding_step(step, grounded, optimizers["grounding"])
            for _ in range(step.grounding_updates - 1):
                terms |= grounding_step(step, choose_proposals(step, batch), optimizers["grounding"])
    return read_losses(step, batch, terms)


def retrieval_step(
    step: Step, batch: Batch, grounded: Grounded, optimizer: torch.optim.Optimizer
) -> dict[str, Tensor]:
    """Update retrieval; grounding is a fixed teacher that says where each query happens."""
    with step.fabric.autocast():
        with as_teacher(step.model.grounding):
            condition = grounding_teaches(step, grounded)
        terms = retrieval_terms(step, batch, grounded.selection, condition, grounded.places)
    return apply_losses(step, terms, optimizer)


def grounding_step(step: Step, grounded: Grounded, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Update grounding; retrieval is a fixed teacher that says which clip of the video is most like each query."""
    with step.fabric.autocast():
        with as_teacher(step.model.retrieval):
            clip = retrieval_teaches(step, grounded)
        terms = grounding_terms(step, grounded.batch, grounded.selection, clip)
    return apply_losses(step, terms, optimizer)


def joint_step(
    step: Step, batch: Batch, grounded: Grounded, optimizer: torch.optim.Optimizer
) -> dict[str, Tensor]:
    """Update both at once; the modulating features carry gradients into the branch that they come from."""
    with step.fabric.autocast():
        condition = grounding_teaches(step, grounded)
        terms = retrieval_terms(step, batch, grounded.selection, condition, grounded.places)
        clip = retrieval_teaches(step, grounded)
        terms |= grounding_terms(step, grounded.batch, grounded.selection, clip)
    return apply_losses(step, terms, optimizer)


def choose_proposals(step: Step, batch: Batch) -> Grounded:
    """The best proposal of each sentence that grounding looks at; it serves both steps of a batch."""
    wanted, there = step.grounding_queries, batch.num_sentences
    places = None
    if wanted is not None and wanted < there:
        drawn = torch.randperm(there, generator=step.generator)[:wanted].sort().values
        batch, places = (
            batch.at(drawn, all_videos=step.fixed_shapes),
            drawn.to(batch.video_of_query.device, non_blocking=True),
        )
    with step.fabric.autocast():
        batch = step.model.anchored(batch)
        return Grounded(batch, places, step.model.grounding.select(batch))


def grounding_teaches(step: Step, grounded: Grounded) -> Tensor | None:
    """What grounding sees under the best proposal, (queries, grounding hidden); None when no term wants it."""
    if not step.wants("implicit_to_retrieval"):
        return None
    return proposal_feature(step.model.grounding, grounded.batch, grounded.selection.best())


def retrieval_teaches(step: Step, grounded: Grounded) -> BestClip | None:
    """Each query's best clip in its own video; None when no term wants it."""
    if not step.wants("explicit_to_grounding", "implicit_to_grounding"):
        return None
    grounding = step.model.grounding
    floor = grounding.anchor_floor if grounding.anchored else 0.0  # labels and anchors are the same windows
    return best_clip(step.model.retrieval, grounded.batch, step.num_windows, floor)


def retrieval_terms(
    step: Step,
    batch: Batch,
    selection: Selection,
    condition: Tensor | None,
    places: Tensor | None = None,
) -> dict[str, Tensor]:
    """All losses of the retrieval side, by name.

    Args:
        selection: what the grounding branch chose, fixed values.
        condition: from `grounding_teaches`.
        places: of the sentences that selection and condition speak of; None: all, in order.
    """
    model, losses = step.model, step.retrieval_losses
    output = model.retrieval(batch)
    everyone = gather_output(step.fabric, output.first(batch.num_sentences))
    terms = losses.of_ranking(everyone, hard_pool_size=step.hard_pool_size, generator=step.generator)

    taught = output if places is None else output.at(places)
    lessons: dict[str, Tensor] = {}
    if step.wants("explicit_to_retrieval"):
        centers = batch.videos.clip_centers
        if losses.place_form in BY_DISTRIBUTION:
            lessons |= losses.of_place_by_distribution(output, selection, places, centers)
        else:
            lessons |= losses.of_place(taught, selection.best(), centers)
    if condition is not None:
        lessons |= losses.of_modulation(taught, model.to_retrieval(taught, condition))
    return terms | _means(step, lessons, batch.num_sentences)


def grounding_terms(
    step: Step, batch: Batch, selection: Selection, clip: BestClip | None
) -> dict[str, Tensor]:
    """All losses of the grounding side, by name.

    Args:
        selection: made with the present grounding weights; says which proposal is the best.
        clip: from `retrieval_teaches`.
    """
    model, losses, modulate = step.model, step.grounding_losses, None
    if clip is not None and step.wants("implicit_to_grounding"):
        modulate = partial(model.to_grounding, condition=clip.feature)
    output = model.grounding(batch, selection.best_index, step.easiness, modulate)
    terms = losses.of_reconstruction(output, model.grounding.log_weights(output.proposals))

    if clip is not None and step.wants("explicit_to_grounding"):
        terms |= losses.of_place(output, clip)
    if modulate is not None:
        terms |= losses.of_modulation(output, batch.video_of_query)
    return _means(step, terms, batch.num_sentences)


def _means(step: Step, losses: dict[str, Tensor], num_sentences: int) -> dict[str, Tensor]:
    """Over the sentences of all processes; behind the first so many are only copies."""
    return {name: mean_over_all(step.fabric, loss[:num_sentences]) for name, loss in losses.items()}


def apply_losses(step: Step, terms: dict[str, Tensor], optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Weigh, differentiate, update. Returns the values of the terms that count; refuses one without a gradient."""
    used = {name: term for name, term in terms.items() if step.weights[name] > 0}
    if not used:  # all weights of this side are 0: it stays as it is
        return {}
    for name, term in used.items():
        if not term.requires_grad:
            raise TrainingError(f"the loss {name} carries no gradient")
    optimizer.zero_grad(set_to_none=True)
    step.fabric.backward(sum((step.weights[name] * term for name, term in used.items()), torch.zeros(())))
    sum_gradients(step.fabric, [p for group in optimizer.param_groups for p in group["params"]])
    if step.clip_norm is not None:
        step.fabric.clip_gradients(step.model, optimizer, max_norm=step.clip_norm, error_if_nonfinite=False)
    optimizer.step()
    return {name: term.detach().float() for name, term in used.items()}


def read_losses(step: Step, batch: Batch, terms: dict[str, Tensor]) -> dict[str, float]:
    """All losses of a step by name: the one time that the host waits for the device. Refuses what is not finite."""
    if not terms:
        return {}
    values = dict(zip(terms, torch.stack(list(terms.values())).tolist(), strict=True))
    for name, value in values.items():
        if not math.isfinite(value):
            raise TrainingError(
                f"the loss {name} is {value} in epoch {step.epoch}; videos of the batch: "
                f"{', '.join(batch.videos.video_ids)}; queries: {', '.join(batch.queries.query_ids)}. "
                "Check these inputs, or lower the learning rate"
            )
    return values
