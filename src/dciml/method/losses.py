"""Every loss of both branches, by name: METHOD §3.4 (retrieval), METHOD §4.5 (grounding) and METHOD §5 (between them).

Similarities are (queries, videos); a sentence belongs to one video. Losses of grounding and of the pathways
have one value a query; the caller takes the mean over the whole batch.

A hinge of a pathway asks the modulated side to be better than the plain side by a margin. The plain side is fixed
there: with a gradient it would be pushed to be worse, which satisfies the hinge and helps no one
(docs/decisions/0003-plain-side-of-the-hinge-is-fixed.md).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from dciml.method.outputs import (
    BestClip,
    GroundingOutput,
    LocalOutput,
    ModulatedVideos,
    Proposals,
    RetrievalOutput,
    Selection,
    Windows,
    paired_similarity,
)
from dciml.method.terms import PlaceForm


def soft_max_pool(
    similarity: Float[Tensor, "queries videos clips"], temperature: float
) -> Float[Tensor, "queries videos"]:
    """τ·logsumexp(similarity / τ) over clips: at least the maximum, at most τ·ln(clips) above it.

    Args:
        temperature: τ > 0; towards 0 it becomes the maximum.

    >>> soft_max_pool(torch.tensor([[[0.0, 1.0]]]), 0.1).round(decimals=3).tolist()
    [[1.0]]
    """
    return temperature * torch.logsumexp(similarity / temperature, dim=-1)


def clip_products(
    query: Float[Tensor, "queries hidden"], clips: Float[Tensor, "videos clips hidden"]
) -> Tensor:
    """max_j ⟨q, C_j⟩ of every query and video, (queries, videos)."""
    return torch.einsum("qd,vcd->qvc", query, clips).amax(dim=-1)


def own_videos(video_of_query: Int[Tensor, " queries"], num_videos: int) -> Bool[Tensor, "queries videos"]:
    """True where a video is a query's own. As `one_hot`, which on a GPU makes the processor wait for its check."""
    return video_of_query[:, None] == torch.arange(num_videos, device=video_of_query.device)


def info_nce(
    similarity: Float[Tensor, "queries videos"], video_of_query: Int[Tensor, " queries"]
) -> Float[Tensor, ""]:
    """Text→video plus video→text InfoNCE; a video's own sentences count together as its positives.

    >>> float(info_nce(torch.tensor([[9.0, 0.0], [0.0, 9.0]]), torch.tensor([0, 1]))) < 1e-3
    True
    """
    similarity = similarity.float()
    queries = torch.arange(len(similarity), device=similarity.device)
    text_to_video = torch.logsumexp(similarity, dim=1) - similarity[queries, video_of_query]
    own = own_videos(video_of_query, similarity.shape[1])
    has_query = own.any(dim=0)  # a video without a sentence counts all as its own: its loss is 0
    positive = similarity.masked_fill(~own & has_query, float("-inf"))
    video_to_text = torch.logsumexp(similarity, dim=0) - torch.logsumexp(positive, dim=0)
    return text_to_video.mean() + video_to_text.sum() / has_query.sum()


def triplet(
    similarity: Float[Tensor, "queries videos"],
    video_of_query: Int[Tensor, " queries"],
    *,
    margin: float,
    hard_pool_size: int | None,
    generator: torch.Generator,
) -> Float[Tensor, ""]:
    """Hinge on cosines with one negative per query, both directions.

    Args:
        hard_pool_size: None: negatives at random; else text→video draws from this many hardest videos and
            video→text takes the hardest sentence of another video.
        generator: draws the negatives (on the CPU, so that every device and process draws the same).
    Returns: 0 when the batch has a single video.
    """
    if similarity.shape[1] < 2:
        return similarity.sum() * 0.0
    queries = torch.arange(len(similarity), device=similarity.device)
    positive = similarity[queries, video_of_query]
    own = own_videos(video_of_query, similarity.shape[1])
    pool = similarity.shape[1] - 1 if hard_pool_size is None else min(hard_pool_size, similarity.shape[1] - 1)
    video = _drawn(similarity.detach().masked_fill(own, float("-inf")), pool, generator)
    text_to_video = (margin + similarity[queries, video] - positive).clamp(min=0)

    foreign = video_of_query[:, None] != video_of_query[None, :]
    by_pair = similarity[:, video_of_query].t()  # (pair, query): similarity of the pair's video and a query
    if hard_pool_size is None:
        order = torch.rand(by_pair.shape, generator=generator).to(by_pair.device, non_blocking=True)
    else:
        order = by_pair.detach()
    negative = order.masked_fill(~foreign, float("-inf")).argmax(dim=1)
    video_to_text = (margin + by_pair[queries, negative] - positive).clamp(min=0)
    has_foreign = foreign.any(dim=1)  # all have one, or none
    return text_to_video.mean() + video_to_text.masked_fill(~has_foreign, 0.0).mean()


