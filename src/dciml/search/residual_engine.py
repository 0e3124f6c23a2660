"""A trained engine beside the untrained cosine, where sentences and video rows share a space.

Few training pairs can spoil a space that was good from the start. Here the score of a clip is the learned one plus
`weight` times the cosine of sentence vector and clip: still one inner product, of vectors laid end to end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dciml.features.store import FeatureStore
from dciml.method.baselines.cosine import CosineSpace
from dciml.search.baseline_engine import BaselineEngine
from dciml.search.dual_engine import DualEngine
from dciml.search.engine import Grounding


@dataclass(frozen=True)
class ResidualEngine:
    """The learned engine and the untrained one as one engine; grounding is the learned one's."""

    learned: DualEngine
    untrained: BaselineEngine
    weight: float

    @classmethod
    def around(
        cls, learned: DualEngine, video_width: int, store_encoder: str, weight: float
    ) -> ResidualEngine:
        """Add the untrained cosine of the same text encoder. The encoder's sentence vectors have `video_width`."""
        space = CosineSpace(video_width)
        untrained = BaselineEngine(
            space,
            learned.text_encoder,
            learned.num_clips,
            f"zero-shot {learned.text_encoder.name}",
            store_encoder,
        )
        return cls(learned, untrained, weight)

    @property
    def fingerprint(self) -> str:
        """Of the learned engine; it covers the settings, and `weight` is one."""
        return self.learned.fingerprint

    @property
    def num_clips(self) -> int:
        """Clips a video."""
        return self.learned.num_clips

    @property
    def vector_width(self) -> int:
        """Both widths together."""
        return self.learned.vector_width + self.untrained.vector_width

    def fused_clips(self, store: FeatureStore, video_ids: Sequence[str]) -> NDArray[np.float32]:
        """Fused clip vectors, (videos, S, D). Raises DataError for an unknown video."""
        untrained = self.untrained.fused_clips(store, video_ids)
        return np.concatenate([self.learned.fused_clips(store, video_ids), self.weight * untrained], axis=-1)

    def embed_queries(self, sentences: Sequence[str]) -> NDArray[np.float32]:
        """Query vectors, (sentences, D). Raises DataError for a sentence without a word."""
        return np.concatenate(
            [self.learned.embed_queries(sentences), self.untrained.embed_queries(sentences)], axis=-1
        )

    def ground(self, store: FeatureStore, sentences: Sequence[str], video_ids: Sequence[str]) -> Grounding:
        """The learned engine's proposals."""
        return self.learned.ground(store, sentences, video_ids)
