"""Attention, as both branches use it: plain, scaled by a Gaussian window, and in decoder layers."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from dciml.method.dropout import Dropout
from dciml.method.masks import causal_bias, padding_bias
from dciml.method.packed import Packing, Picks
from dciml.method.support import Memory


def split_heads(
    x: Float[Tensor, "batch length width"], heads: int
) -> Float[Tensor, "batch heads length head"]:
    """(batch, length, heads · head) → (batch, heads, length, head)."""
    return x.reshape(*x.shape[:-1], heads, -1).transpose(1, 2)


def merge_heads(x: Float[Tensor, "batch heads length head"]) -> Float[Tensor, "batch length width"]:
    """The inverse of `split_heads`."""
    return x.transpose(1, 2).flatten(-2)


def attend_written_out(
    q: Float[Tensor, "batch heads queries head"],
    k: Float[Tensor, "batch heads keys head"],
    v: Float[Tensor, "batch heads keys head"],
    bias: Float[Tensor, "#batch #queries keys"],
) -> Float[Tensor, "batch heads queries head"]:
    """softmax(q·k / √head + bias)·v.

    Where a fused kernel cannot serve, this is less work than PyTorch's own fallback, which scales both sides and looks
    for rows without any key.
    """
    scores = (q / math.sqrt(q.shape[-1])) @ k.transpose(-2, -1) + bias[:, None]
    return torch.softmax(scores, dim=-1).to(v.dtype) @ v


class Attention(nn.Module):
    """Multi-head attention with an additive bias on its scores.

    Multiplying the attention by positive weights g and normalising again is the same as adding log g to the scores:
    softmax(a)·g / Σ softmax(a)·g = softmax(a + log g). So the Gaussian re-weighting of the grounding branch
    (METHOD §4.3) is a bias, and the fused kernel serves it. That kernel has no dropout on a CPU, so there is none on
    the attention weights; the layers drop what attention gives.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width {width} is not a multiple of the number of heads {heads}")
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def forward(
        self,
        asking: tuple[Float[Tensor, "rows width"], Packing | Picks],
        asked: tuple[Float[Tensor, "others width"], Packing | Picks],
        bias: Float[Tensor, "#batch #queries keys"] | None,
        packing: Packing,
    ) -> Float[Tensor, "out width"]:
        """Attention between sequences of rows.

        Args:
            asking, asked: rows, and how they stand in sequences.
            bias: what is added to the scores; None: it is causal, position i sees positions ≤ i.
            packing: how the sequences that ask are packed when they have got their answer.
        """
        (rows, asks), (others, holds) = asking, asked
        q, kv = self.query(rows), self.key_value(others)
        if holds.runs is not None and bias is not None:
            mixed = self._attend_in_runs(q, asks, kv, holds, bias, packing)
        else:
            mixed = packing.pack(self._attend(asks.pad(q), holds.pad(kv), bias))
        out: Tensor = self.out(mixed)
        return out

    def _attend_in_runs(
        self,
        q: Tensor,
        asks: Packing | Picks,
        kv: Tensor,
        holds: Packing | Picks,
        bias: Tensor,
        packing: Packing,
    ) -> Float[Tensor, "rows width"]:
        """Sequences of one length need no padding. Those that ask are of the same lengths, or have no runs."""
        padded = asks.pad(q) if asks.runs is None else None
        found = []
        for run in holds.runs or ():
            own = asks.take(q, run) if padded is None else padded[run.sequences]
            limits = bias[run.sequences, : run.length, : run.length]
            found.append(self._attend(own, holds.take(kv, run), limits))
        if padded is not None:
            return packing.pack(torch.cat(found))
        return torch.cat([part.flatten(0, 1) for part in found])

    def _attend(
        self,
        q: Float[Tensor, "batch queries width"],
        kv: Float[Tensor, "batch keys both"],
        bias: Float[Tensor, "#batch #queries keys"] | None,
    ) -> Float[Tensor, "batch queries width"]:
        keys, values = kv.chunk(2, dim=-1)
        by_head = split_heads(q, self.heads), split_heads(keys, self.heads), split_heads(values, self.heads)
        # A CPU's fused kernel has no gradient for the bias, and takes three to seven times as long in bf16.
        falls_back = q.dtype == torch.bfloat16 or (bias is not None and bias.requires_grad)
        if falls_back and q.device.type == "cpu":
            own = causal_bias(q.shape[1], q.device)[None] if bias is None else bias
            return merge_heads(attend_written_out(*by_head, own))
        mask = None if bias is None else bias[:, None].to(q.dtype)
        return merge_heads(F.scaled_dot_product_attention(*by_head, mask, is_causal=bias is None))

    def attend_one(
        self,
        asking: Float[Tensor, "batch width"],
        rows: Float[Tensor, "batch length width"],
        bias: Float[Tensor, "batch length"],
    ) -> Float[Tensor, "batch width"]:
        """Attention of one row of each sequence to all its rows, without their keys and values.

        (W q)·x = q·(Wᵀ x), and a mean of values is the value of a mean: with one row that asks, it is cheaper to turn
        what it asks than all that is asked. The bias of the keys moves all scores alike and falls out of the softmax.
        """
        width, head = rows.shape[-1], rows.shape[-1] // self.heads
        key, value = self.key_value.weight.reshape(2, self.heads, head, width)
        q = self.query(asking).reshape(-1, self.heads, head)
        turned = torch.einsum("bhd,hdw->bhw", q, key)
        scores = turned @ rows.transpose(1, 2) / math.sqrt(head)  # (batch, heads, length)
        weights = torch.softmax(scores.float() + bias[:, None], dim=-1).to(rows.dtype)
        mixed = torch.einsum("bhw,hdw->bhd", weights @ rows, value).flatten(1)
        out: Tensor = self.out(mixed + self.key_value.bias[width:])
        return out


