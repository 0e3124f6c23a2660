"""The retrieval branch: which video? (METHOD §3; GMMFormer, AAAI 2024.)"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from dciml.method.batch import Batch, QueryBatch, VideoBatch
from dciml.method.fast import Sequences
from dciml.method.layers import AttentionPooling, Dropout, GaussianAttentionBlock, GaussianMixtureBlock
from dciml.method.outputs import EncodedVideos, RetrievalOutput


class InputLayer(nn.Module):
    """LayerNorm → dropout → Linear → ReLU, plus learned positions with LayerNorm and dropout."""

    def __init__(self, width: int, hidden: int, max_length: int, dropout: float) -> None:
        super().__init__()
        self.project = nn.Sequential(
            nn.LayerNorm(width), Dropout(dropout), nn.Linear(width, hidden), nn.ReLU()
        )
        self.positions = nn.Parameter(torch.randn(max_length, hidden) * 0.02)
        self.norm = nn.LayerNorm(hidden)
        self.dropout = Dropout(dropout)

    def forward(self, x: Sequences) -> Sequences:
        place = x.packing.position_of_row(x.rows.device)
        rows = self.project(x.rows) + F.embedding(place, self.positions)
        return x.with_rows(self.dropout(self.norm(rows)))


class RetrievalBranch(nn.Module):
    """Sentence → one vector; video → S clip vectors and one frame vector.

    Args:
        video_width, text_width: widths of the features.
        gaussian_widths: of the window of each parallel block; None for a block without one. The published DCIML code
            has them off: (None, None, None, None).
        clip_weight: share of the clip scale in the score; the frame scale has the rest.
    """

    def __init__(
        self,
        *,
        video_width: int,
        text_width: int,
        hidden: int = 384,
        heads: int = 4,
        num_clips: int = 32,
        max_frames: int = 128,
        max_words: int = 30,
        gaussian_widths: tuple[float | None, ...] = (None, 0.5, 1.0, 5.0),
        num_blocks: int = 2,
        dropout: float = 0.2,
        clip_weight: float = 0.7,
    ) -> None:
        super().__init__()
        self.hidden, self.num_clips, self.clip_weight = hidden, num_clips, clip_weight
        self.query_input = InputLayer(text_width, hidden, max_words, dropout)
        self.query_block = GaussianAttentionBlock(hidden, heads, None, dropout)
        self.query_pool = AttentionPooling(hidden)
        self.clip_input = InputLayer(video_width, hidden, num_clips, dropout)
        self.clip_blocks = self._mixture(hidden, heads, gaussian_widths, num_blocks, dropout)
        self.frame_input = InputLayer(video_width, hidden, max_frames, dropout)
        self.frame_blocks = self._mixture(hidden, heads, gaussian_widths, num_blocks, dropout)
        self.frame_pool = AttentionPooling(hidden)

    @staticmethod
    def _mixture(
        hidden: int, heads: int, widths: tuple[float | None, ...], num_blocks: int, dropout: float
    ) -> nn.ModuleList:
        return nn.ModuleList(GaussianMixtureBlock(hidden, heads, widths, dropout) for _ in range(num_blocks))

    def forward(self, batch: Batch) -> RetrievalOutput:
        videos = self.encode_videos(batch.videos)
        query = self.encode_queries(batch.queries)
        return RetrievalOutput(query, videos.clips, videos.frames, batch.video_of_query)

    def encode_queries(self, queries: QueryBatch) -> Float[Tensor, "queries hidden"]:
        """One vector a sentence, not normalised."""
        words = self.query_input(Sequences.of(queries.words, queries.word_mask))
        pooled: Tensor = self.query_pool(self.query_block(words))
        return pooled

    def encode_videos(self, videos: VideoBatch) -> EncodedVideos:
        """Both scales of each video."""
        frames = self.frame_input(Sequences.of(videos.frames, videos.frame_mask))
        for block in self.frame_blocks:
            frames = block(frames)
        return EncodedVideos(self.encode_clips(videos), self.frame_pool(frames))

    def encode_clips(self, videos: VideoBatch) -> Float[Tensor, "videos clips hidden"]:
        """Clip vectors alone, not normalised."""
        clips = self.clip_input(Sequences.full(videos.clips))
        for block in self.clip_blocks:
            clips = block(clips)
        out: Tensor = clips.pad(clips.rows)
        return out

    def fused_clips(self, videos: EncodedVideos) -> Float[Tensor, "videos clips hidden"]:
        """One vector a clip, so that the score is `max_j ⟨q̂, fused_j⟩` (METHOD §3.3)."""
        frame_part = F.normalize(videos.frames, dim=-1)[:, None]
        return self.clip_weight * F.normalize(videos.clips, dim=-1) + (1 - self.clip_weight) * frame_part


def score_matrix(
    query: Float[Tensor, "queries hidden"], fused: Float[Tensor, "videos clips hidden"]
) -> Float[Tensor, "queries videos"]:
    """s(q, v) = clip_weight · max_j cos(q, C_j) + (1 − clip_weight) · cos(q, f), from fused clips."""
    products = torch.einsum("qd,vcd->qvc", F.normalize(query, dim=-1), fused)
    return products.amax(dim=-1)
