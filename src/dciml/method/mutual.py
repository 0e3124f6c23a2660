"""Both branches and what passes between them: modulation (FiLM), best proposal, best clip (METHOD §5)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from dciml.method.batch import Batch
from dciml.method.grounding import GroundingBranch
from dciml.method.layers import as_teacher
from dciml.method.outputs import (
    BestClip,
    ModulatedVideos,
    Proposals,
    RetrievalOutput,
    Selection,
    Windows,
    paired_similarity,
)
from dciml.method.retrieval import RetrievalBranch
from dciml.method.terms import Side


class Film(nn.Module):
    """γ ⊙ x + β, with γ and β each a two-layer perceptron of a condition. Starts near the identity (γ = 1, β = 0)."""

    def __init__(self, condition_width: int, width: int) -> None:
        super().__init__()
        self.gamma, self.beta = (_perceptron(condition_width, width) for _ in range(2))

    def forward(
        self, x: Float[Tensor, "batch length width"], condition: Float[Tensor, "batch condition"]
    ) -> Float[Tensor, "batch length width"]:
        out: Tensor = (1 + self.gamma(condition))[:, None] * x + self.beta(condition)[:, None]
        return out


def _perceptron(condition_width: int, width: int) -> nn.Sequential:
    last = nn.Linear(width, width)
    nn.init.zeros_(last.bias)
    return nn.Sequential(nn.Linear(condition_width, width), nn.ReLU(), last)


class GroundingTeachesRetrieval(nn.Module):
    """Modulates a query's own clips and frame vector by what the grounding branch sees in its best proposal.

    Belongs to the retrieval optimiser. Query i is modulated by its own video (the published code is off by one).
    """

    def __init__(self, grounding_hidden: int, retrieval_hidden: int) -> None:
        super().__init__()
        self.clip_project = nn.Linear(grounding_hidden, retrieval_hidden)
        self.clip_film = Film(retrieval_hidden, retrieval_hidden)
        self.frame_film = Film(retrieval_hidden, retrieval_hidden)

    def forward(
        self, output: RetrievalOutput, condition: Float[Tensor, "queries grounding"]
    ) -> ModulatedVideos:
        """Modulated clips and frame vector of each query's own video."""
        projected = self.clip_project(condition)
        clips = self.clip_film(output.clips[output.video_of_query], projected)
        frames = self.frame_film(output.frames[output.video_of_query][:, None], projected)[:, 0]
        return ModulatedVideos(clips, frames)


class RetrievalTeachesGrounding(nn.Module):
    """Modulates a query's own frames by its best clip's retrieval feature. Belongs to the grounding optimiser."""

    def __init__(self, retrieval_hidden: int, grounding_hidden: int) -> None:
        super().__init__()
        self.film = Film(retrieval_hidden, grounding_hidden)

    def forward(
        self,
        frames: Float[Tensor, "queries positions hidden"],
        condition: Float[Tensor, "queries retrieval"],
    ) -> Float[Tensor, "queries positions hidden"]:
        out: Tensor = self.film(frames, condition)
        return out


def best_clip(
    retrieval: RetrievalBranch, batch: Batch, num_windows: int | None = None, floor: float = 0.0
) -> BestClip:
    """Find each query's best clip in the paired video (published code: in the best video of the batch).

    The scale that knows best decides: the local one, where there is one.

    Args:
        num_windows: how many of the best windows come with it; None: none.
        floor: see `best_windows`.
    """
    queries, owner = retrieval.encode_queries(batch.queries), batch.video_of_query
    own = retrieval.encode_clips(batch.videos)[owner]
    if queries.local is not None and retrieval.local is not None:
        similarity = paired_similarity(queries.local, retrieval.encode_local_clips(batch.videos)[owner])
    else:
        similarity = paired_similarity(queries.context, own)
    index = similarity.argmax(dim=1)
    centers = batch.videos.clip_centers[owner].gather(1, index[:, None])[:, 0]
    windows = None if num_windows is None else best_windows(similarity, num_windows, floor=floor)
    return BestClip(centers, own[torch.arange(len(index), device=index.device), index], windows)


BELOW_FLOOR = 0.1


def best_windows(
    similarity: Float[Tensor, "queries clips"],
    count: int,
    temperature: float = 0.1,
    max_iou: float = 0.5,
    floor: float = 0.0,
) -> Windows:
    """The runs of clips whose contrast is highest, each overlapping the better ones by at most `max_iou`.

    The contrast of clips i to j is the correlation of the similarity with being inside; 0 for the whole video.

    Args:
        temperature: of the softmax over contrasts that gives the shares.
        floor: share of the clips, those that fit least, that count nearly alike (docs/decisions/0022).
    """
    if floor:
        least = similarity.float().quantile(floor, dim=1, keepdim=True)
        similarity = torch.where(similarity < least, least + BELOW_FLOOR * (similarity - least), similarity)
    num_clips = similarity.shape[1]
    starts, ends, iou = _all_windows(num_clips, similarity.device)
    centred = similarity.float() - similarity.float().mean(dim=1, keepdim=True)
    spread = centred.square().sum(dim=1, keepdim=True).sqrt().clamp(min=1e-6)
    sums = F.pad(centred.cumsum(dim=1), (1, 0))
    length = (ends - starts).float()
    inside = (length * (1 - length / num_clips)).sqrt().clamp(min=1e-6)
    contrast = (sums[:, ends] - sums[:, starts]) / (inside * spread)
    contrast = contrast.masked_fill(length == num_clips, 0.0)
    left, chosen = contrast.clone(), []
    for _ in range(min(count, num_clips)):
        best = left.argmax(dim=1)
        chosen.append(best)
        left = left.masked_fill(iou[best] > max_iou, float("-inf"))
    index = torch.stack(chosen, dim=1)
    shares = torch.softmax(contrast.gather(1, index) / temperature, dim=1)
    return Windows((starts + ends)[index] / (2 * num_clips), length[index] / num_clips, shares)


