"""Attention, as both branches use it: plain, scaled by a Gaussian window, and in decoder layers."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from dciml.masks import causal_bias, padding_bias
from dciml.models.dropout import Dropout
from dciml.models.packing import Packing, Picks
from dciml.models.support import Memory

Asking = Float[Tensor, "batch heads queries head"]
Asked = Float[Tensor, "batch heads keys head"]


def split_heads(
    x: Float[Tensor, "batch length width"], heads: int
) -> Float[Tensor, "batch heads length head"]:
    """(batch, length, heads · head) → (batch, heads, length, head)."""
    return x.reshape(*x.shape[:-1], heads, -1).transpose(1, 2)


def merge_heads(x: Float[Tensor, "batch heads length head"]) -> Float[Tensor, "batch length width"]:
    """The inverse of `split_heads`."""
    return x.transpose(1, 2).flatten(-2)


def attention_written_out(
    q: Asking, k: Asked, v: Asked, bias: Float[Tensor, "#batch #queries keys"]
) -> Asking:
    """What the fused kernel gives, as two batched products with a softmax between them.

    On a CPU the fused kernel does short sequences no faster with two threads than with one. With two threads this takes
    half its time there without gradients, and twice its time with them; with one thread the kernel is the faster.
    """
    heads = q.shape[1]
    asking, asked, values = (part.flatten(0, 1) for part in (q, k, v))
    by_head = bias.repeat_interleave(heads, dim=0) if len(bias) > 1 else bias
    scores = torch.baddbmm(
        by_head.to(q.dtype), asking, asked.transpose(1, 2), alpha=1 / math.sqrt(q.shape[-1])
    )
    return torch.bmm(torch.softmax(scores, dim=-1), values).reshape(q.shape)


class Attention(nn.Module):
    """Multi-head attention with an additive bias on its scores.

    Multiplying the attention by positive weights g and normalising again is the same as adding log g to the scores:
    softmax(a)·g / Σ softmax(a)·g = softmax(a + log g). So the Gaussian re-weighting of the grounding branch
    (METHOD §3) is a bias, and the fused kernel serves it. That kernel has no dropout on a CPU, so there is none on
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

    def project_queries(self, rows: Float[Tensor, "rows width"], layout: Packing | Picks) -> Asking:
        """What asks, by head."""
        return split_heads(layout.pad(self.query(rows)), self.heads)

    def project_keys(self, rows: Float[Tensor, "rows width"], layout: Packing | Picks) -> tuple[Asked, Asked]:
        """What is asked, keys and values, by head."""
        keys, values = layout.pad(self.key_value(rows)).chunk(2, dim=-1)
        return split_heads(keys, self.heads), split_heads(values, self.heads)

    def attend(
        self,
        q: Asking,
        keys: tuple[Asked, Asked],
        bias: Float[Tensor, "#batch #queries keys"] | None,
        packing: Packing,
    ) -> Float[Tensor, "rows width"]:
        """Attention of projected rows; without a bias it is causal: position i sees positions ≤ i."""
        if q.device.type == "cpu" and torch.get_num_threads() > 1 and not torch.is_grad_enabled():
            mixed = attention_written_out(
                q, *keys, causal_bias(q.shape[2], q.device)[None] if bias is None else bias
            )
        else:
            mask = None if bias is None else bias[:, None].to(q.dtype)
            mixed = F.scaled_dot_product_attention(q, *keys, mask, is_causal=bias is None)
        out: Tensor = self.out(packing.pack(merge_heads(mixed)))
        return out

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
    ) -> Float[Tensor, "rows width"]:
        """The first third of the layer. Padding stands at the end, so that no real row can see it.

        Args:
            bias: causal and more; None: causal.
        """
        attention = self.self_attention
        q, keys = attention.project_queries(x, packing), attention.project_keys(x, packing)
        return self.add(0, x, attention.attend(q, keys, bias, packing))

    def attend_memory(
        self, x: Float[Tensor, "rows width"], packing: Packing, memory: Memory
    ) -> Float[Tensor, "out width"]:
        """The second third: cross-attention, beside one or several sets of memories.

        Returns: packed as `packing.repeat(sets)`.
        """
        attention, sets = self.cross_attention, len(memory.bias) // packing.batch
        q, keys = attention.project_queries(x, packing), attention.project_keys(memory.rows, memory.layout)
        if sets > 1:
            q, x, packing = q.repeat(sets, 1, 1, 1), x.repeat(sets, 1), packing.repeat(sets)
        return self.add(1, x, attention.attend(q, keys, memory.bias, packing))

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
    """exp(−Δ²/(2σ²)), Δ the distance of two positions in unit time, σ = width/9 (METHOD §2; GMMFormer, AAAI 2024).

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

    def forward(
        self, x: Float[Tensor, "batch length hidden"], mask: Bool[Tensor, "batch length"]
    ) -> Float[Tensor, "batch length hidden"]:
        q, k, v = (split_heads(part, self.heads) for part in self.query_key_value(x).chunk(3, dim=-1))
        scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])  # (batch, heads, length, length)
        if self.width is not None:
            num_valid = mask.sum(dim=1).to(torch.float32)
            scores = scores * gaussian_window(num_valid, x.shape[1], self.width)[:, None].to(scores.dtype)
        weights = torch.softmax(scores.float() + padding_bias(mask)[:, None, None], dim=-1).to(v.dtype)
        update = self.out(merge_heads(self.dropout(weights) @ v))
        out: Tensor = self.norm(x + self.dropout(update))
        return out


class GaussianMixtureBlock(nn.Module):
    """Blocks with windows of different width, side by side; the mean of what they give."""

    def __init__(self, hidden: int, heads: int, widths: tuple[float | None, ...], dropout: float) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(GaussianAttentionBlock(hidden, heads, w, dropout) for w in widths)

    def forward(
        self, x: Float[Tensor, "batch length hidden"], mask: Bool[Tensor, "batch length"]
    ) -> Float[Tensor, "batch length hidden"]:
        return torch.stack([block(x, mask) for block in self.blocks]).mean(dim=0)


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