def _drawn(
    masked: Float[Tensor, "rows columns"], pool: int, generator: torch.Generator
) -> Int[Tensor, " rows"]:
    """One of the `pool` largest entries of each row, evenly."""
    ranked = masked.topk(pool, dim=1).indices
    place = torch.randint(pool, (len(masked),), generator=generator).to(masked.device, non_blocking=True)
    return ranked.gather(1, place[:, None])[:, 0]


def query_diversity(
    query: Float[Tensor, "queries hidden"],
    video_of_query: Int[Tensor, " queries"],
    *,
    alpha: float,
    delta: float,
) -> Float[Tensor, ""]:
    """Keeps the sentences of one video apart: (1/Q)·Σ log(1 + Σ exp(α(cos + δ))) (GMMFormer, AAAI 2024)."""
    unit = F.normalize(query.float(), dim=-1)
    cosine = unit @ unit.t()
    same = video_of_query[:, None] == video_of_query[None, :]
    same = same & ~torch.eye(len(query), dtype=torch.bool, device=query.device)
    exponent = (alpha * (cosine + delta)).masked_fill(~same, float("-inf"))
    zeros = torch.zeros(len(query), 1, device=query.device)
    return torch.logsumexp(torch.cat([zeros, exponent], dim=1), dim=1).mean()


def _best_clip(
    query: Float[Tensor, "queries hidden"],
    clips: Float[Tensor, "videos clips hidden"],
    temperature: float | None,
) -> Tensor:
    if temperature is None:
        return clip_products(query, clips)
    return soft_max_pool(torch.einsum("qd,vcd->qvc", query, clips).float(), temperature)


def proposal_diversity(
    log_weights: Float[Tensor, "queries proposals positions"], lam: float
) -> Float[Tensor, " queries"]:
    """‖λI − GGᵀ‖² with the proposals' Gaussians, each summing to 1, as the rows of G (CPL, CVPR 2022)."""
    rows = torch.softmax(log_weights, dim=-1)  # exp(log g) / Σ exp(log g)
    target = lam * torch.eye(rows.shape[1], device=rows.device)
    return (target - rows @ rows.transpose(1, 2)).square().sum(dim=(1, 2))


def span_on_clips(best: Proposals, centers: Float[Tensor, "queries clips"]) -> Float[Tensor, "queries clips"]:
    """1 for clips whose centre lies in the span, else 0; the clip nearest to the span's middle is always 1.

    Clips that show the same row, in a video of few rows, have the same centre and the same value.

    Args:
        best: (queries, 1).
        centers: of the clips of each query's own video (`VideoBatch.clip_centers`).
    """
    inside = (centers >= best.starts()) & (centers <= best.ends())
    nearest = (centers - best.centers).abs().argmin(dim=1, keepdim=True)
    return (inside | (centers == centers.gather(1, nearest))).float()


def explicit_to_retrieval(
    similarity: Float[Tensor, "queries clips"],
    best: Proposals,
    temperature: float,
    clip_centers: Float[Tensor, "queries clips"],
) -> Float[Tensor, " queries"]:
    """The best proposal's span, as a 0/1 mask, teaches the clip similarities: cross-entropy of sigmoid(cos / τ).

    The published code thresholds both sides, so its loss has no gradient; here the similarities stay real-valued.
    """
    target = span_on_clips(best, clip_centers)
    return F.binary_cross_entropy_with_logits(
        similarity.float() / temperature, target, reduction="none"
    ).mean(dim=1)


