"""The fast training step equals the plain one, in which nothing is shared and nothing is skipped (tests/oracle)."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace

import pytest
import torch
from plain_step import plain_terms, plain_training_step
from small_step import SIDES, compare_terms, fast_terms, gradients, in_double, make_step

from dciml.method.batch import Batch
from dciml.training.steps import Step, training_step

TrainingStep = Callable[[Step, Batch, dict[str, torch.optim.Optimizer]], dict[str, float]]


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


def test_where_content_words_count_more_every_term_and_gradient_equals_the_plain_path(
    batch_of: Callable[..., Batch],
) -> None:
    batch, rng = batch_of((2, 1, 3, 1)), torch.Generator().manual_seed(0)
    content = (torch.rand(batch.queries.word_mask.shape, generator=rng) < 0.5) & batch.queries.word_mask
    fast, plain = make_step(2, torch.float32), make_step(2, torch.float64)
    alike = fast_terms(fast, batch, "grounding")["reconstruct"].item()
    batch = replace(batch, queries=replace(batch.queries, content_words=content))
    for step in (fast, plain):
        step.model.grounding.content_weight = 4.0
    expected = plain_terms(plain, in_double(batch), "grounding")
    found = fast_terms(fast, batch, "grounding")
    assert found["reconstruct"].item() != pytest.approx(alike, rel=1e-6)
    compare_terms(fast, found, plain, expected, "grounding")


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
    expected = plain_terms(plain, in_double(batch), side)
    compare_terms(fast, fast_terms(fast, batch, side), plain, expected, side)


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
