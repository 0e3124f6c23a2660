"""A training step on the device: equal to the plain path, close to it in bf16, and how often the host waits."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from plain_step import plain_terms
from small_step import SIDES, compare_terms, fast_terms, gradients, in_double, make_step

from dciml.method.batch import Batch, BatchSizes
from dciml.method.fast import fixed_shapes
from dciml.training.loader import on_device
from dciml.training.steps import training_step

BatchOf = Callable[..., Batch]
SENTENCES = (3, 7, 4, 2, 9, 8)
SIZES = BatchSizes(num_clips=8, max_frames=16, max_words=9)


@pytest.mark.parametrize("side", list(SIDES))
def test_every_term_and_gradient_equals_the_plain_path(device: str, batch_of: BatchOf, side: str) -> None:
    """Float32 without TF32 against the plain path in float64, both on the device."""
    batch = batch_of(SENTENCES).to(torch.device(device))
    fast, plain = (make_step(2, dtype, device=device) for dtype in (torch.float32, torch.float64))
    expected = plain_terms(plain, in_double(batch), side)
    compare_terms(fast, fast_terms(fast, batch, side), plain, expected, side)


@pytest.mark.parametrize("side", list(SIDES))
def test_device_gives_the_losses_of_the_processor(cuda: str, batch_of: BatchOf, side: str) -> None:
    batch = batch_of(SENTENCES)
    there, here = make_step(2, torch.float32, device=cuda), make_step(2, torch.float32)
    found = fast_terms(there, batch.to(torch.device(cuda)), side)
    for name, value in fast_terms(here, batch, side).items():
        assert found[name].item() == pytest.approx(value.item(), rel=1e-4, abs=1e-5), name


@pytest.mark.parametrize("side", list(SIDES))
def test_half_precision_is_close(device: str, batch_of: BatchOf, side: str) -> None:
    """Losses to 5 %, and the direction of the whole gradient, in bf16-mixed beside float32."""
    batch, found = batch_of(SENTENCES).to(torch.device(device)), {}
    for precision in ("32-true", "bf16-mixed"):
        step = make_step(2, torch.float32, precision=precision, device=device)  # type: ignore[arg-type]
        with step.fabric.autocast():
            terms = fast_terms(step, batch, side)
        total = torch.stack([step.weights[name] * term for name, term in terms.items()]).sum()
        direction = torch.cat([gradient.flatten() for _, gradient in gradients(step, total)])
        found[precision] = {name: term.item() for name, term in terms.items()}, direction
    (exact, expected), (near, direction) = found["32-true"], found["bf16-mixed"]
    for name, value in exact.items():
        assert near[name] == pytest.approx(value, rel=0.05, abs=0.02), name
    assert torch.cosine_similarity(expected, direction, dim=0) > 0.99


@pytest.mark.parametrize("side", list(SIDES))
def test_fixed_shapes_give_the_same_losses(device: str, batch_of: BatchOf, side: str) -> None:
    packs, keeps = (make_step(2, torch.float32, device=device) for _ in range(2))  # both draw the same
    batch, there = batch_of(SENTENCES), torch.device(device)
    expected = fast_terms(packs, batch.to(there), side)
    with fixed_shapes():
        found = fast_terms(keeps, batch.in_buckets(SIZES).to(there), side)
    for name, value in expected.items():
        assert found[name].item() == pytest.approx(value.item(), rel=1e-4, abs=1e-5), name


def test_batches_are_copied_ahead_as_they_are(device: str, batch_of: BatchOf) -> None:
    batches = [batch_of(SENTENCES, seed=seed) for seed in range(6)]
    pinned = (batch.pinned() if device == "cuda" else batch for batch in batches)
    for found, expected in zip(on_device(pinned, torch.device(device)), batches, strict=True):
        for left, right in zip(found.tensors(), expected.tensors(), strict=True):
            assert left.device.type == device
            assert torch.equal(left.cpu(), right)


@pytest.mark.parametrize("anchored", [False, True])
def test_host_waits_once_in_a_step(
    cuda: str, batch_of: BatchOf, record_property: Callable[[str, object], None], anchored: bool
) -> None:
    """For the losses, at the end. tests/training/test_host_waits.py looks for the same without a GPU."""
    step = replace(
        make_step(2, torch.float32, dropout=0.1, device=cuda, anchored=anchored),
        fixed_shapes=True,
        grounding_queries=20,
    )
    batch = batch_of(SENTENCES).in_buckets(SIZES).to(torch.device(cuda))
    optimizers: dict[str, torch.optim.Optimizer] = {
        side: torch.optim.AdamW([p for _, p in step.model.side(side)], lr=1e-3, fused=True) for side in SIDES
    }
    training_step(step, batch, optimizers)  # what is done once only
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            training_step(step, batch, optimizers)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    waits = [f"{w.filename}:{w.lineno}" for w in seen if "synchronizing" in str(w.message)]
    record_property("synchronisations of a step", len(waits))
    assert len(waits) == 1, waits