def centred_on_clips(
    similarity: Float[Tensor, "queries clips"],
    best: Proposals,
    temperature: float,
    clip_centers: Float[Tensor, "queries clips"],
) -> Float[Tensor, " queries"]:
    """As `explicit_to_retrieval`, of similarities less their mean over the video's clips: only the shape is taught."""
    centred = similarity - similarity.mean(dim=1, keepdim=True)
    return explicit_to_retrieval(centred, best, temperature, clip_centers)


def clips_by_similarity(
    similarity: Float[Tensor, "queries clips"], temperature: float
) -> Float[Tensor, "queries clips"]:
    """Where a query happens in its own video, as its cosines with the clips tell it: softmax(cosine / τ), fixed."""
    return torch.softmax(similarity.detach().float() / temperature, dim=1)


def clips_by_proposals(
    selection: Selection, centers: Float[Tensor, "queries clips"]
) -> Float[Tensor, "queries clips"]:
    """Where a query happens in its own video, as its proposals and their reconstructions tell it, fixed.

    Each proposal spreads its share, softmax(−cost), evenly over the clips in its span.

    Args:
        centers: of the clips of each query's own video (`VideoBatch.clip_centers`).
    """
    shares = torch.softmax(-selection.cost.float(), dim=1)
    found = torch.zeros_like(centers)
    for number in range(shares.shape[1]):
        one = selection.proposals.at(torch.full_like(selection.best_index, number))
        inside = span_on_clips(one, centers)
        found = found + shares[:, [number]] * inside / inside.sum(dim=1, keepdim=True)
    return found.detach()


def distribution_on_clips(
    similarity: Float[Tensor, "queries clips"],
    teacher: Float[Tensor, "queries clips"],
    temperature: float,
) -> Float[Tensor, " queries"]:
    """KL divergence from a distribution over the clips of a query's own video to softmax(similarity / τ).

    Args:
        teacher: fixed; rows sum to 1.
    """
    learned = torch.log_softmax(similarity.float() / temperature, dim=1)
    return F.kl_div(learned, teacher, reduction="none").sum(dim=1)


def windows_as_proposals(proposals: Proposals, windows: Windows) -> Float[Tensor, " queries"]:
    """The best windows of a video teach the proposals: |Δ centre| + |Δ width|, weighed by the windows' shares.

    Proposal p is taught by window p, so that the proposals stay apart and the first one stands for the best window.
    """
    count = min(proposals.centers.shape[1], windows.centers.shape[1])
    off = (proposals.centers[:, :count] - windows.centers[:, :count]).abs()
    off = off + (proposals.widths[:, :count] - windows.widths[:, :count]).abs()
    return (windows.shares[:, :count] * off).sum(dim=1)


def explicit_to_grounding(
    proposals: Proposals, best_clip_unit: Float[Tensor, " queries"]
) -> Float[Tensor, " queries"]:
    """The best clip's time must lie inside the proposals: (start − t)₊ + (t − end)₊, mean over proposals.

    Only the centres move. With a gradient to the widths the cheapest way to hold every t is to cover the whole
    video, and that is where all proposals went (docs/decisions/0014-the-best-clip-moves-centres-only.md).
    """
    t, half = best_clip_unit[:, None], proposals.widths.detach() / 2
    starts, ends = proposals.centers - half, proposals.centers + half
    return ((starts - t).clamp(min=0) + (t - ends).clamp(min=0)).mean(dim=1)


def better_by(
    modulated: Float[Tensor, " queries"], plain: Float[Tensor, " queries"], margin: float
) -> Float[Tensor, " queries"]:
    """Hinge: modulated ≥ plain + margin, `plain` fixed. For a loss, hand in its negative."""
    return (plain.detach() + margin - modulated).clamp(min=0)


def match(
    plain: Float[Tensor, " queries *rest"], modulated: Float[Tensor, " queries *rest"]
) -> Float[Tensor, " queries"]:
    """Squared distance of the normalised plain feature to the fixed, normalised modulated one, mean over elements."""
    target = F.normalize(modulated.detach(), dim=-1)
    return (F.normalize(plain, dim=-1) - target).square().flatten(1).mean(dim=1)


