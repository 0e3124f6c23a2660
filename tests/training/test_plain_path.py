"""The fast training step equals the plain one, in which nothing is shared and nothing is skipped (tests/oracle)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any, Literal

import pytest
import torch
from lightning_fabric import Fabric
from plain_step import plain_terms, plain_training_step

from dciml.config import parse_config
from dciml.method.batch import Batch
from dciml.method.grounding import GroundingBranch
from dciml.method.mutual import DualBranch, best_clip, proposal_feature
from dciml.method.retrieval import LocalScale, RetrievalBranch
from dciml.method.terms import terms_of
from dciml.model_folder import build_step
from dciml.training.steps import Step, as_teacher, grounding_terms, retrieval_terms, training_step

TrainingStep = Callable[[Step, Batch, dict[str, torch.optim.Optimizer]], dict[str, float]]
SIDES = {"retrieval": terms_of("retrieval"), "grounding": terms_of("grounding")}


def make_step(
    layers: int,
    dtype: torch.dtype,
    dropout: float = 0.0,
    precision: Literal["32-true", "bf16-mixed"] = "32-true",
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
    model = DualBranch(retrieval, grounding, 16).to(dtype)
    fabric = Fabric(accelerator="cpu", devices=1, precision=precision)
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


def test_with_anchors_too_every_term_equals_the_plain_path(batch_of: Callable[..., Batch]) -> None:
    fast, plain = (make_step(2, dtype, anchored=True) for dtype in (torch.float32, torch.float64))
    batch = batch_of((2, 1, 3, 1))
    rng = torch.Generator().manual_seed(0)
    anchors = 0.3 + 0.4 * torch.rand(7, 4, 3, generator=rng)  # wide: each holds some of the six positions
    wide = in_double(batch)
    wide = replace(wide, queries=replace(wide.queries, anchors=anchors.double()))
    batch = replace(batch, queries=replace(batch.queries, anchors=anchors))
    for side in SIDES:
        values, expected = fast_terms(fast, batch, side), plain_terms(plain, wide, side)
        for term in SIDES[side]:
            torch.testing.assert_close(values[term].double(), expected[term].double(), atol=1e-5, rtol=1e-4)


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


@pytest.mark.parametrize("side", ["retrieval", "grounding"])
@pytest.mark.parametrize(
    ("layers", "sentences"),
    [(1, (2, 1, 3, 1)), (2, (2, 1, 3, 1)), (3, (2, 1, 3, 1)), (2, (3, 7, 4, 2, 9, 8))],
)
def test_every_term_and_gradient_equals_the_plain_path(
    batch_of: Callable[..., Batch], side: str, layers: int, sentences: tuple[int, ...]
) -> None:
    """Float32 against the plain path in float64: 1e-4 of the largest gradient of each parameter."""
    batch = batch_of(sentences)
    fast, plain = make_step(layers, torch.float32), make_step(layers, torch.float64)
    values, expected = fast_terms(fast, batch, side), plain_terms(plain, in_double(batch), side)
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


@pytest.mark.parametrize("side", ["retrieval", "grounding"])
def test_half_precision_gives_nearly_the_same_losses_and_gradients(
    batch_of: Callable[..., Batch], side: str
) -> None:
    """Small rows round more than large ones, so the directions are compared."""
    batch, sides = batch_of((3, 7, 4, 2, 9, 8)), {}
    for precision in ("32-true", "bf16-mixed"):
        step = make_step(2, torch.float32, precision=precision)
        with step.fabric.autocast():
            terms = fast_terms(step, batch, side)
        total = sum((step.weights[name] * term for name, term in terms.items()), torch.zeros(()))
        sides[precision] = {name: term.item() for name, term in terms.items()}, dict(gradients(step, total))
    (exact, expected), (near, found) = sides["32-true"], sides["bf16-mixed"]
    for name, value in exact.items():
        assert near[name] == pytest.approx(value, rel=0.05, abs=0.02), name
    touched = {name for name, gradient in expected.items() if gradient.abs().sum() > 0}
    assert touched == {name for name, gradient in found.items() if gradient.abs().sum() > 0}
    left, right = (torch.cat([own[name].flatten() for name in sorted(touched)]) for own in (expected, found))
    assert torch.cosine_similarity(left, right, dim=0) > 0.99


def curve(path: TrainingStep, batch: Batch, seed: int, dropout: float, steps: int) -> dict[str, torch.Tensor]:
    """Each loss over a short run on one batch."""
    step = make_step(2, torch.float32, dropout)
    torch.manual_seed(seed)
    for parameter in step.model.parameters():
        parameter.data += 0.02 * torch.randn_like(parameter)
    optimizers: dict[str, torch.optim.Optimizer] = {
        side: torch.optim.AdamW([p for _, p in step.model.side(side)], lr=3e-3) for side in SIDES
    }
    generator = torch.Generator().manual_seed(seed)
    rows = [path(replace(step, generator=generator), batch, optimizers) for _ in range(steps)]
    return {name: torch.tensor([row[name] for row in rows]) for name in rows[0]}


def test_short_run_without_dropout_has_the_curve_of_the_plain_path(
    batch_of: Callable[..., Batch], shapes_unchecked: Callable[[], AbstractContextManager[None]]
) -> None:
    batch = batch_of((2, 1, 3, 1))
    with shapes_unchecked():
        fast, plain = (curve(path, batch, 0, 0.0, steps=8) for path in (training_step, plain_training_step))
    for name, values in fast.items():
        torch.testing.assert_close(values, plain[name], atol=1e-3, rtol=5e-3, msg=name)


@pytest.mark.slow
def test_short_runs_with_dropout_have_the_curve_of_the_plain_path_within_noise(
    batch_of: Callable[..., Batch], shapes_unchecked: Callable[[], AbstractContextManager[None]]
) -> None:
    """Five seeds each; the paths draw different dropout. Means of the last steps, against what seeds differ by.

    With eighteen losses and so few seeds, one is off by four standard errors now and then; six is a difference.
    """
    batch, seeds, steps = batch_of((2, 1, 3, 1)), (1, 2, 3, 4, 5), 30
    with shapes_unchecked():
        fast, plain = (
            [curve(path, batch, seed, 0.2, steps) for seed in seeds]
            for path in (training_step, plain_training_step)
        )
    for name in fast[0]:
        left, right = (torch.stack([run[name][-10:].mean() for run in runs]) for runs in (fast, plain))
        noise = float(((left.var() + right.var()) / len(seeds)).sqrt())
        assert abs(float(left.mean() - right.mean())) < 6 * noise + 0.03 * float(right.mean().abs()), name
        begin = torch.stack([run[name][0] for run in plain]).mean()
        if name in ("contrast_reference", "contrast_left"):
            assert float(right.mean()) < 0.9 * float(begin), (
                f"{name} does not fall, so the curves say nothing"
            )
