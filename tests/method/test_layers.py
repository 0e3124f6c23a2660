import math
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from dciml.method.fast import Sequences
from dciml.method.grounding import log_gaussian
from dciml.method.layers import (
    Attention,
    Dropout,
    GaussianAttentionBlock,
    Stack,
    as_teacher,
    attend_written_out,
    gaussian_window,
    propagate,
)


def test_gaussian_bias_equals_reweighted_softmax() -> None:
    """The slow definition: softmax, times g, divided by the new sum."""
    torch.manual_seed(0)
    attention = Attention(8, 2).double()
    x = torch.randn(3, 5, 8, dtype=torch.float64)
    g = torch.rand(3, 5, dtype=torch.float64) + 0.01
    q, (k, v) = attention.query(x), attention.key_value(x).chunk(2, dim=-1)
    heads = []
    for h in range(2):
        part = slice(4 * h, 4 * h + 4)
        weights = torch.softmax(q[..., part] @ k[..., part].transpose(1, 2) / 2.0, dim=-1) * g[:, None, :]
        heads.append(weights / weights.sum(dim=-1, keepdim=True) @ v[..., part])
    expected = attention.out(torch.cat(heads, dim=-1))
    asking = Sequences.full(x)
    found = attention(asking, replace(asking, log_weights=g.log()))
    torch.testing.assert_close(asking.pad(found), expected)


def test_attention_written_out_equals_the_fused_kernel_with_gradients() -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(3, 2, n, 4, dtype=torch.float64, requires_grad=True) for n in (5, 6, 6))
    bias = torch.randn(3, 1, 6, dtype=torch.float64, requires_grad=True)
    found = attend_written_out(q, k, v, bias)
    expected = F.scaled_dot_product_attention(q, k, v, bias[:, None])
    torch.testing.assert_close(found, expected)
    inputs, weights = (q, k, v, bias), torch.randn_like(found)
    for a, b in zip(
        torch.autograd.grad((found * weights).sum(), inputs),
        torch.autograd.grad((expected * weights).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("causal", [True, False])
def test_attention_in_half_precision_is_near_that_in_float32(causal: bool) -> None:
    torch.manual_seed(0)
    attention, asking = Attention(8, 2), Sequences.full(torch.randn(3, 5, 8))
    asked = None if causal else replace(asking, log_weights=torch.randn(3, 5))
    expected = attention(asking, asked)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = attention(asking, asked)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), expected, atol=0.02, rtol=0.02)


@pytest.mark.parametrize("width", [0.5, 1.0, 5.0])
def test_gaussian_block_equals_slow_definition(width: float) -> None:
    torch.manual_seed(0)
    block = GaussianAttentionBlock(8, 2, width, dropout=0.0).eval()
    x, lengths = torch.randn(2, 6, 8), [6, 4]
    mask = torch.tensor([[j < n for j in range(6)] for n in lengths])
    found = block(Sequences.of(x, mask))
    out = found.pad(found.rows)
    for b, n in enumerate(lengths):
        q, k, v = block.query_key_value(x[b, :n]).chunk(3, dim=-1)
        rows = torch.zeros(n, 8)
        for h in range(2):
            part = slice(4 * h, 4 * h + 4)
            for i in range(n):
                scores = torch.stack(
                    [
                        (q[i, part] @ k[j, part])
                        / 2.0
                        * math.exp(-0.5 * (((i - j) / (n - 1)) / (width / 9)) ** 2)
                        for j in range(n)
                    ]
                )
                rows[i, part] = torch.softmax(scores, dim=0) @ v[:, part]
        expected = block.norm(x[b, :n] + block.out(rows))
        torch.testing.assert_close(out[b, :n], expected, atol=1e-5, rtol=1e-5)


def test_gaussian_window_is_none_for_one_row() -> None:
    assert gaussian_window(torch.tensor([1.0]), 1, 0.5).item() == 1.0