@dataclass(frozen=True, kw_only=True)
class RetrievalLosses:
    """All losses of the retrieval side, by name.

    Args:
        margin: of the triplet losses, in cosine.
        nce_temperature: InfoNCE reads cosines divided by this; None: products that are not normalised, as published.
        clip_pool_temperature: a query meets a video by the soft maximum of its cosines with the clips, so that every
            clip learns; None: by its best clip, as published.
        diversity_alpha, diversity_delta: of `query_diversity`.
        local_temperature: of the local scale's InfoNCE.
        place_form: how the explicit pathway teaches, see `of_place`.
        temperature: of the explicit pathway as a mask.
        distribution_temperature: of the explicit pathway as a distribution.
        modulation_margin: cosine by which modulation must help.
    """

    margin: float = 0.2
    nce_temperature: float | None = None
    clip_pool_temperature: float | None = None
    diversity_alpha: float = 32.0
    diversity_delta: float = 0.2
    local_temperature: float = 0.07
    place_form: PlaceForm = "mask"
    temperature: float = 0.1
    distribution_temperature: float = 0.07
    modulation_margin: float = 0.2

    def of_ranking(
        self, output: RetrievalOutput, *, hard_pool_size: int | None, generator: torch.Generator
    ) -> dict[str, Float[Tensor, ""]]:
        """METHOD §3.4: every sentence against every video, at the clip scale and at the frame scale.

        Args:
            hard_pool_size, generator: see `triplet`.
        """
        own = output.video_of_query
        query = F.normalize(output.query, dim=-1)
        clip_cosine = _best_clip(query, F.normalize(output.clips, dim=-1), self.clip_pool_temperature)
        frame_cosine = query @ F.normalize(output.frames, dim=-1).t()
        if self.nce_temperature is None:
            clip_logits, frame_logits = (
                clip_products(output.query, output.clips),
                output.query @ output.frames.t(),
            )
        else:
            clip_logits, frame_logits = (
                clip_cosine / self.nce_temperature,
                frame_cosine / self.nce_temperature,
            )

        def hinge(cosine: Tensor) -> Tensor:
            return triplet(
                cosine, own, margin=self.margin, hard_pool_size=hard_pool_size, generator=generator
            )

        terms = {
            "nce_clip": info_nce(clip_logits, own),
            "nce_frame": info_nce(frame_logits, own),
            "triplet_clip": hinge(clip_cosine),
            "triplet_frame": hinge(frame_cosine),
            "query_diversity": query_diversity(
                output.query, own, alpha=self.diversity_alpha, delta=self.diversity_delta
            ),
        }
        if output.local is not None:
            terms |= self._of_local(output.local, own, hinge)
        return terms

    def _of_local(
        self, local: LocalOutput, own: Int[Tensor, " queries"], hinge: Callable[[Tensor], Tensor]
    ) -> dict[str, Float[Tensor, ""]]:
        query, clips = F.normalize(local.query, dim=-1), F.normalize(local.clips, dim=-1)
        cosine = _best_clip(query, clips, self.clip_pool_temperature)
        return {"nce_local": info_nce(cosine / self.local_temperature, own), "triplet_local": hinge(cosine)}

    def of_place(
        self, output: RetrievalOutput, best: Proposals, clip_centers: Float[Tensor, "videos clips"]
    ) -> dict[str, Float[Tensor, " queries"]]:
        """METHOD §5.2: grounding tells the clip scale where, by its best proposal, as a mask or centred.

        Args:
            best: (queries, 1).
            clip_centers: of the batch's videos.
        """
        similarity, centers = output.paired_similarity(), clip_centers[output.video_of_query]
        if self.place_form == "mask":
            loss = explicit_to_retrieval(similarity, best, self.temperature, centers)
        else:
            loss = centred_on_clips(similarity, best, self.temperature, centers)
        return {"explicit_to_retrieval": loss}

    def of_place_by_distribution(
        self,
        output: RetrievalOutput,
        selection: Selection,
        places: Int[Tensor, " chosen"] | None,
        clip_centers: Float[Tensor, "videos clips"],
    ) -> dict[str, Float[Tensor, " queries"]]:
        """METHOD §5.2: the clip scale is told where by a distribution over the clips of the paired video.

        It is that of the local scale, which knows every sentence; `fused`: of the sentences that grounding looked at,
        the mean of that one and of the proposals'.

        Args:
            selection, places: what grounding chose, and for which sentences; None: for all.
            clip_centers: of the batch's videos.
        """
        assert output.local is not None
        local = paired_similarity(output.local.query, output.local.clips[output.video_of_query])
        teacher = clips_by_similarity(local, self.distribution_temperature)
        if self.place_form == "fused":
            seen = torch.arange(len(teacher), device=teacher.device) if places is None else places
            grounding = clips_by_proposals(selection, clip_centers[output.video_of_query[seen]])
            teacher = teacher.index_copy(0, seen, (teacher[seen] + grounding) / 2)
        loss = distribution_on_clips(output.paired_similarity(), teacher, self.distribution_temperature)
        return {"explicit_to_retrieval": loss}

    def of_modulation(
        self, output: RetrievalOutput, modulated: ModulatedVideos
    ) -> dict[str, Float[Tensor, " queries"]]:
        """METHOD §5.3: each query beside its own video, plain and modulated."""
        plain_clips = output.clips[output.video_of_query]
        plain_frames = output.frames[output.video_of_query]
        best_plain = output.paired_similarity().amax(dim=1)
        best_modulated = paired_similarity(output.query, modulated.clips).amax(dim=1)
        frame_plain = F.cosine_similarity(output.query, plain_frames)
        frame_modulated = F.cosine_similarity(output.query, modulated.frames)
        return {
            "modulated_clip": better_by(best_modulated, best_plain, self.modulation_margin),
            "modulated_frame": better_by(frame_modulated, frame_plain, self.modulation_margin),
            "match_clip": match(plain_clips, modulated.clips),
            "match_frame": match(plain_frames, modulated.frames),
        }


