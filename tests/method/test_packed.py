"""Rows without padding, and the dropout of random bytes."""

from __future__ import annotations

import pytest
import torch

from dciml.method.dropout import Dropout
from dciml.method.packed import Packing, Picks, Run

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
    rows = Picks(packing.places(x.device)[chosen]).pack(packing.pack(x), read)
    torch.testing.assert_close(read.pad(rows), expected)
    assert read.sequence_of_row(x.device).tolist() == [0, 0, 0, 1, 1, 2, 2, 2, 3]
    assert Packing.full(3, 3).at(chosen) == Packing.full(4, 3)
    assert Packing.of(torch.ones(3, 3, dtype=torch.bool)) == Packing.full(3, 3)


@pytest.mark.parametrize("lengths", [[1, 1, 2, 3], [3, 1, 1, 2], [2, 2, 2], [3], []])
def test_runs_are_all_sequences_without_padding(lengths: list[int]) -> None:
    runs = Run.all_of(lengths)
    mask = torch.arange(3) < torch.tensor(lengths, dtype=torch.int64)[:, None]
    packing, x = Packing.of(mask, runs), torch.randn(len(lengths), 3, 4)
    rows, picks = packing.pack(x), Picks(torch.arange(3 * len(lengths)).reshape(-1, 3), runs)
    assert [run.length for run in runs for _ in range(*run.sequences.indices(len(lengths)))] == lengths
    for run in runs:
        expected = x[run.sequences, : run.length]
        assert torch.equal(packing.take(rows, run), expected)
        assert torch.equal(picks.take(x.flatten(0, 1), run), expected)


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
