"""What a Gaussian does not let through is not computed, and nothing changes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
import torch

from dciml.method.batch import Batch
from dciml.method.grounding import GroundingBranch, log_gaussian
from dciml.method.packed import Packing
from dciml.method.support import NEGLIGIBLE, PADDING, Memory, Support

POSITIONS = 32
WIDTHS, CENTERS = (0.01, 0.03, 0.2, 0.45, 0.8, 1.0), (0.0, 0.011, 0.016129, 0.3, 0.5, 0.97, 1.0)


@pytest.fixture
def grounding() -> GroundingBranch:
    """Weights so large that attention has strong likings."""
    torch.manual_seed(0)
    branch = GroundingBranch(
        video_width=12, static_width=8, vocabulary_size=20, hidden=16, heads=2, layers=3, num_proposals=4,
        num_positions=POSITIONS,
    ).eval()  # fmt: skip
    with torch.no_grad():
        for parameter in branch.frame_stack.parameters():
            parameter *= 1.5
    return branch


def test_likelihoods_and_gradients_are_those_of_all_positions(
    grounding: GroundingBranch, batch_of: Callable[..., Batch]
) -> None:
    """Widths from the least to the most, centres from edge to edge and between two positions."""
    batch = batch_of((1, 1))
    places = torch.tensor(list(itertools.product(CENTERS, WIDTHS)))
    center, width = places.T.contiguous().requires_grad_(True)
    sets, queries = len(places), len(batch.video_of_query)
    weights = log_gaussian(center, width / grounding.gaussian_sigma, POSITIONS)
    sampled, every = grounding.sampled_frames(batch.videos), torch.arange(queries).repeat(sets)
    found = []
    for support in (Support.of, Support.whole):
        flat = support(weights.repeat_interleave(queries, dim=0))
        memory = grounding.frame_stack.encode_under(sampled, batch.video_of_query.repeat(sets), flat)
        nll = grounding.sentence_nll(batch.queries, memory, every)
        found.append(
            (nll, torch.autograd.grad(nll.sum(), [center, width], retain_graph=True), len(memory.rows))
        )
    (cut, cut_gradients, cut_rows), (whole, gradients, all_rows) = found
    torch.testing.assert_close(cut, whole, rtol=1e-5, atol=1e-6)
    for left, right in zip(cut_gradients, gradients, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-3, atol=1e-4 * float(right.abs().max()))
    assert all_rows == sets * queries * POSITIONS
    assert cut_rows < 0.6 * all_rows
    assert float(whole.detach().reshape(sets, queries).std(dim=0).min()) > 0.01, (
        "what is seen must matter, or the likelihoods say nothing"
    )


@pytest.mark.parametrize("in_order", [True, False])
def test_likelihoods_in_runs_are_those_of_padded_sequences(
    grounding: GroundingBranch, batch_of: Callable[..., Batch], in_order: bool
) -> None:
    """Two sentences of different length, each under every Gaussian, mixed."""
    batch = batch_of((2,))
    center, width = torch.tensor(list(itertools.product(CENTERS, WIDTHS))).repeat_interleave(2, dim=0).T
    weights = log_gaussian(center, width / grounding.gaussian_sigma, POSITIONS)
    beside = torch.arange(2).repeat(len(weights) // 2)
    if in_order:
        order = Support.num_seen(weights).argsort()
        weights, beside = weights[order], beside[order]
    sampled, owner = grounding.sampled_frames(batch.videos), batch.video_of_query[beside]
    assert batch.queries.word_mask.sum(dim=1).unique().numel() == 2
    padded = grounding.sentence_nll(
        batch.queries, grounding.encode_under(sampled, owner, weights), beside
    ).detach()
    with torch.no_grad():
        memory = grounding.encode_under(sampled, owner, weights)
        assert memory.layout.runs is not None
        assert (len(memory.layout.runs) < POSITIONS) == in_order
        found = grounding.sentence_nll(batch.queries, memory, beside)
    torch.testing.assert_close(found, padded, rtol=1e-5, atol=1e-6)


def test_a_support_is_a_run_around_the_heaviest_position() -> None:
    cut = math.log(NEGLIGIBLE)
    weights = torch.tensor([[0.0, cut - 1, 9 * cut, 9 * cut], [cut - 5, cut + 1 - 2, -2.0, 2 * cut]])
    support = Support.of(weights)
    assert support.positions.tolist() == [[0, 1], [1, 2]]
    assert support.packing.pad(torch.ones(3, 1))[..., 0].tolist() == [[1, 0], [1, 1]]
    assert support.log_weights.tolist() == [[0.0, PADDING], [pytest.approx(cut - 1), -2.0]]


def test_weights_that_are_no_numbers_are_not_hidden() -> None:
    support = Support.of(torch.tensor([[0.0, -100.0, -200.0], [math.nan] * 3]))
    assert support.packing.pad(torch.ones(4, 1))[..., 0].tolist() == [[1, 0, 0], [1, 1, 1]]
    assert support.log_weights[1].isnan().all()


@pytest.mark.parametrize("mask", [[[True, True], [True, False]], [[True, True], [True, True]]])
def test_a_memory_is_read_by_several(mask: list[list[bool]]) -> None:
    packing = Packing.of(torch.tensor(mask))
    padded = torch.tensor([[[1.0], [2.0]], [[3.0], [4.0]]])
    bias = torch.zeros(2, 1, 2).masked_fill(~torch.tensor(mask)[:, None], PADDING)
    memory = Memory(packing.pack(padded), packing, bias)
    reads = torch.tensor([1, 0, 1])
    read = memory.read_by(reads)
    real = torch.tensor(mask)[reads]
    torch.testing.assert_close(read.layout.pad(read.rows)[real], padded[reads][real])
    assert torch.equal(read.bias, bias[reads])
    again = read.read_by(torch.tensor([2, 1]))
    torch.testing.assert_close(
        again.layout.pad(again.rows)[real[[2, 1]]], padded[reads[[2, 1]]][real[[2, 1]]]
    )
