"""The retrieval branch: which video? (METHOD §3; GMMFormer, AAAI 2024.)"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from dciml.method.batch import Batch, QueryBatch, VideoBatch
from dciml.method.fast import Sequences
from dciml.method.layers import (
    AttentionPooling,
    Dropout,
    GaussianAttentionBlock,
    GaussianMixtureBlock,
    Whitening,
    propagate,
)
from dciml.method.outputs import EncodedQueries, EncodedVideos, LocalOutput, RetrievalOutput


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


class LocalScale(nn.Module):
    """Each word and each clip by itself: words → attention pooling → linear; clip → linear (METHOD §3.5).

    Args:
        shared: sentence vectors and video rows share a space. Both layers are then residuals on the untrained vectors
            and start at 0, so that before the first step the similarity is the untrained cosine; `width` must be
            `video_width`.
        propagation: share of a clip that comes from clips of its video which look alike, see `propagate`; 0: none.
        reach_unit: how far they may be, in unit time.
        blocks: widths and weights of rows of several encoders side by side, where `shared`: before the first step the
            similarity is then that of `CosineSpace` with these blocks; (): one block, as it is. Vectors are then wider
            by one number.
        clip_weight: with blocks, share of a clip; its video's mean has the rest.
    """

    def __init__(
        self,
        *,
        video_width: int,
        text_width: int,
        width: int = 256,
        dropout: float = 0.1,
        shared: bool = False,
        propagation: float = 0.0,
        reach_unit: float = 0.2,
        blocks: Sequence[tuple[int, float]] = (),
        clip_weight: float = 1.0,
    ) -> None:
        super().__init__()
        if blocks and sum(block_width for block_width, _ in blocks) != video_width:
            raise ValueError(f"the blocks {tuple(blocks)} are not {video_width} wide together")
        self.width, self.shared, self.propagation, self.reach_unit = width, shared, propagation, reach_unit
        self.blocks, self.clip_weight = tuple(blocks), clip_weight
        if blocks:
            self.width = width + 1
        self.word_score = nn.Linear(text_width, 1, bias=False)
        self.text = nn.Linear(text_width, width)
        self.video = nn.Linear(video_width, width)
        self.dropout = Dropout(dropout)
        nn.init.zeros_(self.word_score.weight)  # attention starts as the plain mean of the words
        if shared:
            for layer in (self.text, self.video):
                nn.init.zeros_(layer.weight)
                nn.init.zeros_(layer.bias)

    def encode_queries(self, queries: QueryBatch) -> Float[Tensor, "queries local"]:
        """One vector a sentence, not normalised."""
        scores = self.word_score(queries.words)[..., 0].float().masked_fill(~queries.word_mask, float("-inf"))
        pooled = torch.einsum("ql,qlw->qw", scores.softmax(dim=-1).to(queries.words.dtype), queries.words)
        learned: Tensor = self.text(self.dropout(pooled))
        if not self.shared:
            return learned
        assert queries.sentences is not None
        if not self.blocks:
            return queries.sentences + learned
        weighed = [weight * F.normalize(block, dim=-1) for block, weight in self._split(queries.sentences)]
        return F.pad(torch.cat(weighed, dim=-1) + learned, (0, 1))

    def encode_clips(self, videos: VideoBatch) -> Float[Tensor, "videos clips local"]:
        """Clip vectors, not normalised."""
        if self.blocks:
            return self._clips_of_blocks(videos)
        clips = propagate(videos.clips, self.propagation, self.reach_unit)
        learned: Tensor = self.video(self.dropout(clips))
        return clips + learned if self.shared else learned

    def _clips_of_blocks(self, videos: VideoBatch) -> Float[Tensor, "videos clips local"]:
        """One more number, which no sentence meets, makes all untrained vectors equally long: their cosine with a
        sentence is then the sum of the cosines of all blocks, whether or not a clip has rows of each.
        """
        untrained = torch.cat([self._fused(block) for block, _ in self._split(videos.clips)], dim=-1)
        room = (len(self.blocks) - untrained.square().sum(dim=-1, keepdim=True)).clamp(min=0).sqrt()
        return torch.cat([untrained + self.video(self.dropout(untrained)), room], dim=-1)

    def _fused(self, block: Float[Tensor, "videos clips block"]) -> Float[Tensor, "videos clips block"]:
        unit = propagate(F.normalize(block, dim=-1), self.propagation, self.reach_unit)
        whole = F.normalize(unit.mean(dim=1, keepdim=True), dim=-1)
        return self.clip_weight * unit + (1 - self.clip_weight) * whole

    def _split(self, vectors: Tensor) -> Iterator[tuple[Tensor, float]]:
        widths = [width for width, _ in self.blocks]
        return zip(torch.split(vectors, widths, dim=-1), (weight for _, weight in self.blocks), strict=True)


class RetrievalBranch(nn.Module):
    """Sentence → one vector; video → S clip vectors and one frame vector; and, if it is given, the local scale.

    Args:
        video_width, text_width: widths of the features.
        gaussian_widths: of the window of each parallel block; None for a block without one. The published DCIML code
            has them off: (None, None, None, None).
        clip_weight: share of the clip scale in the score of both; the frame scale has the rest.
        local: a third scale; None: the published two.
        local_weight: its share in the score at first. Training may choose another.
        whitened: all scales look at whitened rows (METHOD §3.6).
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
        local: LocalScale | None = None,
        local_weight: float = 0.75,
        whitened: bool = False,
    ) -> None:
        super().__init__()
        self.whiten = Whitening(video_width) if whitened else None
        self.hidden, self.num_clips, self.clip_weight = hidden, num_clips, clip_weight
        self.query_input = InputLayer(text_width, hidden, max_words, dropout)
        self.query_block = GaussianAttentionBlock(hidden, heads, None, dropout)
        self.query_pool = AttentionPooling(hidden)
        self.clip_input = InputLayer(video_width, hidden, num_clips, dropout)
        self.clip_blocks = self._mixture(hidden, heads, gaussian_widths, num_blocks, dropout)
        self.frame_input = InputLayer(video_width, hidden, max_frames, dropout)
        self.frame_blocks = self._mixture(hidden, heads, gaussian_widths, num_blocks, dropout)
        self.frame_pool = AttentionPooling(hidden)
        self.local = local
        if (
            local is not None
        ):  # beside the weights, so that it is kept and saved with them; no loss reaches it
            self.local_weight = nn.Parameter(torch.tensor(local_weight), requires_grad=False)

    @staticmethod
    def _mixture(
        hidden: int, heads: int, widths: tuple[float | None, ...], num_blocks: int, dropout: float
    ) -> nn.ModuleList:
        return nn.ModuleList(GaussianMixtureBlock(hidden, heads, widths, dropout) for _ in range(num_blocks))

    def forward(self, batch: Batch) -> RetrievalOutput:
        videos = self.encode_videos(batch.videos)
        queries = self.encode_queries(batch.queries)
        local = None
        if queries.local is not None and videos.local_clips is not None:
            local = LocalOutput(queries.local, videos.local_clips)
        return RetrievalOutput(queries.context, videos.clips, videos.frames, batch.video_of_query, local)

    def encode_queries(self, queries: QueryBatch) -> EncodedQueries:
        """One vector a sentence and kind of scale."""
        words = self.query_input(Sequences.of(queries.words, queries.word_mask))
        context: Tensor = self.query_pool(self.query_block(words))
        return EncodedQueries(context, None if self.local is None else self.local.encode_queries(queries))

    def encode_videos(self, videos: VideoBatch) -> EncodedVideos:
        """All scales of each video."""
        videos = self._seen(videos)
        frames = self.frame_input(Sequences.of(videos.frames, videos.frame_mask))
        for block in self.frame_blocks:
            frames = block(frames)
        local_clips = None if self.local is None else self.local.encode_clips(videos)
        return EncodedVideos(self._context_clips(videos), self.frame_pool(frames), local_clips)

    def encode_clips(self, videos: VideoBatch) -> Float[Tensor, "videos clips hidden"]:
        """Clip vectors alone, not normalised."""
        return self._context_clips(self._seen(videos))

    def encode_local_clips(self, videos: VideoBatch) -> Float[Tensor, "videos clips local"]:
        """Clip vectors of the local scale alone, not normalised."""
        assert self.local is not None
        local: Tensor = self.local.encode_clips(self._seen(videos))
        return local

    def _seen(self, videos: VideoBatch) -> VideoBatch:
        if self.whiten is None:
            return videos
        clips, frames = (F.normalize(self.whiten(rows), dim=-1) for rows in (videos.clips, videos.frames))
        return replace(videos, clips=clips, frames=frames)

    def _context_clips(self, videos: VideoBatch) -> Float[Tensor, "videos clips hidden"]:
        clips = self.clip_input(Sequences.full(videos.clips))
        for block in self.clip_blocks:
            clips = block(clips)
        out: Tensor = clips.pad(clips.rows)
        return out

    @property
    def vector_width(self) -> int:
        """Width of what `search_vectors` and `fused_clips` give."""
        return self.hidden + (0 if self.local is None else self.local.width)

    def search_vectors(self, queries: EncodedQueries) -> Float[Tensor, "queries vector"]:
        """The vectors by which a sentence is looked for: of each kind of scale, of length 1, end to end."""
        context = F.normalize(queries.context, dim=-1)
        if queries.local is None:
            return context
        return torch.cat([F.normalize(queries.local, dim=-1), context], dim=-1)

    def fused_clips(
        self, videos: EncodedVideos, local_weight: float | None = None
    ) -> Float[Tensor, "videos clips vector"]:
        """One vector a clip, so that the score of a video is `max_j ⟨search vector, fused_j⟩`, see METHOD §3.3.

        Args:
            local_weight: share of the local scale; None: the branch's own.
        """
        frame_part = F.normalize(videos.frames, dim=-1)[:, None]
        context = self.clip_weight * F.normalize(videos.clips, dim=-1) + (1 - self.clip_weight) * frame_part
        if videos.local_clips is None:
            return context
        share = self.local_weight if local_weight is None else local_weight
        return torch.cat([share * F.normalize(videos.local_clips, dim=-1), (1 - share) * context], dim=-1)


def score_matrix(
    search_vectors: Float[Tensor, "queries vector"], fused: Float[Tensor, "videos clips vector"]
) -> Float[Tensor, "queries videos"]:
    """s(q, v) = max_j of the weighted cosines of all scales, from search vectors and fused clips."""
    return torch.einsum("qd,vcd->qvc", search_vectors, fused).amax(dim=-1)
