"""A step on a small model with all pathways on, and how its terms are held to those of the plain path.

For tests of the method on a CPU and on a GPU alike.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Literal

import torch
from lightning_fabric import Fabric

from dciml.config import parse_config
from dciml.method.batch import Batch
from dciml.method.grounding import GroundingBranch
from dciml.method.mutual import DualBranch, best_clip, proposal_feature
from dciml.method.retrieval import LocalScale, RetrievalBranch
from dciml.method.terms import terms_of
from dciml.model_folder import build_step
from dciml.training.steps import Step, as_teacher, grounding_terms, retrieval_terms

SIDES = {"retrieval": terms_of("retrieval"), "grounding": terms_of("grounding")}


def make_step(
    layers: int,
    dtype: torch.dtype,
    dropout: float = 0.0,
    precision: Literal["32-true", "bf16-mixed"] = "32-true",
    device: str = "cpu",
    anchored: bool = False,
) -> Step:
    """All pathways on, margins so wide that every hinge is active."""
    torch.manual_seed(0)
    retrieval = RetrievalBranch(
        video_width=12,
        text_width=10,
        hidden=16,
        heads=2,
        num_clips=8,
        max_frames=16,
        max_words=9,
        dropout=dropout,
        local=LocalScale(video_width=12, text_width=10, width=6, dropout=dropout),
    )
    grounding = GroundingBranch(
        video_width=12, static_width=8, vocabulary_size=20, hidden=16, heads=2, layers=layers, num_proposals=4,
        num_positions=6, max_words=9, dropout=dropout, anchored=anchored,
    )  # fmt: skip
    config = parse_config(
        {
            "name": "test",
            "data": {"folder": "unused"},
            "text": {"max_words": 9},
            "mutual": {"from_epoch": 0, "grounding_margin": 5.0},
            "retrieval": {"margin": 2.0},
            "grounding": {"reference_margin": 5.0, "negative_margin": 5.0},
            "weights": {"triplet_local": 1.0},
        },
        "test",
    )
    if anchored:  # it starts at 0, where every proposal ends exactly where a clip does
        torch.nn.init.normal_(grounding.span_head.weight, std=0.2)
    model = DualBranch(retrieval, grounding, 16).to(device, dtype)
    fabric = Fabric(accelerator=device, devices=1, precision=precision)
    return build_step(config, fabric, model, 0, torch.Generator().manual_seed(0))


def fast_terms(step: Step, batch: Batch, side: str) -> dict[str, torch.Tensor]:
    selection = step.model.grounding.select(batch)
    if side == "retrieval":
        with as_teacher(step.model.grounding):
            condition = proposal_feature(step.model.grounding, batch, selection.best())
        return retrieval_terms(step, batch, selection, condition)
    with as_teacher(step.model.retrieval):
        clip = best_clip(step.model.retrieval, batch)
    return grounding_terms(step, batch, selection, clip)


def in_double(batch: Batch) -> Batch:
    videos, queries = batch.videos, batch.queries
    return replace(
        batch,
        videos=replace(videos, clips=videos.clips.double(), frames=videos.frames.double()),
        queries=replace(queries, words=queries.words.double(), static_words=queries.static_words.double()),
    )


def gradients(step: Step, loss: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
    step.model.zero_grad()
    loss.backward(retain_graph=True)
    for name, parameter in step.model.named_parameters():
        gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        yield name, gradient.double()


def compare_terms(
    fast: Step,
    values: Mapping[str, torch.Tensor],
    plain: Step,
    expected: Mapping[str, torch.Tensor],
    side: str,
) -> None:
    """Every term, and its gradient in every parameter to 1e-4 of the largest one there."""
    assert set(values) == set(expected) == set(SIDES[side])
    for term in SIDES[side]:
        torch.testing.assert_close(values[term].double(), expected[term].double(), atol=1e-6, rtol=1e-5)
        pairs = zip(gradients(fast, values[term]), gradients(plain, expected[term]), strict=True)
        all_pairs = list(pairs)
        largest = max(float(right.abs().max()) for _, (_, right) in all_pairs)
        assert largest > 0, f"{term} has no gradient"
        for (name, left), (_, right) in all_pairs:
            scale = max(float(right.abs().max()), 1e-3 * largest)
            worst: Any = (left - right).abs().max() / scale
            assert worst < 1e-4, f"{term}: the gradient of {name} is off by {worst:.1e} of its size"