def test_log_gaussian_peaks_at_its_centre() -> None:
    log_g = log_gaussian(torch.tensor([0.5]), torch.tensor([0.1]), 33)
    assert log_g.argmax().item() == 16
    assert log_g.max().item() == pytest.approx(0.0, abs=1e-6)
    assert log_g[0, 0].item() == pytest.approx(-12.5, rel=1e-4)


def test_attention_refuses_a_width_that_heads_do_not_divide() -> None:
    with pytest.raises(ValueError, match="multiple"):
        Attention(10, 4)


LENGTHS = torch.tensor([5, 2, 4])


def stack_of(layers: int) -> Stack:
    torch.manual_seed(0)
    return Stack(layers, 8, 2, dropout=0.0).double().eval()


def padded(length: int, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(len(lengths), length, 8, dtype=torch.float64)
    return x, torch.arange(length) < lengths[:, None]


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_reading_beside_equals_reading_copies(layers: int) -> None:
    """The first self-attention runs once a sequence, however many memories it is read beside."""
    stack, reads = stack_of(layers), torch.tensor([2, 0, 2, 1])
    x, mask = padded(5, LENGTHS)
    memory = Sequences.of(*padded(3, torch.tensor([3, 1, 2, 3])))
    memory = replace(memory, log_weights=torch.randn(4, 3) + memory.bias[:, 0])
    expected = stack(Sequences.of(x[reads], mask[reads]), memory)
    found = stack.read_beside(Sequences.of(x, mask), memory, reads)
    torch.testing.assert_close(found.rows, expected.rows)


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_the_end_of_a_stack_is_the_last_row_of_all_of_it(layers: int) -> None:
    """Begun once a video, read by several queries; the last layer runs for one row."""
    stack, owner = stack_of(layers), torch.tensor([1, 1, 0, 2])
    x, mask = padded(5, LENGTHS)
    memory = Sequences.of(*padded(3, torch.tensor([3, 1, 2, 3])))
    whole = stack(Sequences.of(x[owner], mask[owner]), memory)
    begun = stack.begin(Sequences.of(x, mask))
    found = stack.end(Sequences.shared(begun.pad(begun.rows), mask, owner), memory)
    torch.testing.assert_close(found, whole.pad(whole.rows)[torch.arange(4), LENGTHS[owner] - 1])


def test_a_teacher_has_no_gradient_and_no_dropout_and_goes_back_to_its_mode() -> None:
    layer = torch.nn.Sequential(torch.nn.Linear(3, 3), Dropout(0.5)).train()
    x = torch.randn(2, 3)
    with as_teacher(layer):
        assert not layer[1].training
        assert torch.equal(layer(x), layer(x))
        assert not layer(x).requires_grad
    assert layer[1].training
    assert layer(x).requires_grad
    with pytest.raises(KeyError), as_teacher(layer):
        raise KeyError
    assert layer.training
    with as_teacher(layer.eval()):
        pass
    assert not layer.training


def test_propagation_equals_the_series_it_sums() -> None:
    """(1 − b)·Σ bᵏ·Âᵏ·X, by hand."""
    x = F.normalize(torch.randn(2, 6, 5, generator=torch.Generator().manual_seed(0)), dim=-1)
    found = propagate(x, 0.6, 0.3)
    for row, own in enumerate(x):
        near = torch.tensor([[math.exp(-abs(i - j) / 6 / 0.3) for j in range(6)] for i in range(6)])
        alike = (own @ own.T).clamp(min=0) * near
        degree = alike.sum(dim=1)
        alike = alike / (degree[:, None] * degree[None]).sqrt()
        total, power = torch.zeros_like(own), own
        for k in range(200):
            total = total + 0.4 * 0.6**k * power
            power = alike @ power
        torch.testing.assert_close(found[row], F.normalize(total, dim=-1))


def test_propagation_of_nothing_and_of_rows_of_zeros() -> None:
    x = F.normalize(torch.randn(1, 4, 3), dim=-1)
    assert propagate(x, 0.0, 0.2) is x
    x = torch.cat([x[:, :2], torch.zeros(1, 2, 3)], dim=1)
    found = propagate(x, 0.5, 0.2)
    assert found.isfinite().all()
    assert (found[:, 2:] == 0).all()