@dataclass(frozen=True, kw_only=True)
class GroundingLosses:
    """All losses of the grounding side, by name; a value a query.

    Args:
        reference_margin, negative_margin: nats by which the best proposal must be better than the whole video, and
            than what lies beside it.
        diversity_lambda: of `proposal_diversity`.
        modulation_margin: nats by which modulation must help.
    """

    reference_margin: float = 0.1
    negative_margin: float = 0.15
    diversity_lambda: float = 0.13
    modulation_margin: float = 0.15

    def of_reconstruction(
        self, output: GroundingOutput, log_weights: Float[Tensor, "queries proposals positions"]
    ) -> dict[str, Float[Tensor, " queries"]]:
        """METHOD §4.5.

        Args:
            log_weights: log g of all proposals.
        """
        nll = output.nll
        return {
            "reconstruct": 0.5 * (nll.best + nll.whole),
            "contrast_reference": (nll.best - nll.whole + self.reference_margin).clamp(min=0),
            "contrast_left": (nll.best - nll.left + self.negative_margin).clamp(min=0),
            "contrast_right": (nll.best - nll.right + self.negative_margin).clamp(min=0),
            "proposal_diversity": proposal_diversity(log_weights, self.diversity_lambda),
        }

    def of_place(self, output: GroundingOutput, clip: BestClip) -> dict[str, Float[Tensor, " queries"]]:
        """METHOD §5.4: retrieval says where, by its best clip or by the best windows of its similarity."""
        if clip.windows is None:
            loss = explicit_to_grounding(output.proposals, clip.center_unit)
        else:
            loss = windows_as_proposals(output.proposals, clip.windows)
        return {"explicit_to_grounding": loss}

    def of_modulation(
        self, output: GroundingOutput, video_of_query: Int[Tensor, " queries"]
    ) -> dict[str, Float[Tensor, " queries"]]:
        """METHOD §5.5: each query's own frames, plain and modulated. `output` must have modulated ones."""
        assert output.modulated is not None
        assert output.nll.modulated is not None
        plain = output.sampled.mean(dim=1)[video_of_query]
        return {
            "modulated_nll": better_by(-output.nll.modulated, -output.nll.best, self.modulation_margin),
            "match_grounding": match(plain, output.modulated.mean(dim=1)),
        }
