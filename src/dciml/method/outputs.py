"""What the branches give, by name."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class RetrievalOutput:
    """Embeddings, not normalised. `video_of_query[i]` is the row in `clips` and `frames` of query i's own video."""

    query: Float[Tensor, "queries hidden"]
    clips: Float[Tensor, "videos clips hidden"]
    frames: Float[Tensor, "videos hidden"]
    video_of_query: Int[Tensor, "queries"]

    def at(self, places: Int[Tensor, "chosen"]) -> RetrievalOutput:
        """The queries at these places, with all videos."""
        return RetrievalOutput(self.query[places], self.clips, self.frames, self.video_of_query[places])

    def paired_similarity(self) -> Float[Tensor, "queries clips"]:
        """cos(q, C_j) of each query and the clips of its own video."""
        return paired_similarity(self.query, self.clips[self.video_of_query])


def paired_similarity(
    query: Float[Tensor, "queries hidden"], own_clips: Float[Tensor, "queries clips hidden"]
) -> Float[Tensor, "queries clips"]:
    """cos(q, C_j) of each query and the clips beside it."""
    return (F.normalize(own_clips, dim=-1) @ F.normalize(query, dim=-1)[:, :, None])[..., 0]


@dataclass(frozen=True)
class Proposals:
    """P candidate spans for each query, as centre and width in unit time."""

    centers: Float[Tensor, "queries proposals"]
    widths: Float[Tensor, "queries proposals"]

    def detach(self) -> Proposals:
        """The same values without a gradient."""
        return Proposals(self.centers.detach(), self.widths.detach())

    def at(self, index: Int[Tensor, "queries"]) -> Proposals:
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
    """What the reconstruction chose, as fixed values: all proposals, their NLL, and the index of the lowest."""

    proposals: Proposals
    nll: Float[Tensor, "queries proposals"]
    best_index: Int[Tensor, "queries"]

    def best(self) -> Proposals:
        """The best proposal of each query, (queries, 1)."""
        return self.proposals.at(self.best_index)


@dataclass(frozen=True)
class GroundingOutput:
    """Proposals, and the NLL of the sentence under the best one, beside it, and under the whole video.

    `sampled` are the frames that the reconstruction read, for each video. Where they were modulated, `modulated` are
    each query's own, and `nll_modulated` is the NLL under the best proposal of these.
    """

    proposals: Proposals
    best_index: Int[Tensor, "queries"]
    nll_best: Float[Tensor, "queries"]
    nll_left: Float[Tensor, "queries"]
    nll_right: Float[Tensor, "queries"]
    nll_reference: Float[Tensor, "queries"]
    sampled: Float[Tensor, "videos positions hidden"]
    modulated: Float[Tensor, "queries positions hidden"] | None = None
    nll_modulated: Float[Tensor, "queries"] | None = None
