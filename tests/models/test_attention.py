import math

import pytest
import torch

from dciml.models.attention import Attention, GaussianAttentionBlock, attention_written_out, gaussian_window
from dciml.models.grounding import log_gaussian
from dciml.models.packing import Packing


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
    asked = attention.project_keys(rows, packing)
    found = attention.attend(attention.project_queries(rows, packing), asked, g.log()[:, None], packing)
    torch.testing.assert_close(packing.pad(found), expected)


@pytest.mark.parametrize("width", [0.5, 1.0, 5.0])
def test_gaussian_block_equals_slow_definition(width: float) -> None:
    torch.manual_seed(0)
    block = GaussianAttentionBlock(8, 2, width, dropout=0.0).eval()
    x, lengths = torch.randn(2, 6, 8), [6, 4]
    mask = torch.tensor([[j < n for j in range(6)] for n in lengths])
    out = block(x, mask)
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
    keys = attention.project_keys(x.flatten(0, 1), packing)
    asking = x[:, 1]
    single = Packing.full(3, 1)
    expected = attention.attend(attention.project_queries(asking, single), keys, bias[:, None], single)
    torch.testing.assert_close(attention.attend_one(asking, x, bias), expected, atol=1e-7, rtol=1e-6)


@pytest.mark.parametrize("shape", [None, (1, 5, 5), (3, 1, 5), (3, 5, 5)])
def test_attention_is_the_same_written_out(
    shape: tuple[int, int, int] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With gradients it runs the fused kernel, with two threads and without them it is written out."""
    torch.manual_seed(0)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    calls: list[torch.Tensor] = []

    def watched(*arguments: torch.Tensor) -> torch.Tensor:
        calls.append(attention_written_out(*arguments))
        return calls[-1]

    monkeypatch.setattr("dciml.models.attention.attention_written_out", watched)
    attention, packing = Attention(8, 2), Packing.full(3, 5)
    rows, bias = torch.randn(15, 8), None if shape is None else torch.randn(shape)

    def attended() -> torch.Tensor:
        q, keys = attention.project_queries(rows, packing), attention.project_keys(rows, packing)
        return attention.attend(q, keys, bias, packing)

    with torch.no_grad():
        written_out = attended()
    assert len(calls) == 1
    torch.testing.assert_close(attended(), written_out)
    assert len(calls) == 1
