import math

import pytest
import torch
from torch.nn import functional as F

from dciml.method.grounding import log_gaussian
from dciml.method.layers import Attention, GaussianAttentionBlock, attend_written_out, gaussian_window
from dciml.method.packed import Packing


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
    packing, rows = Packing.full(3, 5), x.flatten(0, 1)
    found = attention((rows, packing), (rows, packing), g.log()[:, None], packing)
    torch.testing.assert_close(packing.pad(found), expected)


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
    attention, packing = Attention(8, 2), Packing.full(3, 5)
    rows, bias = torch.randn(15, 8), None if causal else torch.randn(3, 1, 5)
    expected = attention((rows, packing), (rows, packing), bias, packing)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = attention((rows, packing), (rows, packing), bias, packing)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), expected, atol=0.02, rtol=0.02)


@pytest.mark.parametrize("width", [0.5, 1.0, 5.0])
def test_gaussian_block_equals_slow_definition(width: float) -> None:
    torch.manual_seed(0)
    block = GaussianAttentionBlock(8, 2, width, dropout=0.0).eval()
    x, lengths = torch.randn(2, 6, 8), [6, 4]
    mask = torch.tensor([[j < n for j in range(6)] for n in lengths])
    packing = Packing.of(mask)
    out = packing.pad(block(packing.pack(x), packing))
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


def test_one_row_that_asks_gets_what_attention_gives_it() -> None:
    torch.manual_seed(0)
    attention, packing = Attention(8, 2).double(), Packing.full(3, 5)
    x = torch.randn(3, 5, 8, dtype=torch.float64)
    bias = torch.tensor([[0.0] * 5, [0.0, 0.0, -1e9, -1e9, -1e9], [-0.5, 0.0, 1.0, 0.0, -1e9]])
    asking = x[:, 1]
    single = Packing.full(3, 1)
    expected = attention((asking, single), (x.flatten(0, 1), packing), bias[:, None], single)
    torch.testing.assert_close(attention.attend_one(asking, x, bias), expected, atol=1e-7, rtol=1e-6)
