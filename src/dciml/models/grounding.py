"""The grounding branch: when? Gaussian proposals, judged by how well each lets the sentence be reconstructed.

METHOD §3; CPL (CVPR 2022). Only the best proposal's NLL enters the losses. So `select` finds it without gradients
(all proposals, no dropout), and `forward` computes that one, the two beside it and the whole video with gradients.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from dciml.batching import Batch, QueryBatch
from dciml.masks import causal_bias, padding_bias
from dciml.models.attention import DecoderLayer
from dciml.models.word_loss import word_nll
from dciml.outputs import GroundingOutput, Proposals, Selection


def sinusoids(positions: Float[Tensor, "*shape"], width: int) -> Float[Tensor, "*shape width"]:
    """Sinusoidal codes of real-valued positions (Vaswani et al., 2017)."""
    steps = torch.arange(width // 2, device=positions.device, dtype=torch.float32)
    angles = positions[..., None] * torch.exp(steps * (-math.log(10_000.0) / (width // 2)))
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


def log_gaussian(
    center: Float[Tensor, "*shape"], sigma: Float[Tensor, "*shape"], length: int
) -> Float[Tensor, "*shape length"]:
    """log g(t) = −(t − c)²/(2σ²) at `length` positions spread evenly over [0, 1]; 0 at the peak."""
    t = torch.linspace(0, 1, length, device=center.device)
    return -0.5 * ((t - center[..., None]) / sigma[..., None]) ** 2


class Stack(nn.Module):
    """Decoder layers; an encoder when there is no memory."""

    def __init__(self, layers: int, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList(DecoderLayer(width, heads, dropout) for _ in range(layers))

    def forward(
        self,
        x: Float[Tensor, "batch length width"],
        bias: Float[Tensor, "#batch #length length"],
        memory: Float[Tensor, "batch keys width"] | None = None,
        memory_bias: Float[Tensor, "#batch #length keys"] | None = None,
    ) -> Float[Tensor, "batch length width"]:
        for layer in self.layers:
            assert isinstance(layer, DecoderLayer)
            x = layer.attend_memory(layer.self_attend(x, bias), memory, memory_bias)
        return x

    def last_row(
        self,
        x: Float[Tensor, "videos length width"],
        bias: Float[Tensor, "videos length length"],
        video_of_query: Int[Tensor, "queries"],
        memory: Float[Tensor, "queries keys width"],
        memory_bias: Float[Tensor, "queries 1 keys"],
    ) -> Float[Tensor, "queries width"]:
        """The last row of what `forward` gives for each query's video, without the work that no one reads.

        The first self-attention does not know the sentence and runs once a video; the last layer runs for one row.
        """
        for index, layer in enumerate(self.layers):
            assert isinstance(layer, DecoderLayer)
            last = index == len(self.layers) - 1
            x = layer.self_attend(x, bias, last_only=last)
            if index == 0:
                x, bias = x[video_of_query], bias[video_of_query]
            x = layer.attend_memory(x, memory, memory_bias)
        return x[:, -1]


class GroundingBranch(nn.Module):
    """Proposals and reconstruction with one dual transformer (a frame stack and a word stack).

    Args:
        video_width, static_width: widths of the frame rows and of the static word rows.
        vocabulary_size: words that can be reconstructed, `<unk>` included.
        num_positions: frames that the reconstruction reads (32).
        gaussian_sigma: a proposal's σ is width / `gaussian_sigma` (9); a negative's width / (`gaussian_sigma` / 2).
        label_smoothing: of the word loss.
    """

    def __init__(
        self,
        *,
        video_width: int,
        static_width: int,
        vocabulary_size: int,
        hidden: int = 256,
        heads: int = 4,
        layers: int = 3,
        num_proposals: int = 10,
        num_positions: int = 32,
        max_words: int = 30,
        gaussian_sigma: float = 9.0,
        min_width: float = 0.01,
        label_smoothing: float = 0.1,
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        self.hidden, self.num_positions, self.max_words = hidden, num_positions, max_words
        self.gaussian_sigma, self.min_width, self.label_smoothing = gaussian_sigma, min_width, label_smoothing
        self.frame_project = nn.Linear(video_width, hidden)
        self.word_project = nn.Linear(static_width, hidden)
        self.prediction_row = nn.Parameter(torch.randn(hidden) * 0.02)
        self.start_word = nn.Parameter(torch.randn(hidden) * 0.02)
        self.hidden_word = nn.Parameter(torch.randn(hidden) * 0.02)
        self.frame_stack = Stack(layers, hidden, heads, dropout)
        self.word_stack = Stack(layers, hidden, heads, dropout)
        self.span_head = nn.Linear(hidden, 2 * num_proposals)
        self.vocabulary_head = nn.Linear(hidden, vocabulary_size)
        self.dropout = nn.Dropout(dropout)

    def project_frames(self, batch: Batch) -> Float[Tensor, "videos frames hidden"]:
        """Frame rows in the branch's width, with the sinusoidal code of their unit time."""
        counts = batch.videos.frame_mask.sum(dim=1, keepdim=True)
        steps = torch.arange(batch.videos.frames.shape[1], device=counts.device)
        unit = steps[None] / (counts - 1).clamp(min=1)
        out: Tensor = self.dropout(self.frame_project(batch.videos.frames)) + sinusoids(
            unit * 100, self.hidden
        )
        return out

    def propose(self, batch: Batch, frames: Float[Tensor, "videos frames hidden"]) -> Proposals:
        """Pass 1: the [PRED] row reads the frames and the encoded words and gives P (centre, width) pairs."""
        words, word_bias = self._encoded_words(batch.queries)
        prediction = self.prediction_row.expand(len(frames), 1, -1)
        rows = torch.cat([frames, prediction], dim=1)  # (videos, frames + 1, hidden)
        mask = nn.functional.pad(batch.videos.frame_mask, (0, 1), value=True)
        bias = causal_bias(rows.shape[1], rows.device)[None] + padding_bias(mask)[:, None]
        last = self.frame_stack.last_row(rows, bias, batch.video_of_query, words, word_bias)
        centers, widths = torch.sigmoid(self.span_head(last).float()).chunk(2, dim=-1)
        return Proposals(centers, widths.clamp(min=self.min_width))

    def _encoded_words(self, queries: QueryBatch) -> tuple[Tensor, Tensor]:
        projected = self._with_start(self.dropout(self.word_project(queries.static_words)))
        mask = nn.functional.pad(queries.word_mask, (1, 0), value=True)
        bias = causal_bias(projected.shape[1], projected.device)[None] + padding_bias(mask)[:, None]
        return self.word_stack(projected, bias), padding_bias(mask)[:, None]

    def _with_start(self, words: Float[Tensor, "queries words hidden"]) -> Tensor:
        start = self.start_word.to(words.dtype).expand(len(words), 1, -1)
        rows = torch.cat([start, words], dim=1)
        return rows + sinusoids(torch.arange(rows.shape[1], device=rows.device).float(), self.hidden)

    def sampled_frames(
        self, batch: Batch, frames: Float[Tensor, "videos frames hidden"]
    ) -> Float[Tensor, "videos positions hidden"]:
        """The frames nearest to `num_positions` points spread evenly over the valid rows."""
        counts = batch.videos.frame_mask.sum(dim=1)
        unit = torch.linspace(0, 1, self.num_positions, device=counts.device)
        index = (unit[None] * (counts - 1)[:, None]).round().long()
        return frames.gather(1, index[..., None].expand(-1, -1, frames.shape[-1]))

    def encode_under(
        self,
        sampled: Float[Tensor, "batch positions hidden"],
        log_weights: Float[Tensor, "batch positions"] | None,
    ) -> Float[Tensor, "batch positions hidden"]:
        """Pass 2, frames: self-attention re-weighted by a Gaussian (None: the whole video evenly)."""
        bias = causal_bias(self.num_positions, sampled.device)[None]
        if log_weights is not None:
            bias = bias + log_weights[:, None]
        out: Tensor = self.frame_stack(sampled, bias)
        return out

    def reconstruct(
        self,
        queries: QueryBatch,
        encoded: Float[Tensor, "queries positions hidden"],
        log_weights: Float[Tensor, "queries positions"] | None,
    ) -> Float[Tensor, "queries words hidden"]:
        """Pass 2, words: what stands at position i is computed from the start vector and words before i only.

        Hidden words are replaced by a learned vector. The rows are static, so no word carries another's meaning.
        """
        words = self.dropout(self.word_project(queries.static_words))
        words = torch.where(queries.hidden_words[..., None], self.hidden_word.to(words.dtype), words)
        shifted = self._with_start(words[:, :-1])
        # Causal attention and padding at the end: no valid position can see a padded one.
        bias = causal_bias(shifted.shape[1], shifted.device)[None]
        memory_bias = None if log_weights is None else log_weights[:, None]
        out: Tensor = self.word_stack(shifted, bias, encoded, memory_bias)
        return out

    def sentence_nll(
        self,
        queries: QueryBatch,
        sampled: Float[Tensor, "queries positions hidden"],
        log_weights: Float[Tensor, "queries positions"] | None,
    ) -> Float[Tensor, "queries"]:
        """Mean negative log-likelihood of each sentence's words, nats, given frames under a Gaussian."""
        encoded = self.encode_under(sampled, log_weights)
        return self._nll(queries, self.reconstruct(queries, encoded, log_weights))

    def _nll(self, queries: QueryBatch, states: Tensor) -> Float[Tensor, "queries"]:
        return word_nll(
            states,
            queries.word_ids,
            queries.word_mask,
            self.vocabulary_head.weight,
            self.vocabulary_head.bias,
            self.label_smoothing,
        )

    def log_weights(self, proposals: Proposals) -> Float[Tensor, "queries proposals positions"]:
        """log g_p of each proposal, σ = width / 9."""
        return log_gaussian(proposals.centers, proposals.widths / self.gaussian_sigma, self.num_positions)

    def negative_log_weights(
        self, best: Proposals, easiness: float
    ) -> tuple[Float[Tensor, "queries positions"], Float[Tensor, "queries positions"]]:
        """Gaussians in the room left and right of the best proposal (METHOD §3, negatives).

        Args:
            best: (queries, 1).
            easiness: f in [0, 1]: how far the negatives reach from the video's ends towards the proposal.
        """
        center, width = best.centers[:, 0], best.widths[:, 0]
        left = easiness * (center - width / 2).clamp(min=0)
        right = easiness * (1 - center - width / 2).clamp(min=0)
        scale = self.gaussian_sigma / 2
        wide_left, wide_right = ((room / 2).clamp(min=self.min_width) / scale for room in (left, right))
        return (
            log_gaussian(left / 2, wide_left, self.num_positions),
            log_gaussian(1 - right / 2, wide_right, self.num_positions),
        )

    @torch.no_grad()
    def select(self, batch: Batch) -> Selection:
        """Judge every proposal, without gradients and without dropout."""
        was_training = self.training
        self.eval()
        try:
            frames = self.project_frames(batch)
            proposals = self.propose(batch, frames)
            sampled = self.sampled_frames(batch, frames)[batch.video_of_query]
            log_weights = self.log_weights(proposals)
            nll = torch.stack(
                [
                    self.sentence_nll(batch.queries, sampled, log_weights[:, p])
                    for p in range(log_weights.shape[1])
                ],
                dim=1,
            )
        finally:
            self.train(was_training)
        return Selection(proposals, nll, nll.argmin(dim=1))

    def forward(self, batch: Batch, best_index: Int[Tensor, "queries"], easiness: float) -> GroundingOutput:
        """Proposals and the four NLLs that the losses need, with gradients.

        Args:
            best_index: of each query's best proposal, from `select` with the same weights.
            easiness: see `negative_log_weights`.
        """
        frames = self.project_frames(batch)
        proposals = self.propose(batch, frames)
        best = proposals.at(best_index)
        per_video = self.sampled_frames(batch, frames)
        sampled = per_video[batch.video_of_query]
        left, right = self.negative_log_weights(best, easiness)
        nll_best = self.sentence_nll(batch.queries, sampled, self.log_weights(best)[:, 0])
        reference = self.encode_under(per_video, None)[batch.video_of_query]
        return GroundingOutput(
            proposals=proposals,
            best_index=best_index,
            nll_best=nll_best,
            nll_left=self.sentence_nll(batch.queries, sampled, left),
            nll_right=self.sentence_nll(batch.queries, sampled, right),
            nll_reference=self._nll(batch.queries, self.reconstruct(batch.queries, reference, None)),
        )
