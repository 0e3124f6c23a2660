"""The layers of both branches: plain attention, decoder layers and stacks, the Gaussian block, pooling."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from dciml.method import fast
from dciml.method.fast import PADDING, Packing, Sequences


@contextmanager
def as_teacher(module: nn.Module) -> Iterator[None]:
    """Run a module fixed: without gradients and without dropout. Afterwards it is in the mode that it was in."""
    was_training = module.training
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        module.train(was_training)


class Dropout(nn.Module):
    """As `torch.nn.Dropout`, by `fast.dropout`."""

    def __init__(self, probability: float) -> None:
        super().__init__()
        if not 0 <= probability < 1:
            raise ValueError(f"the probability of dropout must lie in [0, 1), not {probability}")
        self.probability = probability

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.probability == 0:
            return x
        return fast.dropout(x, self.probability)

    def extra_repr(self) -> str:
        return f"probability={self.probability}"


def causal_bias(length: int, device: torch.device) -> Float[Tensor, "length length"]:
    """0 on and below the diagonal, a very large negative number above: position i sees positions ≤ i."""
    later = torch.ones(length, length, dtype=torch.bool, device=device).triu(diagonal=1)
    return torch.zeros(length, length, device=device).masked_fill(later, PADDING)


def split_heads(
    x: Float[Tensor, "batch length width"], heads: int
) -> Float[Tensor, "batch heads length head"]:
    """(batch, length, heads · head) → (batch, heads, length, head)."""
    return x.reshape(*x.shape[:-1], heads, -1).transpose(1, 2)


def merge_heads(x: Float[Tensor, "batch heads length head"]) -> Float[Tensor, "batch length width"]:
    """The inverse of `split_heads`."""
    return x.transpose(1, 2).flatten(-2)


def attend(
    q: Float[Tensor, "batch heads queries head"],
    k: Float[Tensor, "batch heads keys head"],
    v: Float[Tensor, "batch heads keys head"],
    bias: Float[Tensor, "#batch #queries keys"] | None,
) -> Float[Tensor, "batch heads queries head"]:
    """softmax(q·k / √head + bias)·v, by the fused kernel where that is faster.

    Args:
        bias: None: causal, position i sees positions ≤ i.
    """
    # A CPU's fused kernel has no gradient for the bias, and takes three to seven times as long in bf16.
    falls_back = q.dtype == torch.bfloat16 or (bias is not None and bias.requires_grad)
    if falls_back and q.device.type == "cpu":
        return attend_written_out(q, k, v, causal_bias(q.shape[2], q.device)[None] if bias is None else bias)
    mask = None if bias is None else bias[:, None].to(q.dtype)
    return F.scaled_dot_product_attention(q, k, v, mask, is_causal=bias is None)


def attend_written_out(
    q: Float[Tensor, "batch heads queries head"],
    k: Float[Tensor, "batch heads keys head"],
    v: Float[Tensor, "batch heads keys head"],
    bias: Float[Tensor, "#batch #queries keys"],
) -> Float[Tensor, "batch heads queries head"]:
    """The same by its definition; less work than PyTorch's own fallback where the fused kernel cannot serve."""
    scores = (q / math.sqrt(q.shape[-1])) @ k.transpose(-2, -1) + bias[:, None]
    return torch.softmax(scores, dim=-1).to(v.dtype) @ v


