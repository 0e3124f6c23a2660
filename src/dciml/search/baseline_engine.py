"""The baselines as search and evaluation see them (see `engine.Engine`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from dciml.features.base import EncodedSentence, TextEncoder
from dciml.features.pooling import mean_pool
from dciml.features.store import FeatureStore
from dciml.search.engine import Grounding
from dciml.search.windows import contrast_windows

NUM_WINDOWS = 10  # as many as the grounding branch has proposals
MAX_WINDOW_IOU = 0.7
_SENTENCES_AT_ONCE, _VIDEOS_AT_ONCE = 256, 64
Vectors = NDArray[np.float32]


class Space(Protocol):
    """Where sentences and clips are compared by inner product: `CosineSpace` or `SharedSpace`."""

    @property
    def vector_width(self) -> int:
        """Width of all vectors."""

    def embed_sentences(self, sentences: Sequence[EncodedSentence]) -> Vectors:
        """(N, vector_width)."""

    def embed_clips(self, clips: Vectors) -> Vectors:
        """Pooled clips (V, S, video width) → (V, S, vector_width)."""


@dataclass(frozen=True)
class BaselineEngine:
    """A space with its text encoder; it grounds by the windows of the best contrast.

    `space` is in evaluation mode; `store_encoder` names the features that it reads.
    """

    space: Space
    text_encoder: TextEncoder
    num_clips: int
    fingerprint: str
    store_encoder: str

    @property
    def vector_width(self) -> int:
        """Width of query and clip vectors."""
        return self.space.vector_width

    def fused_clips(self, store: FeatureStore, video_ids: Sequence[str]) -> Vectors:
        """Fused clip vectors, (videos, S, D). Raises DataError for a video that the store does not hold."""
        parts = [np.empty((0, self.num_clips, self.vector_width), dtype=np.float32)]
        for start in range(0, len(video_ids), _VIDEOS_AT_ONCE):
            clips = pooled_clips(store, video_ids[start : start + _VIDEOS_AT_ONCE], self.num_clips)
            parts.append(self.space.embed_clips(clips))
        return np.concatenate(parts)

    def embed_queries(self, sentences: Sequence[str]) -> Vectors:
        """Unit query vectors, (sentences, D). Raises DataError for a sentence without words."""
        parts = [np.empty((0, self.vector_width), dtype=np.float32)]
        for start in range(0, len(sentences), _SENTENCES_AT_ONCE):
            encoded = self.text_encoder.encode(sentences[start : start + _SENTENCES_AT_ONCE])
            parts.append(self.space.embed_sentences(encoded))
        return np.concatenate(parts)

    def ground(self, store: FeatureStore, sentences: Sequence[str], video_ids: Sequence[str]) -> Grounding:
        """The windows of best contrast for sentence i in video i; their contrast is their score."""
        unique = list(dict.fromkeys(video_ids))
        place = {video_id: row for row, video_id in enumerate(unique)}
        fused, queries = self.fused_clips(store, unique), self.embed_queries(sentences)
        similarity = np.empty((len(sentences), self.num_clips), dtype=np.float32)
        for row, video_id in enumerate(video_ids):
            similarity[row] = fused[place[video_id]] @ queries[row]
        counts = [store.num_rows(video_id) for video_id in video_ids]
        spans, contrast = contrast_windows(similarity, NUM_WINDOWS, MAX_WINDOW_IOU, counts)
        return Grounding(spans, contrast.astype(np.float64))


def pooled_clips(store: FeatureStore, video_ids: Sequence[str], num_clips: int) -> Vectors:
    """The rows of each video pooled to S clips, (videos, S, width). Raises DataError for an unknown video."""
    return np.stack([mean_pool(store.rows(video_id), num_clips) for video_id in video_ids])