class DecoderLayer(nn.Module):
    """Causal self-attention, cross-attention when there is a memory, feed-forward; each with a residual and post-norm.

    It works on packed rows; attention alone sees them padded.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.self_attention = Attention(width, heads)
        self.cross_attention = Attention(width, heads)
        self.feed_forward = nn.Sequential(
            nn.Linear(width, 2 * width), nn.ReLU(inplace=True), Dropout(dropout), nn.Linear(2 * width, width)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.dropout = Dropout(dropout)

    def self_attend(
        self,
        x: Float[Tensor, "rows width"],
        packing: Packing,
        bias: Float[Tensor, "#batch length length"] | None = None,
        picks: Picks | None = None,
    ) -> Float[Tensor, "out width"]:
        """The first third of the layer. Padding stands at the end, so that no real row can see it.

        Args:
            bias: causal and more; None: causal.
            picks: what the sequences read of `x`; None: `x` is them, packed.
        """
        own = x, picks or packing
        return self.add(
            0, picks.pack(x, packing) if picks else x, self.self_attention(own, own, bias, packing)
        )

    def attend_memory(
        self,
        x: Float[Tensor, "rows width"],
        packing: Packing,
        memory: Memory,
        picks: Picks | None = None,
    ) -> Float[Tensor, "out width"]:
        """The second third: cross-attention, each sequence beside its own memory.

        Args:
            picks: what the sequences read of `x`; None: `x` is them, packed.
        """
        asked = memory.rows, memory.layout
        update = self.cross_attention((x, picks or packing), asked, memory.bias, packing)
        return self.add(1, picks.pack(x, packing) if picks else x, update)

    def feed(self, x: Float[Tensor, "rows width"]) -> Float[Tensor, "rows width"]:
        """The last third: feed-forward."""
        return self.add(2, x, self.feed_forward(x))

    def add(self, index: int, x: Tensor, update: Tensor) -> Tensor:
        """Dropout, residual and norm of one third."""
        out: Tensor = self.norms[index](x + self.dropout(update))
        return out


def gaussian_window(
    num_valid: Float[Tensor, "batch"], length: int, width: float
) -> Float[Tensor, "batch length length"]:
    """exp(−Δ²/(2σ²)), Δ the distance of two positions in unit time, σ = width/9 (METHOD §3.2; GMMFormer, AAAI 2024).

    Unit time is counted over the video's own valid rows, so that padding and batch mates change nothing (the
    published code counts over the longest video of the batch).
    """
    steps = torch.arange(length, device=num_valid.device, dtype=torch.float32)
    distance = (steps[:, None] - steps[None, :])[None] / (num_valid - 1).clamp(min=1)[:, None, None]
    return torch.exp(-0.5 * (distance / (width / 9.0)) ** 2)


class GaussianAttentionBlock(nn.Module):
    """Self-attention whose scores are multiplied by a Gaussian window before the softmax; `width=None`: no window."""

    def __init__(self, hidden: int, heads: int, width: float | None, dropout: float) -> None:
        super().__init__()
        self.heads, self.width = heads, width
        self.query_key_value = nn.Linear(hidden, 3 * hidden)
        self.out = nn.Linear(hidden, hidden)
        self.norm = nn.LayerNorm(hidden)
        self.dropout = Dropout(dropout)

    def forward(self, x: Float[Tensor, "rows hidden"], packing: Packing) -> Float[Tensor, "rows hidden"]:
        """Packed rows in, packed rows out; only the attention itself sees padding."""
        qkv, mask = packing.pad(self.query_key_value(x)), packing.mask(x.device)
        q, k, v = (split_heads(part, self.heads) for part in qkv.chunk(3, dim=-1))
        scores = (q / math.sqrt(q.shape[-1])) @ k.transpose(-2, -1)  # (batch, heads, length, length)
        if self.width is not None:
            num_valid = mask.sum(dim=1).to(torch.float32)
            scores = scores * gaussian_window(num_valid, packing.length, self.width)[:, None].to(scores.dtype)
        weights = torch.softmax(scores.float() + padding_bias(mask)[:, None, None], dim=-1).to(v.dtype)
        update = self.out(packing.pack(merge_heads(self.dropout(weights) @ v)))
        out: Tensor = self.norm(x + self.dropout(update))
        return out


class GaussianMixtureBlock(nn.Module):
    """Blocks with windows of different width, side by side; the mean of what they give."""

    def __init__(self, hidden: int, heads: int, widths: tuple[float | None, ...], dropout: float) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(GaussianAttentionBlock(hidden, heads, w, dropout) for w in widths)

    def forward(self, x: Float[Tensor, "rows hidden"], packing: Packing) -> Float[Tensor, "rows hidden"]:
        return torch.stack([block(x, packing) for block in self.blocks]).mean(dim=0)


class AttentionPooling(nn.Module):
    """One learned scoring vector, softmax over the valid rows, weighted mean."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.score = nn.Linear(hidden, 1, bias=False)

    def forward(
        self, x: Float[Tensor, "batch length hidden"], mask: Bool[Tensor, "batch length"]
    ) -> Float[Tensor, "batch hidden"]:
        weights = torch.softmax(self.score(x)[..., 0].float() + padding_bias(mask), dim=-1)
        return (weights[..., None].to(x.dtype) * x).sum(dim=1)