class Attention(nn.Module):
    """Multi-head attention.

    Multiplying the attention by positive weights g and normalising again is the same as adding log g to the scores:
    softmax(a)·g / Σ softmax(a)·g = softmax(a + log g). So the Gaussian re-weighting of the grounding branch
    (METHOD §4.3) is a bias, and the fused kernel serves it. That kernel has no dropout on a CPU, so there is none on
    the attention weights; the layers drop what attention gives
    (docs/decisions/0011-no-dropout-on-attention-weights.md).
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width {width} is not a multiple of the number of heads {heads}")
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def forward(self, asking: Sequences, asked: Sequences | None = None) -> Float[Tensor, "real width"]:
        """What each real row of `asking` gets from the sequence beside its own in `asked`.

        Args:
            asked: None: `asking` itself, causally; position i sees positions ≤ i.
        """
        others = asking if asked is None else asked
        q = asking.pad(self.query(asking.rows))  # (sequences, length, width)
        k, v = others.pad(self.key_value(others.rows)).chunk(2, dim=-1)
        bias = self._causal(asking) if asked is None else asked.bias
        mixed = attend(
            split_heads(q, self.heads), split_heads(k, self.heads), split_heads(v, self.heads), bias
        )
        out: Tensor = self.out(asking.packing.pack(merge_heads(mixed)))
        return out

    @staticmethod
    def _causal(x: Sequences) -> Tensor | None:
        # Padding stands at the end, where no real row can see it.
        if x.log_weights is None:
            return None
        return causal_bias(x.packing.length, x.rows.device)[None] + x.bias


class DecoderLayer(nn.Module):
    """Causal self-attention, cross-attention to a memory, feed-forward; each with a residual and post-norm."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.self_attention = Attention(width, heads)
        self.cross_attention = Attention(width, heads)
        self.feed_forward = nn.Sequential(
            nn.Linear(width, 2 * width), nn.ReLU(inplace=True), Dropout(dropout), nn.Linear(2 * width, width)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.dropout = Dropout(dropout)

    def forward(self, x: Sequences, memory: Sequences | None = None) -> Sequences:
        """All three, or two without a memory."""
        x = self.attend_self(x)
        if memory is not None:
            x = self.attend_memory(x, memory)
        return self.feed(x)

    def attend_self(self, x: Sequences) -> Sequences:
        """The first third."""
        return self.add(0, x, self.self_attention(x))

    def attend_memory(self, x: Sequences, memory: Sequences) -> Sequences:
        """The second third: each sequence attends to the one beside it in the memory."""
        return self.add(1, x, self.cross_attention(x, memory))

    def feed(self, x: Sequences) -> Sequences:
        """The last third."""
        return self.add(2, x, self.feed_forward(x.real_rows()))

    def add(self, index: int, x: Sequences, update: Tensor) -> Sequences:
        """Dropout, residual and norm of one third."""
        return x.with_rows(self.norms[index](x.real_rows() + self.dropout(update)))


class Stack(nn.Module):
    """Decoder layers, one after the other; the frame stack and the word stack of the grounding branch are one each."""

    def __init__(self, layers: int, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList(DecoderLayer(width, heads, dropout) for _ in range(layers))

    def forward(self, x: Sequences, memory: Sequences | None = None) -> Sequences:
        """All layers; each sequence reads the one beside it in the memory."""
        return self._through(self._layers(), x, memory)

    def read_beside(self, x: Sequences, memory: Sequences, reads: Int[Tensor, " memories"]) -> Sequences:
        """`self(x.read_by(reads), memory)`: sequence `reads[i]` beside memory i.

        The first self-attention knows no memory, and runs once a sequence.
        """
        first, *others = self._layers()
        x = first.attend_self(x).read_by(reads)
        return self._through(others, first.feed(first.attend_memory(x, memory)), memory)

    def begin(self, x: Sequences) -> Sequences:
        """What `end` needs of sequences, whatever the memory: the first self-attention."""
        first, *others = self._layers()
        return first.attend_self(x) if others else x

    def end(self, begun: Sequences, memory: Sequences) -> Float[Tensor, "sequences width"]:
        """The last row of each sequence of `self(x, memory)`, where `begun` is `begin(x)`.

        The last layer runs for that row alone.
        """
        *others, last = self._layers()
        for index, layer in enumerate(others):
            begun = begun if index == 0 else layer.attend_self(begun)
            begun = layer.feed(layer.attend_memory(begun, memory))
        row = begun.last()
        row = last.add(0, row, last.self_attention(row, begun))  # the last row sees all
        return last.feed(last.attend_memory(row, memory)).rows

    def _layers(self) -> list[DecoderLayer]:
        return [layer for layer in self.layers if isinstance(layer, DecoderLayer)]

    @staticmethod
    def _through(layers: list[DecoderLayer], x: Sequences, memory: Sequences | None) -> Sequences:
        for layer in layers:
            x = layer(x, memory)
        return x


def gaussian_window(
    num_valid: Float[Tensor, " batch"], length: int, width: float
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

    def forward(self, x: Sequences) -> Sequences:
        q, k, v = (
            split_heads(part, self.heads) for part in x.pad(self.query_key_value(x.rows)).chunk(3, dim=-1)
        )
        scores = (q / math.sqrt(q.shape[-1])) @ k.transpose(-2, -1)  # (batch, heads, length, length)
        if self.width is not None:
            num_valid = x.packing.mask(scores.device).sum(dim=1).to(torch.float32)
            window = gaussian_window(num_valid, x.packing.length, self.width)
            scores = scores * window[:, None].to(scores.dtype)
        weights = torch.softmax(scores.float() + x.bias[:, None], dim=-1).to(v.dtype)
        update = self.out(x.packing.pack(merge_heads(self.dropout(weights) @ v)))
        return x.with_rows(self.norm(x.real_rows() + self.dropout(update)))


class GaussianMixtureBlock(nn.Module):
    """Blocks with windows of different width, side by side; the mean of what they give (METHOD §3.2)."""

    def __init__(self, hidden: int, heads: int, widths: tuple[float | None, ...], dropout: float) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(GaussianAttentionBlock(hidden, heads, w, dropout) for w in widths)

    def forward(self, x: Sequences) -> Sequences:
        return x.with_rows(torch.stack([block(x).rows for block in self.blocks]).mean(dim=0))


class AttentionPooling(nn.Module):
    """One learned scoring vector, softmax over the valid rows, weighted mean (METHOD §3.1)."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.score = nn.Linear(hidden, 1, bias=False)

    def forward(self, x: Sequences) -> Float[Tensor, "sequences hidden"]:
        padded = x.pad(x.rows)
        weights = torch.softmax(self.score(padded)[..., 0].float() + x.bias[:, 0], dim=-1)
        return (weights[..., None].to(padded.dtype) * padded).sum(dim=1)


def propagate(
    clips: Float[Tensor, "videos clips width"], share: float, reach_unit: float
) -> Float[Tensor, "videos clips width"]:
    """Each clip mixed with those of its video that look alike and are near: nothing is learned (METHOD §3.5).

    Y = (1 − b)·(I − b·Â)⁻¹·X with A = max(cos, 0)·exp(−|Δt| / τ) and Â = D^(−½)·A·D^(−½); rows of length 1 again.

    Args:
        clips: L2-normalised.
        share: b in [0, 1): how much of a clip comes from the others; 0 leaves all as it is.
        reach_unit: τ, in unit time.

    >>> propagate(torch.eye(2)[None], 0.5, 0.2).tolist()  # nothing is alike
    [[[1.0, 0.0], [0.0, 1.0]]]
    """
    if not share:
        return clips
    x = clips.float()
    place = torch.arange(x.shape[1], device=x.device) / x.shape[1]
    near = torch.exp(-(place[:, None] - place).abs() / reach_unit)
    alike = (x @ x.transpose(1, 2)).clamp(min=0) * near
    degree = alike.sum(dim=2).clamp(min=1e-12).rsqrt()
    alike = degree[:, :, None] * alike * degree[:, None, :]
    identity = torch.eye(x.shape[1], device=x.device)
    mixed, _ = torch.linalg.solve_ex(identity - share * alike, (1 - share) * x)  # never singular: no check
    return F.normalize(mixed, dim=-1)


class Whitening(nn.Module):
    """(x − mean) · matrix: what usually varies little counts as much as what varies much (ZCA; METHOD §3.6).

    Mean and matrix are of the training rows, see `fit`, and no loss reaches them; before that x stays as it is.

    Args:
        width: of the rows.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        # Beside the weights, so that they are kept and saved with them.
        self.mean = nn.Parameter(torch.zeros(width), requires_grad=False)
        self.matrix = nn.Parameter(torch.eye(width), requires_grad=False)

    @torch.no_grad()
    def fit(self, rows: Float[Tensor, "rows width"], shrink: float = 0.1) -> None:
        """Whiten like these rows, which come out about even in all directions.

        Args:
            shrink: added to each direction's variance, as a share of the mean variance, so that directions of pure
                noise do not grow without bound.
        """
        wide = rows.double()
        mean = wide.mean(dim=0)
        variances, directions = torch.linalg.eigh((wide - mean).t() @ (wide - mean) / len(wide))
        variances = variances.clamp(min=0)
        scale = (variances + (shrink * variances.mean()).clamp(min=1e-12)).rsqrt()
        self.mean.copy_(mean)
        self.matrix.copy_((directions * scale) @ directions.t())

    def forward(self, rows: Float[Tensor, "*shape width"]) -> Float[Tensor, "*shape width"]:
        whitened: Tensor = (rows - self.mean) @ self.matrix
        return whitened


def word_nll(
    states: Float[Tensor, "rows hidden"],
    word_ids: Int[Tensor, " rows"],
    packing: Packing,
    head: tuple[Float[Tensor, "vocabulary hidden"], Float[Tensor, " vocabulary"]],
    label_smoothing: float,
    word_weights: Float[Tensor, " rows"] | None = None,
) -> Float[Tensor, " sentences"]:
    """Mean over each sentence's words of the label-smoothed cross-entropy, in nats.

    Padding counts for nothing; where it was left out it never meets the vocabulary.

    Args:
        states, word_ids: the packed words of the sentences.
        head: weight and bias that turn a state into logits.
        word_weights: how much each word counts in the mean; None: all alike.
    """
    per_word = fast.linear_cross_entropy(states, word_ids, *head, label_smoothing)
    sentence = packing.sequence_of_row(per_word.device)
    zeros = per_word.new_zeros(packing.batch)
    weights = packing.only_real(torch.ones_like(per_word) if word_weights is None else word_weights)
    total = zeros.index_add(0, sentence, weights)
    return zeros.index_add(0, sentence, packing.only_real(per_word) * weights) / total.clamp(min=1)
