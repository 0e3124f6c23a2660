"""What search and evaluation need from a model, trained or not; the baselines implement it too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from dciml.features.store import FeatureStore


@dataclass(frozen=True)
class Grounding:
    """Candidate spans for N (sentence, video) pairs, P each, best first by the model's own choice.

    `spans_unit` is (N, P, 2), start and end in unit time; `scores` is (N, P), higher is better (for the
    reconstruction branch: minus the negative log-likelihood), non-increasing along P.
    """

    spans_unit: NDArray[np.float64]
    scores: NDArray[np.float64]


class Engine(Protocol):
    """A model as search sees it.

    The score of a query and a video is `max_j ⟨query, fused clip j⟩`: one vector a clip, so that any index of
    inner products can search (0.7·cos(q, clip) + 0.3·cos(q, frames) = ⟨q̂, 0.7·ĉ + 0.3·f̂⟩).
    """

    @property
    def fingerprint(self) -> str:
        """Changes whenever weights, encoders or pooling change; an index built with another one is refused."""

    @property
    def num_clips(self) -> int:
        """Clips a video (S)."""

    @property
    def vector_width(self) -> int:
        """Width of query vectors and fused clip vectors (D)."""

    def fused_clips(self, store: FeatureStore, video_ids: Sequence[str]) -> NDArray[np.float32]:
        """Fused clip vectors, (videos, S, D). Raises DataError for a video that the store does not hold."""

    def embed_queries(self, sentences: Sequence[str]) -> NDArray[np.float32]:
        """Query vectors, (sentences, D). Raises DataError for a sentence without words."""

    def ground(self, store: FeatureStore, sentences: Sequence[str], video_ids: Sequence[str]) -> Grounding:
        """Ground sentence i in video i; the two sequences have equal length N."""