@lru_cache(maxsize=1)
@torch.inference_mode(False)  # what is kept must also serve where gradients are wanted
def _all_windows(num_clips: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """First clip, clip behind the last, and IoU with one another, of all runs of clips."""
    starts, ends = torch.triu_indices(num_clips, num_clips, device=device)
    ends = ends + 1
    length = (ends - starts).float()
    overlap = (torch.minimum(ends[:, None], ends) - torch.maximum(starts[:, None], starts)).clamp(min=0)
    return starts, ends, overlap / (length[:, None] + length - overlap)


def anchors_of(
    similarity: Float[Tensor, "queries clips"], count: int, floor: float
) -> Float[Tensor, "queries proposals 3"]:
    """Centre, width and share of the best windows, best first; the last one again where a video has too few clips."""
    windows = best_windows(similarity, count, floor=floor)
    anchors = torch.stack([windows.centers, windows.widths, windows.shares], dim=-1)
    missing = count - anchors.shape[1]
    return torch.cat([anchors, anchors[:, -1:].expand(-1, missing, -1)], dim=1) if missing else anchors


def proposal_feature(
    grounding: GroundingBranch, batch: Batch, best: Proposals
) -> Float[Tensor, "queries hidden"]:
    """The frame stack's output under the best proposal, averaged over time."""
    sampled = grounding.sampled_frames(batch.videos)
    return grounding.mean_under(sampled, batch.video_of_query, grounding.log_weights(best)[:, 0])


class DualBranch(nn.Module):
    """Retrieval and grounding. Each parameter belongs to exactly one side; a modulator to the side that it teaches."""

    def __init__(self, retrieval: RetrievalBranch, grounding: GroundingBranch, retrieval_hidden: int) -> None:
        super().__init__()
        self.retrieval, self.grounding = retrieval, grounding
        self.to_retrieval = GroundingTeachesRetrieval(grounding.hidden, retrieval_hidden)
        self.to_grounding = RetrievalTeachesGrounding(retrieval_hidden, grounding.hidden)

    def anchored(self, batch: Batch) -> Batch:
        """The batch with the anchors of its sentences, which the local scale finds in their own videos (METHOD §5.6).

        The same batch where proposals have no anchors. No gradient leads into the local scale.
        """
        if not self.grounding.anchored:
            return batch
        local = self.retrieval.local
        assert local is not None
        with as_teacher(self.retrieval):
            own = self.retrieval.encode_local_clips(batch.videos)[batch.video_of_query]
            anchors = self.anchors(local.encode_queries(batch.queries), own)
        return replace(batch, queries=replace(batch.queries, anchors=anchors))

    def anchors(
        self, query: Float[Tensor, "queries local"], own_clips: Float[Tensor, "queries clips local"]
    ) -> Float[Tensor, "queries proposals 3"]:
        """The anchors of each query in the clips beside it, both as the local scale encodes them."""
        grounding = self.grounding
        return anchors_of(
            paired_similarity(query, own_clips), grounding.num_proposals, grounding.anchor_floor
        )

    @torch.no_grad()
    def warm_start(self) -> nn.Parameter:
        """Project frames in grounding as the local scale projects clips, as far as the width goes (METHOD §5.7).

        The leading directions of the local projection, as large together as the weights that they replace.
        Returns: what was changed.
        """
        local, weight = self.retrieval.local, self.grounding.frame_project.weight
        assert local is not None
        assert isinstance(weight, nn.Parameter)
        projection = local.video.weight
        if local.shared:
            projection = projection + torch.eye(*projection.shape, device=projection.device)
        _, values, directions = torch.linalg.svd(projection.float(), full_matrices=False)
        leading = (values[:, None] * directions)[: len(weight)]
        rest = weight[len(leading) :]
        leading = leading * (weight[: len(leading)].norm() / leading.norm().clamp(min=1e-12))
        weight.copy_(torch.cat([leading, rest]))
        return weight

    def select(self, batch: Batch) -> Selection:
        """Judge every proposal of each sentence, with its anchors."""
        return self.grounding.select(self.anchored(batch))

    def side(self, name: Side) -> Iterator[tuple[str, nn.Parameter]]:
        """Named parameters of one side, `retrieval` or `grounding`."""
        prefixes = {
            "retrieval": ("retrieval.", "to_retrieval."),
            "grounding": ("grounding.", "to_grounding."),
        }[name]
        return ((key, value) for key, value in self.named_parameters() if key.startswith(prefixes))
