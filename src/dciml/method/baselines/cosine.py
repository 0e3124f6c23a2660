"""The untrained baseline: sentence vectors and video rows that already share a space, compared as they are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dciml.features.base import EncodedSentence
from dciml.features.pooling import l2_normalize

Vectors = NDArray[np.float32]


class CosineSpace:
    """Nothing learned: a clip is its mean row, mixed with the mean of the whole video.

    With normalised clips c_j and video mean f, fused clip j is w·c_j + (1 − w)·f: the score of METHOD §3.3,
    s = w·max_j cos(q, c_j) + (1 − w)·cos(q, f), as one inner product a clip.

    Args:
        width: of the video rows and of the sentence vectors.
        clip_weight: w.

    >>> CosineSpace(2, clip_weight=0.5).embed_clips(np.eye(2, dtype=np.float32)[None]).round(2).tolist()
    [[[0.8500000238418579, 0.3499999940395355], [0.3499999940395355, 0.8500000238418579]]]
    """

    def __init__(self, width: int, clip_weight: float = 0.7) -> None:
        if not 0 <= clip_weight <= 1:
            raise ValueError(f"clip_weight must be in [0, 1], not {clip_weight}")
        self.vector_width, self._clip_weight = width, clip_weight

    def embed_sentences(self, sentences: Sequence[EncodedSentence]) -> Vectors:
        """The encoder's own sentence vectors, (N, width).

        Raises:
            ValueError: the encoder has none, or of another width.
        """
        vectors = [encoded.sentence for encoded in sentences if encoded.sentence is not None]
        if len(vectors) < len(sentences) or any(len(vector) != self.vector_width for vector in vectors):
            raise ValueError(f"the text encoder gives no sentence vectors of width {self.vector_width}")
        return l2_normalize(np.stack(vectors)) if vectors else np.empty((0, self.vector_width), np.float32)

    def embed_clips(self, clips: Vectors) -> Vectors:
        """Pooled clips (V, S, width) → fused clips (V, S, width)."""
        unit = l2_normalize(clips)
        whole = l2_normalize(unit.mean(axis=1, keepdims=True))
        fused: Vectors = self._clip_weight * unit + (1 - self._clip_weight) * whole
        return fused.astype(np.float32)
