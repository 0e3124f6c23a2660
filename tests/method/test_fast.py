"""What is only for speed gives the same: no padding, shared rows, hidden positions left out, random bytes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
import torch

from dciml.method.batch import Batch
from dciml.method.fast import NEGLIGIBLE, PADDING, Packing, Sequences, View, alike
from dciml.method.grounding import GroundingBranch, log_gaussian
from dciml.method.layers import Dropout

MASK = torch.tensor([[True, True, False], [True, False, False], [True, True, True]])


def test_pack_and_pad_are_inverse_with_gradients() -> None:
    packing = Packing.of(MASK)
    x = torch.randn(3, 3, 4, requires_grad=True)
    rows = packing.pack(x)
    torch.testing.assert_close(rows, torch.cat([x[0, :2], x[1, :1], x[2]]))
    padded = packing.pad(rows)
    torch.testing.assert_close(padded, x * MASK[..., None])
    padded.square().sum().backward()
    torch.testing.assert_close(x.grad, 2 * x.detach() * MASK[..., None])
    assert packing.sequence_of_row(x.device).tolist() == [0, 0, 1, 2, 2, 2]
    assert packing.position_of_row(x.device).tolist() == [0, 1, 0, 0, 1, 2]
    assert torch.equal(packing.mask(x.device), MASK)
    assert Packing.full(2, 3).mask(x.device).tolist() == [[True] * 3] * 2
    assert Packing.full(2, 2).position_of_row(x.device).tolist() == [0, 1, 0, 1]
    assert packing.places(x.device).tolist() == [[0, 1, 0], [2, 0, 0], [3, 4, 5]]


def test_sequences_are_read_in_any_order_and_more_than_once() -> None:
    packing, x, chosen = Packing.of(MASK), torch.randn(3, 3, 4), torch.tensor([2, 0, 2, 1])
    read = packing.at(chosen)
    expected = (x * MASK[..., None])[chosen]
    sequences = Sequences.of(x, MASK).read_by(chosen)
    assert len(sequences.rows) == 6
    torch.testing.assert_close(read.pad(sequences.real_rows()), expected)
    torch.testing.assert_close(sequences.pad(sequences.rows)[MASK[chosen]], expected[MASK[chosen]])
    assert torch.equal(sequences.bias[:, 0] == 0, MASK[chosen])
    torch.testing.assert_close(sequences.last().rows, x[chosen, MASK[chosen].sum(dim=1) - 1])
    assert read.sequence_of_row(x.device).tolist() == [0, 0, 0, 1, 1, 2, 2, 2, 3]
    assert Packing.full(3, 3).at(chosen) == Packing.full(4, 3)
    assert Packing.of(torch.ones(3, 3, dtype=torch.bool)) == Packing.full(3, 3)


@pytest.mark.parametrize("probability", [0.1, 0.2, 0.5])
def test_dropout_keeps_the_mean_and_drops_its_share(probability: float) -> None:
    torch.manual_seed(0)
    x = torch.ones(1001, 999)
    out = Dropout(probability)(x)
    dropped = (out == 0).float().mean().item()
    assert dropped == pytest.approx(probability, abs=0.004)
    assert out.mean().item() == pytest.approx(1.0, abs=0.004)
    values = out.unique()
    assert len(values) == 2
    # Neighbours share no random number: the share of pairs that both fall is the square.
    both = ((out[:, 1:] == 0) & (out[:, :-1] == 0)).float().mean().item()
    assert both == pytest.approx(dropped**2, abs=0.002)


def test_dropout_does_nothing_in_evaluation_and_follows_the_seed() -> None:
    dropout, x = Dropout(0.3), torch.randn(7, 5)
    torch.manual_seed(3)
    first = dropout(x)
    torch.manual_seed(3)
    assert torch.equal(dropout(x), first)
    assert not torch.equal(dropout(x), first)
    assert torch.equal(dropout.eval()(x), x)


def test_dropout_refuses_a_probability_of_one() -> None:
    with pytest.raises(ValueError, match=r"\[0, 1\)"):
        Dropout(1.0)


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
    own, flat = batch.video_of_query.repeat(sets), weights.repeat_interleave(queries, dim=0)
    for whole in (False, True):
        memory = grounding.frame_stack(Sequences.weighed(sampled, own, flat, whole=whole))
        nll = grounding.sentence_nll(batch.queries, memory, every)
        found.append(
            (nll, torch.autograd.grad(nll.sum(), [center, width], retain_graph=True), len(memory.rows))
        )
    (cut, cut_gradients, cut_rows), (expected, gradients, all_rows) = found
    torch.testing.assert_close(cut, expected, rtol=1e-5, atol=1e-6)
    for left, right in zip(cut_gradients, gradients, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-3, atol=1e-4 * float(right.abs().max()))
    assert all_rows == sets * queries * POSITIONS
    assert cut_rows < 0.6 * all_rows
    assert float(expected.detach().reshape(sets, queries).std(dim=0).min()) > 0.01, (
        "what is seen must matter, or the likelihoods say nothing"
    )


def weighed(log_weights: torch.Tensor) -> Sequences:
    """Of one video whose rows are the numbers of its positions."""
    rows = torch.arange(log_weights.shape[1]).float()[None, :, None]
    return Sequences.weighed(rows, torch.zeros(len(log_weights), dtype=torch.int64), log_weights)


def test_what_is_seen_is_a_run_around_the_heaviest_position() -> None:
    cut = math.log(NEGLIGIBLE)
    weights = torch.tensor([[0.0, cut - 1, 9 * cut, 9 * cut], [cut - 5, cut + 1 - 2, -2.0, 2 * cut]])
    seen = weighed(weights)
    assert seen.log_weights is not None
    assert seen.pad(seen.rows)[..., 0].tolist() == [[0, 1], [1, 2]]
    assert seen.packing.mask(weights.device).tolist() == [[True, False], [True, True]]
    assert seen.log_weights.tolist() == [[0.0, PADDING], [pytest.approx(cut - 1), -2.0]]


def test_pairs_in_groups_are_all_pairs_in_the_order_of_what_they_see() -> None:
    torch.manual_seed(0)
    weights = log_gaussian(torch.rand(5, 3), torch.rand(5, 3) / 9, POSITIONS)
    groups = alike(weights, 4)
    assert [len(query) for query, _ in groups] == [4, 4, 4, 3]
    pairs = [
        pair for query, proposal in groups for pair in zip(query.tolist(), proposal.tolist(), strict=True)
    ]
    assert sorted(pairs) == list(itertools.product(range(5), range(3)))
    kept = [int((weights[pair] >= math.log(NEGLIGIBLE) + weights[pair].max()).sum()) for pair in pairs]
    assert kept == sorted(kept)


def test_weights_that_are_no_numbers_are_not_hidden() -> None:
    seen = weighed(torch.tensor([[0.0, -100.0, -200.0], [math.nan] * 3]))
    assert seen.log_weights is not None
    assert seen.packing.mask(seen.rows.device).tolist() == [[True, False, False], [True, True, True]]
    assert seen.log_weights[1].isnan().all()


@pytest.mark.parametrize("mask", [[[True, True], [True, False]], [[True, True], [True, True]]])
def test_a_memory_is_read_by_several(mask: list[list[bool]]) -> None:
    padded, real = torch.tensor([[[1.0], [2.0]], [[3.0], [4.0]]]), torch.tensor(mask)
    memory = Sequences.of(padded, real)
    reads = torch.tensor([1, 0, 1])
    read = memory.read_by(reads)
    torch.testing.assert_close(read.pad(read.rows)[real[reads]], padded[reads][real[reads]])
    assert torch.equal(read.bias, memory.bias[reads])
    again, twice = read.read_by(torch.tensor([2, 1])), reads[[2, 1]]
    torch.testing.assert_close(again.pad(again.rows)[real[twice]], padded[twice][real[twice]])


def test_views_together_are_each_view_alone(
    grounding: GroundingBranch, batch_of: Callable[..., Batch]
) -> None:
    """Frames of several videos, of each query's own, and whole videos that queries share."""
    torch.manual_seed(0)
    batch = batch_of((2, 1, 3))
    owner, sampled = batch.video_of_query, grounding.sampled_frames(batch.videos)
    weights = log_gaussian(torch.rand(len(owner)), torch.full((len(owner),), 0.1), POSITIONS)
    views = {
        "own": View.own(sampled, owner, weights),
        "whole": View.evenly(sampled, owner),
        "other": View.own(torch.randn(len(owner), *sampled.shape[1:]), torch.arange(len(owner)), weights),
        "back": View.own(sampled, owner, weights.flip(1)),
    }
    together = grounding.nll_of_views(batch.queries, views)
    assert together.keys() == views.keys()
    assert len(View.together(list(views.values())).frames) == len(sampled) + len(owner)
    for name, view in views.items():
        alone = grounding.nll_of_views(batch.queries, {name: view})[name]
        torch.testing.assert_close(together[name], alone, rtol=1e-5, atol=1e-6)
    every = torch.arange(len(owner))
    even = grounding.encode_under(sampled, owner, torch.zeros(len(owner), POSITIONS))
    whole = grounding.sentence_nll(batch.queries, even, every)
    torch.testing.assert_close(together["whole"], whole, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(together["own"], together["back"])
