"""The grounding branch: when? Gaussian proposals, judged by how well each lets the sentence be reconstructed.

METHOD §4; CPL (CVPR 2022). Only the best proposal's NLL enters the losses. So `select` finds it without gradients
(all proposals, no dropout), and `forward` computes that one, the two beside it and the whole video with gradients
(docs/decisions/0002-best-proposal-without-gradients.md).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from dciml.method.batch import Batch, QueryBatch, VideoBatch
from dciml.method.fast import Packing, Sequences, View, alike, at_once, shapes_are_fixed
from dciml.method.layers import Dropout, Stack, as_teacher, word_nll
from dciml.method.outputs import GroundingOutput, Proposals, Reconstructions, Selection

SEQUENCES_AT_ONCE = {"cpu": 256, "cuda": 2048}
"""How many (query, proposal) pairs are judged together: few enough for a cache; on a GPU enough for a usual batch."""


Negatives = Literal["beside", "alike", "other_video"]


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


def _at(rows: Float[Tensor, "videos rows width"], index: Int[Tensor, "videos positions"]) -> Tensor:
    return rows.gather(1, index[..., None].expand(-1, -1, rows.shape[-1]))


def _distinct(queries: QueryBatch) -> tuple[QueryBatch, Tensor | None]:
    """Each sentence once, unless shapes are fixed: how many there are is a value."""
    return (queries, None) if shapes_are_fixed() else queries.distinct()


@dataclass(frozen=True)
class Watched:
    """What is computed of some videos before a sentence is known.

    Attributes:
        sampled: the frames that the reconstruction reads.
        rows: what stands at each frame, and at the [PRED] row after a video's last one, after the first
            self-attention of the frame stack.
        mask: which of these rows are real.
    """

    sampled: Float[Tensor, "videos positions hidden"]
    rows: Float[Tensor, "videos length hidden"]
    mask: Bool[Tensor, "videos length"]
    local_clips: Float[Tensor, "videos clips local"] | None = None

    def each(self) -> Iterator[Watched]:
        """One video after the other, without padding; copies, so that one may be kept without the others."""
        for place, (sampled, rows, mask) in enumerate(zip(self.sampled, self.rows, self.mask, strict=True)):
            local = None if self.local_clips is None else self.local_clips[place][None].clone()
            yield Watched(sampled[None].clone(), rows[mask][None], mask[mask][None], local)

    @classmethod
    def join(cls, parts: Sequence[Watched]) -> Watched:
        """The inverse of `each`."""
        return cls(
            torch.cat([part.sampled for part in parts]),
            pad_sequence([part.rows[0] for part in parts], batch_first=True),
            pad_sequence([part.mask[0] for part in parts], batch_first=True),
            torch.cat(local)
            if (local := [p.local_clips for p in parts if p.local_clips is not None])
            else None,
        )


class GroundingBranch(nn.Module):
    """Proposals and reconstruction with one dual transformer (a frame stack and a word stack).

    Args:
        video_width, static_width: widths of the frame rows and of the static word rows.
        vocabulary_size: words that can be reconstructed, `<unk>` included.
        num_positions: frames that the reconstruction reads (32).
        gaussian_sigma: a proposal's σ is width / `gaussian_sigma` (9); a negative's width / (`gaussian_sigma` / 2).
        label_smoothing: of the word loss.
        negatives: what the best proposal is compared with, besides the whole video, see
            `negative_log_weights`; with `other_video` the left one is its own Gaussian on another video of the batch.
        content_weight: how much a content word counts in the likelihood of a sentence, beside 1 of the others.
        anchored: proposals begin at the anchors of the batch and move away from them; else they begin anywhere.
        anchor_floor: share of the clips that count nearly alike where anchors are looked for.
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
        content_weight: float = 1.0,
        negatives: Negatives = "beside",
        dropout: float = 0.2,
        anchored: bool = False,
        anchor_floor: float = 0.4,
    ) -> None:
        super().__init__()
        self.anchored, self.anchor_floor = anchored, anchor_floor
        self.hidden, self.num_positions, self.max_words = hidden, num_positions, max_words
        self.num_proposals, self.content_weight, self.negatives = num_proposals, content_weight, negatives
        self.gaussian_sigma, self.min_width, self.label_smoothing = gaussian_sigma, min_width, label_smoothing
        self.frame_project = nn.Linear(video_width, hidden)
        self.word_project = nn.Linear(static_width, hidden)
        self.prediction_row = nn.Parameter(torch.randn(hidden) * 0.02)
        self.start_word = nn.Parameter(torch.randn(hidden) * 0.02)
        self.hidden_word = nn.Parameter(torch.randn(hidden) * 0.02)
        self.frame_stack = Stack(layers, hidden, heads, dropout)
        self.word_stack = Stack(layers, hidden, heads, dropout)
        self.span_head = nn.Linear(hidden, 2 * num_proposals)
        if anchored:  # at first every proposal is its anchor
            nn.init.zeros_(self.span_head.weight)
            nn.init.zeros_(self.span_head.bias)
        self.vocabulary_head = nn.Linear(hidden, vocabulary_size)
        self.dropout = Dropout(dropout)

    def watch(self, videos: VideoBatch) -> Watched:
        """All that can be computed of videos before a sentence is known."""
        frames = self.dropout(self.frame_project(videos.frames))
        num_frames = videos.frame_mask.sum(dim=1, keepdim=True)
        rows = F.pad(self._with_time(frames, num_frames), (0, 0, 0, 1))
        place = torch.arange(rows.shape[1], device=rows.device)[None]
        mask = place <= num_frames
        rows = torch.where((place == num_frames)[..., None], self.prediction_row.to(rows.dtype), rows)
        begun = self.frame_stack.begin(Sequences.of(rows, mask))
        return Watched(_at(frames, self._sampled_index(videos)), begun.pad(begun.rows), mask)

    def sampled_frames(self, videos: VideoBatch) -> Float[Tensor, "videos positions hidden"]:
        """The frames nearest to `num_positions` points spread evenly over the valid rows, in the branch's width.

        They say what is seen, and nothing of when. The reconstruction must not know when its frames are: proposals are
        made from the sentence, so a place that can be read off the frames tells the words that it was made from,
        wherever the moment is (docs/decisions/0019-reconstruction-does-not-know-the-time.md).
        """
        rows = _at(videos.frames, self._sampled_index(videos))
        frames: Tensor = self.dropout(self.frame_project(rows))
        return frames

    def _sampled_index(self, videos: VideoBatch) -> Int[Tensor, "videos positions"]:
        counts = videos.frame_mask.sum(dim=1)
        unit = torch.linspace(0, 1, self.num_positions, device=counts.device)
        return (unit[None] * (counts - 1)[:, None]).round().long()

    def _with_time(
        self, frames: Float[Tensor, "videos frames hidden"], counts: Int[Tensor, "videos 1"]
    ) -> Float[Tensor, "videos frames hidden"]:
        """Adds the sinusoidal code of each frame's unit time."""
        steps = torch.arange(frames.shape[1], device=counts.device)
        unit = steps[None] / (counts - 1).clamp(min=1)
        return frames + sinusoids(unit * 100, self.hidden)

    def propose(
        self, watched: Watched, queries: QueryBatch, video_of_query: Int[Tensor, " queries"]
    ) -> Proposals:
        """Pass 1: the [PRED] row, after a video's last frame, reads the frames and the encoded words and gives P
        (centre, width) pairs (METHOD §4.2)."""
        frames = Sequences.shared(watched.rows, watched.mask, video_of_query)
        return self.spans(self.frame_stack.end(frames, self._encoded_words(queries)), queries.anchors)

    def spans(
        self,
        prediction: Float[Tensor, "queries hidden"],
        anchors: Float[Tensor, "queries proposals 3"] | None,
    ) -> Proposals:
        """The [PRED] row as P (centre, width) pairs; with anchors it says how far, in logits, each is from its own."""
        logits, log_prior = self.span_head(prediction).float(), None
        if self.anchored:
            assert anchors is not None
            center, width, share = anchors.float().unbind(dim=-1)
            logits = logits + torch.logit(torch.cat([center, width], dim=-1), eps=1e-3)
            log_prior = share.clamp(min=1e-6).log()
        centers, widths = torch.sigmoid(logits).chunk(2, dim=-1)
        return Proposals(centers, widths.clamp(min=self.min_width), log_prior)

    def _encoded_words(self, queries: QueryBatch) -> Sequences:
        distinct, reads = _distinct(queries)
        projected = self._with_start(self.dropout(self.word_project(distinct.static_words)))
        mask = F.pad(distinct.word_mask, (1, 0), value=True)
        encoded: Sequences = self.word_stack(Sequences.of(projected, mask))
        return encoded if reads is None else encoded.read_by(reads)

    def _with_start(self, words: Float[Tensor, "queries words hidden"]) -> Tensor:
        start = self.start_word.to(words.dtype).expand(len(words), 1, -1)
        rows = torch.cat([start, words], dim=1)
        return rows + sinusoids(torch.arange(rows.shape[1], device=rows.device).float(), self.hidden)

    def encode_under(
        self,
        sampled: Float[Tensor, "videos positions hidden"],
        video_of_sequence: Int[Tensor, " sequences"],
        log_weights: Float[Tensor, "sequences positions"],
    ) -> Sequences:
        """Pass 2, frames: self-attention re-weighted by a Gaussian (log weights of 0: the whole video evenly).

        Positions that the Gaussian hides are not there.
        """
        encoded: Sequences = self.frame_stack(Sequences.weighed(sampled, video_of_sequence, log_weights))
        return encoded

    def mean_under(
        self,
        sampled: Float[Tensor, "videos positions hidden"],
        video_of_sequence: Int[Tensor, " sequences"],
        log_weights: Float[Tensor, "sequences positions"],
    ) -> Float[Tensor, "sequences hidden"]:
        """The mean over time of the frames as encoded under a Gaussian; each counts alike, so all are there."""
        seen = Sequences.weighed(sampled, video_of_sequence, log_weights, whole=True)
        encoded: Sequences = self.frame_stack(seen)
        return encoded.pad(encoded.rows).mean(dim=1)

    def reconstruct(
        self, queries: QueryBatch, memory: Sequences, beside: Int[Tensor, " memories"]
    ) -> Float[Tensor, "rows hidden"]:
        """Pass 2, words: what stands at position i is computed from the start vector and words before i only.

        Hidden words are replaced by a learned vector. The rows are static, so no word carries another's meaning.

        Args:
            memory: frames as `encode_under` gives them.
            beside: which sentence is reconstructed beside each of these memories.
        Returns: the real words of sentence `beside[i]`, packed, memory after memory.
        """
        words = self.dropout(self.word_project(queries.static_words))
        words = torch.where(queries.hidden_words[..., None], self.hidden_word.to(words.dtype), words)
        shifted = Sequences.of(self._with_start(words[:, :-1]), queries.word_mask)
        return self.word_stack.read_beside(shifted, memory, beside).rows

    def sentence_nll(
        self, queries: QueryBatch, memory: Sequences, beside: Int[Tensor, " memories"]
    ) -> Float[Tensor, " memories"]:
        """Mean negative log-likelihood of the words of sentence `beside[i]`, nats, given the frames of memory i."""
        packing = Packing.of(queries.word_mask[beside])
        content = None if self.content_weight == 1 else queries.content_words
        return word_nll(
            self.reconstruct(queries, memory, beside),
            packing.pack(queries.word_ids[beside]),
            packing,
            (self.vocabulary_head.weight, self.vocabulary_head.bias),
            self.label_smoothing,
            None if content is None else packing.pack(1 + (self.content_weight - 1) * content[beside]),
        )

    def nll_of_views(
        self, queries: QueryBatch, views: Mapping[str, View]
    ) -> dict[str, Float[Tensor, " queries"]]:
        """The NLL of each sentence in each view, by the view's name; all are computed together."""
        every = View.together(list(views.values()))
        memory = self.encode_under(every.frames, every.video, every.log_weights)
        query = torch.arange(len(queries.word_ids), device=every.video.device)
        nll = self.sentence_nll(queries, memory.read_by(every.way_of_query), query.repeat(len(views)))
        return dict(zip(views, nll.chunk(len(views)), strict=True))

    def log_weights(self, proposals: Proposals) -> Float[Tensor, "queries proposals positions"]:
        """log g_p of each proposal, σ = width / 9."""
        return log_gaussian(proposals.centers, proposals.widths / self.gaussian_sigma, self.num_positions)

    def negative_log_weights(
        self, best: Proposals, easiness: float
    ) -> tuple[Float[Tensor, "queries positions"], Float[Tensor, "queries positions"]]:
        """Gaussians in the room left and right of the best proposal, or of its own shape there (METHOD §4.4).

        Args:
            best: (queries, 1).
            easiness: e in [0, 1]: how far the negatives reach from the video's ends towards the proposal.
        """
        center, width = best.centers[:, 0], best.widths[:, 0]
        if self.negatives != "beside":
            rooms = (center - width / 2).clamp(min=0), (1 - center - width / 2).clamp(min=0)
            places = rooms[0] / 2, 1 - rooms[1] / 2
            if self.negatives == "other_video":  # the left one is seen there; the other has the wider room
                places = places[0], torch.where(rooms[0] > rooms[1], *places)
            sigma = width / self.gaussian_sigma
            left, right = (log_gaussian(place, sigma, self.num_positions) for place in places)
            return left, right
        left = easiness * (center - width / 2).clamp(min=0)
        right = easiness * (1 - center - width / 2).clamp(min=0)
        scale = self.gaussian_sigma / 2
        wide_left, wide_right = ((room / 2).clamp(min=self.min_width) / scale for room in (left, right))
        return (
            log_gaussian(left / 2, wide_left, self.num_positions),
            log_gaussian(1 - right / 2, wide_right, self.num_positions),
        )

    def select(self, batch: Batch) -> Selection:
        """Judge every proposal, without gradients and without dropout."""
        with as_teacher(self):
            return self.choose(self.watch(batch.videos), batch.queries, batch.video_of_query)

    def choose(
        self, watched: Watched, queries: QueryBatch, video_of_query: Int[Tensor, " queries"]
    ) -> Selection:
        """Judge every proposal, given what is known of the videos."""
        proposals = self.propose(watched, queries, video_of_query)
        nll = self.nll_of_proposals(watched.sampled, queries, video_of_query, self.log_weights(proposals))
        return Selection.of(proposals, nll)

    def nll_of_proposals(
        self,
        sampled: Float[Tensor, "videos positions hidden"],
        queries: QueryBatch,
        video_of_query: Int[Tensor, " queries"],
        log_weights: Float[Tensor, "queries proposals positions"],
    ) -> Float[Tensor, "queries proposals"]:
        """The NLL of each sentence under each of its proposals; those that see as much are judged together."""
        distinct, reads = _distinct(queries)
        groups = alike(log_weights, at_once(SEQUENCES_AT_ONCE, log_weights.device))
        found = []
        for query, proposal in groups:
            memory = self.encode_under(sampled, video_of_query[query], log_weights[query, proposal])
            found.append(self.sentence_nll(distinct, memory, query if reads is None else reads[query]))
        nll = found[0].new_empty(log_weights.shape[:2])
        for (query, proposal), values in zip(groups, found, strict=True):
            nll[query, proposal] = values
        return nll

    def forward(
        self,
        batch: Batch,
        best_index: Int[Tensor, " queries"],
        easiness: float,
        modulate: Callable[[Tensor], Tensor] | None = None,
    ) -> GroundingOutput:
        """Proposals and the NLLs that the losses need, with gradients.

        Args:
            best_index: of each query's best proposal, from `select` with the same weights.
            easiness: see `negative_log_weights`.
            modulate: changes each query's own frames, (queries, positions, hidden); its best proposal is then judged
                on these frames too.
        """
        watched, owner = self.watch(batch.videos), batch.video_of_query
        proposals, sampled = self.propose(watched, batch.queries, owner), watched.sampled
        best = proposals.at(best_index)
        under_best = self.log_weights(best)[:, 0]
        left, right = self.negative_log_weights(best, easiness)
        elsewhere = self.negatives == "other_video" and len(sampled) > 1
        views = {
            "best": View.own(sampled, owner, under_best),
            "left": View.own(sampled, (owner + 1) % len(sampled), under_best)
            if elsewhere
            else View.own(sampled, owner, left),
            "right": View.own(sampled, owner, right),
            "whole": View.evenly(sampled, owner),
        }
        modulated = None
        if modulate is not None:
            modulated = modulate(sampled[owner])
            each = torch.arange(len(owner), device=owner.device)
            views["modulated"] = View.own(modulated, each, under_best)
        nll = Reconstructions(**self.nll_of_views(batch.queries, views))
        return GroundingOutput(proposals, best_index, nll, sampled, modulated)
