"""The two branches and the two modulators, and which optimiser owns what."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from dciml.method.grounding import GroundingBranch
from dciml.method.mutual import GroundingTeachesRetrieval, RetrievalTeachesGrounding
from dciml.method.retrieval import RetrievalBranch


class DualBranch(nn.Module):
    """Retrieval and grounding. Each parameter belongs to exactly one side; a modulator to the side that it teaches."""

    def __init__(self, retrieval: RetrievalBranch, grounding: GroundingBranch, retrieval_hidden: int) -> None:
        super().__init__()
        self.retrieval, self.grounding = retrieval, grounding
        self.to_retrieval = GroundingTeachesRetrieval(grounding.hidden, retrieval_hidden)
        self.to_grounding = RetrievalTeachesGrounding(retrieval_hidden, grounding.hidden)

    def side(self, name: str) -> Iterator[tuple[str, nn.Parameter]]:
        """Named parameters of one side, `retrieval` or `grounding`."""
        prefixes = {
            "retrieval": ("retrieval.", "to_retrieval."),
            "grounding": ("grounding.", "to_grounding."),
        }[name]
        return ((key, value) for key, value in self.named_parameters() if key.startswith(prefixes))
