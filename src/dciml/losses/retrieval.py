"""Losses of the retrieval branch (METHOD §3.4). Similarities are (queries, videos); a sentence belongs to one video."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from dciml.losses.soft_max_pool import soft_max_pool
from dciml.outputs import RetrievalOutput


def clip_products(
    query: Float[Tensor, "queries hidden"], clips: Float[Tensor, "videos clips hidden"]
) -> Tensor:
    """max_j ⟨q, C_j⟩ of every query and video, (queries, videos)."""
    return torch.einsum("qd,vcd->qvc", query, clips).amax(dim=-1)


def info_nce(
    similarity: Float[Tensor, "queries videos"], video_of_query: Int[Tensor, "queries"]
) -> Float[Tensor, ""]:
    """Text→video plus video→text InfoNCE; a video's own sentences count together as its positives.

    >>> float(info_nce(torch.tensor([[9.0, 0.0], [0.0, 9.0]]), torch.tensor([0, 1]))) < 1e-3
    True
    """
    similarity = similarity.float()
    queries = torch.arange(len(similarity), device=similarity.device)
    text_to_video = torch.logsumexp(similarity, dim=1) - similarity[queries, video_of_query]
    own = F.one_hot(video_of_query, similarity.shape[1]).bool()
    has_query = own.any(dim=0)
    positive = similarity.masked_fill(~own, float("-inf"))[:, has_query]
    video_to_text = torch.logsumexp(similarity[:, has_query], dim=0) - torch.logsumexp(positive, dim=0)
    return text_to_video.mean() + video_to_text.mean()


def triplet(
    similarity: Float[Tensor, "queries videos"],
    video_of_query: Int[Tensor, "queries"],
    *,
    margin: float,
    hard_pool_size: int | None,
    generator: torch.Generator,
) -> Float[Tensor, ""]:
    """Hinge on cosines with one negative per query, both directions.

    Args:
        hard_pool_size: None: negatives at random; else text→video draws from the so many hardest videos and
            video→text takes the hardest sentence of another video.
        generator: draws the negatives (on the CPU, so that every device and process draws the same).
    Returns: 0 when the batch has a single video.
    """
    if similarity.shape[1] < 2:
        return similarity.sum() * 0.0
    queries = torch.arange(len(similarity), device=similarity.device)
    positive = similarity[queries, video_of_query]
    own = F.one_hot(video_of_query, similarity.shape[1]).bool()
    pool = similarity.shape[1] - 1 if hard_pool_size is None else min(hard_pool_size, similarity.shape[1] - 1)
    video = _drawn(similarity.detach().masked_fill(own, float("-inf")), pool, generator)
    text_to_video = (margin + similarity[queries, video] - positive).clamp(min=0)
    total = text_to_video.mean()

    foreign = video_of_query[:, None] != video_of_query[None, :]
    usable = foreign.any(dim=1)
    if bool(usable.any()):
        by_pair = similarity[
            :, video_of_query
        ].t()  # (pair, query): similarity of the pair's video and a query
        masked = by_pair.detach().masked_fill(~foreign, float("-inf"))[usable]
        if hard_pool_size is None:
            noise = torch.rand(masked.shape, generator=generator).to(masked.device)
            negative = noise.masked_fill(~foreign[usable], -1.0).argmax(dim=1)
        else:
            negative = masked.argmax(dim=1)
        rows = queries[usable]
        total = total + (margin + by_pair[rows, negative] - positive[usable]).clamp(min=0).mean()
    return total


def _drawn(
    masked: Float[Tensor, "rows columns"], pool: int, generator: torch.Generator
) -> Int[Tensor, "rows"]:
    """One of the `pool` largest entries of each row, evenly."""
    ranked = masked.topk(pool, dim=1).indices
    place = torch.randint(pool, (len(masked),), generator=generator).to(masked.device)
    return ranked.gather(1, place[:, None])[:, 0]


def query_diversity(
    query: Float[Tensor, "queries hidden"],
    video_of_query: Int[Tensor, "queries"],
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


def retrieval_losses(
    output: RetrievalOutput,
    *,
    margin: float,
    hard_pool_size: int | None,
    generator: torch.Generator,
    nce_temperature: float | None = None,
    clip_pool_temperature: float | None = None,
) -> dict[str, Tensor]:
    """The losses of METHOD §3.4 that every batch has, by name; each at the clip scale and at the frame scale.

    Args:
        nce_temperature: InfoNCE reads cosines divided by this; None: products that are not normalised, as published.
        clip_pool_temperature: a query meets a video by the soft maximum of its cosines with the clips, so that every
            clip learns; None: by its best clip, as published.
    """
    own = output.video_of_query
    query = F.normalize(output.query, dim=-1)
    clip_cosine = _best_clip(query, F.normalize(output.clips, dim=-1), clip_pool_temperature)
    frame_cosine = query @ F.normalize(output.frames, dim=-1).t()
    if nce_temperature is None:
        nce_clip, nce_frame = clip_products(output.query, output.clips), output.query @ output.frames.t()
    else:
        nce_clip, nce_frame = clip_cosine / nce_temperature, frame_cosine / nce_temperature
    hinge = {"margin": margin, "hard_pool_size": hard_pool_size, "generator": generator}
    return {
        "nce_clip": info_nce(nce_clip, own),
        "nce_frame": info_nce(nce_frame, own),
        "triplet_clip": triplet(clip_cosine, own, **hinge),  # type: ignore[arg-type]
        "triplet_frame": triplet(frame_cosine, own, **hinge),  # type: ignore[arg-type]
    }


def _best_clip(
    query: Float[Tensor, "queries hidden"],
    clips: Float[Tensor, "videos clips hidden"],
    temperature: float | None,
) -> Tensor:
    if temperature is None:
        return clip_products(query, clips)
    return soft_max_pool(torch.einsum("qd,vcd->qvc", query, clips).float(), temperature)
