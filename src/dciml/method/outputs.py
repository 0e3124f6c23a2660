"""What the branches give, and what they tell each other, by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class EncodedVideos:
    """Clip vectors and the frame vector of each video, not normalised; `local_clips` where there is a local scale."""

    clips: Float[Tensor, "videos clips hidden"]
    frames: Float[Tensor, "videos hidden"]
    local_clips: Float[Tensor, "videos clips local"] | None = None

    @classmethod
    def together(cls, parts: Sequence[EncodedVideos]) -> EncodedVideos:
        """The videos of all parts, one after the other."""
        local = [part.local_clips for part in parts if part.local_clips is not None]
        clips, frames = (torch.cat([getattr(part, name) for part in parts]) for name in ("clips", "frames"))
        return cls(clips, frames, torch.cat(local) if local else None)


@dataclass(frozen=True)
class EncodedQueries:
    """One vector a sentence for the clip and the frame scale, and one for the local scale; not normalised."""

    context: Float[Tensor, "queries hidden"]
    local: Float[Tensor, "queries local"] | None = None


@dataclass(frozen=True)
class LocalOutput:
    """Embeddings of the local scale, not normalised."""

    query: Float[Tensor, "queries local"]
    clips: Float[Tensor, "videos clips local"]


@dataclass(frozen=True)
class RetrievalOutput:
    """Embeddings, not normalised. `video_of_query[i]` is the row in `clips` and `frames` of query i's own video.

    `local` is None where the branch has no local scale.
    """

    query: Float[Tensor, "queries hidden"]
    clips: Float[Tensor, "videos clips hidden"]
    frames: Float[Tensor, "videos hidden"]
    video_of_query: Int[Tensor, " queries"]
    local: LocalOutput | None = None

    def at(self, places: Int[Tensor, " chosen"]) -> RetrievalOutput:
        """The queries at these places, with all videos."""
        local = None if self.local is None else LocalOutput(self.local.query[places], self.local.clips)
        return RetrievalOutput(
            self.query[places], self.clips, self.frames, self.video_of_query[places], local
        )

    def first(self, count: int) -> RetrievalOutput:
        """The first so many queries, with all videos."""
        if count == len(self.query):
            return self
        local = None if self.local is None else LocalOutput(self.local.query[:count], self.local.clips)
        return RetrievalOutput(
            self.query[:count], self.clips, self.frames, self.video_of_query[:count], local
        )

    def paired_similarity(self) -> Float[Tensor, "queries clips"]:
        """cos(q, C_j) of each query and the clips of its own video."""
        return paired_similarity(self.query, self.clips[self.video_of_query])


def paired_similarity(
    query: Float[Tensor, "queries hidden"], own_clips: Float[Tensor, "queries clips hidden"]
) -> Float[Tensor, "queries clips"]:
    """cos(q, C_j) of each query and the clips beside it."""
    return (F.normalize(own_clips, dim=-1) @ F.normalize(query, dim=-1)[:, :, None])[..., 0]


@dataclass(frozen=True)
class ModulatedVideos:
    """Each query's own video as the other branch modulates it: its clips, and its frame vector."""

    clips: Float[Tensor, "queries clips hidden"]
    frames: Float[Tensor, "queries hidden"]


@dataclass(frozen=True)
class Windows:
    """Runs of clips that fit a query better than the rest of its own video, best first, as fixed values in unit time.

    `shares` say how sure each is; those of a query sum to 1.
    """

    centers: Float[Tensor, "queries windows"]
    widths: Float[Tensor, "queries windows"]
    shares: Float[Tensor, "queries windows"]


@dataclass(frozen=True)
class BestClip:
    """The clip of a query's *own* video that is most like the query: its centre in unit time and its feature.

    `windows` where the explicit pathway teaches by windows.
    """

    center_unit: Float[Tensor, " queries"]
    feature: Float[Tensor, "queries hidden"]
    windows: Windows | None = None


@dataclass(frozen=True)
class Proposals:
    """P candidate spans for each query, as centre and width in unit time.

    `log_prior` says how likely each is before the sentence is reconstructed; None: all alike.
    """

    centers: Float[Tensor, "queries proposals"]
    widths: Float[Tensor, "queries proposals"]
    log_prior: Float[Tensor, "queries proposals"] | None = None

    def detach(self) -> Proposals:
        """The same values without a gradient."""
        return Proposals(self.centers.detach(), self.widths.detach(), self.log_prior)

    def at(self, index: Int[Tensor, " queries"]) -> Proposals:
        """One proposal a query, (queries, 1)."""
        chosen = index[:, None]
        return Proposals(self.centers.gather(1, chosen), self.widths.gather(1, chosen))

    def starts(self) -> Float[Tensor, "queries proposals"]:
        """Start in unit time, clamped to [0, 1]."""
        return (self.centers - self.widths / 2).clamp(0, 1)

    def ends(self) -> Float[Tensor, "queries proposals"]:
        """End in unit time, clamped to [0, 1]."""
        return (self.centers + self.widths / 2).clamp(0, 1)


@dataclass(frozen=True)
class Selection:
    """What the reconstruction chose, as fixed values: all proposals, their NLL, and the index of the best.

    `cost` decides: the NLL, less what is known of the proposal beforehand.
    """

    proposals: Proposals
    nll: Float[Tensor, "queries proposals"]
    cost: Float[Tensor, "queries proposals"]
    best_index: Int[Tensor, " queries"]

    @classmethod
    def of(cls, proposals: Proposals, nll: Float[Tensor, "queries proposals"]) -> Selection:
        """The proposal of the lowest cost is the best."""
        cost = nll if proposals.log_prior is None else nll - proposals.log_prior
        return cls(proposals, nll, cost, cost.argmin(dim=1))

    def best(self) -> Proposals:
        """The best proposal of each query, (queries, 1)."""
        return self.proposals.at(self.best_index)


@dataclass(frozen=True)
class Reconstructions:
    """NLL of each sentence, in nats, as reconstructed from different views of its video (METHOD §4.4).

    Attributes:
        best: under the best proposal.
        left, right: in the room beside it.
        whole: from the whole video, the reference.
        modulated: under the best proposal of modulated frames; None where none were.
    """

    best: Float[Tensor, " queries"]
    left: Float[Tensor, " queries"]
    right: Float[Tensor, " queries"]
    whole: Float[Tensor, " queries"]
    modulated: Float[Tensor, " queries"] | None = None


@dataclass(frozen=True)
class GroundingOutput:
    """Proposals, and the NLL of each sentence by what it was reconstructed from.

    `sampled` are the frames that the reconstruction read, for each video. Where they were modulated, `modulated` are
    each query's own.
    """

    proposals: Proposals
    best_index: Int[Tensor, " queries"]
    nll: Reconstructions
    sampled: Float[Tensor, "videos positions hidden"]
    modulated: Float[Tensor, "queries positions hidden"] | None = None
