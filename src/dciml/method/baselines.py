"""Models that share the harness with the method: the untrained cosine and the shared space."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from dciml.features import EncodedSentence, l2_normalize
from dciml.method.layers import propagate

Vectors = NDArray[np.float32]


class CosineSpace:
    """Nothing learned: a clip is its mean row, mixed with the mean of the whole video.

    With normalised clips c_j and video mean f, fused clip j is w·c_j + (1 − w)·f: the score of METHOD §3.3,
    s = w·max_j cos(q, c_j) + (1 − w)·cos(q, f), as one inner product a clip.

    Args:
        width: of the video rows and of the sentence vectors.
        clip_weight: w.
        propagation: share of a clip that comes from clips of its video which look alike, see `propagate`; 0: none.
        reach_unit: how far they may be, in unit time.
        blocks: widths and weights of rows of several encoders side by side: the score is then the weighted sum of the
            cosines of each; None: one block.

    >>> CosineSpace(2, clip_weight=0.5).embed_clips(np.eye(2, dtype=np.float32)[None]).round(2).tolist()
    [[[0.8500000238418579, 0.3499999940395355], [0.3499999940395355, 0.8500000238418579]]]
    """

    def __init__(
        self,
        width: int,
        clip_weight: float = 0.7,
        propagation: float = 0.0,
        reach_unit: float = 0.2,
        blocks: Sequence[tuple[int, float]] | None = None,
    ) -> None:
        if not 0 <= clip_weight <= 1:
            raise ValueError(f"clip_weight must be in [0, 1], not {clip_weight}")
        self._blocks = tuple(blocks or ((width, 1.0),))
        if sum(block_width for block_width, _ in self._blocks) != width:
            raise ValueError(f"the blocks {self._blocks} are not {width} wide together")
        self.vector_width, self._clip_weight = width, clip_weight
        self._propagation, self._reach_unit = propagation, reach_unit

    @property
    def blocks(self) -> tuple[tuple[int, float], ...]:
        """Widths and weights of the encoders side by side; one where there is only one."""
        return self._blocks

    def embed_sentences(self, sentences: Sequence[EncodedSentence]) -> Vectors:
        """The encoder's own sentence vectors, (N, width).

        Raises:
            ValueError: the encoder has none, or of another width.
        """
        vectors = [encoded.sentence for encoded in sentences if encoded.sentence is not None]
        if len(vectors) < len(sentences) or any(len(vector) != self.vector_width for vector in vectors):
            raise ValueError(f"the text encoder gives no sentence vectors of width {self.vector_width}")
        if not vectors:
            return np.empty((0, self.vector_width), np.float32)
        return self.weighed(np.stack(vectors))

    def weighed(self, vectors: Vectors) -> Vectors:
        """Queries in the space of the rows, (N, width) → with each block of length 1 times its weight; zeros stay."""
        weighed = [weight * l2_normalize(block) for block, weight in self._split(vectors)]
        return np.concatenate(weighed, axis=-1).astype(np.float32)

    def embed_clips(self, clips: Vectors) -> Vectors:
        """Pooled clips (V, S, width) → fused clips (V, S, width)."""
        return np.concatenate([self._fused(block) for block, _ in self._split(clips)], axis=-1)

    def _split(self, vectors: Vectors) -> Iterator[tuple[Vectors, float]]:
        start = 0
        for width, weight in self._blocks:
            yield vectors[..., start : start + width], weight
            start += width

    def _fused(self, clips: Vectors) -> Vectors:
        unit: Vectors = l2_normalize(clips)
        if self._propagation and len(unit):
            unit = propagate(torch.from_numpy(unit), self._propagation, self._reach_unit).numpy()
        whole = l2_normalize(unit.mean(axis=1, keepdims=True))
        fused: Vectors = self._clip_weight * unit + (1 - self._clip_weight) * whole
        return fused.astype(np.float32)


class SharedSpace(nn.Module):
    """words → attention pooling → linear; clips → linear; both L2-normalised.

    Args:
        text_width: of contextual word rows.
        video_width: of video rows.
        width: of the shared space.
        dropout: on the inputs of both linear layers, while training.
    """

    def __init__(self, text_width: int, video_width: int, width: int = 256, dropout: float = 0.1) -> None:
        super().__init__()
        self.vector_width = width
        self.word_score = nn.Linear(text_width, 1)
        self.text = nn.Linear(text_width, width)
        self.video = nn.Linear(video_width, width)
        self.dropout = nn.Dropout(dropout)
        nn.init.zeros_(self.word_score.weight)  # attention starts as the plain mean of the words

    def encode_words(
        self, words: Float[Tensor, "queries words text"], word_mask: Bool[Tensor, "queries words"]
    ) -> Float[Tensor, "queries width"]:
        """Unit query vectors; padding (mask False) has no say."""
        scores = self.word_score(words)[..., 0].masked_fill(~word_mask, float("-inf"))
        pooled = torch.einsum("ql,qlw->qw", scores.softmax(dim=-1), words)
        return F.normalize(self.text(self.dropout(pooled)), dim=-1)

    def encode_clips(self, clips: Float[Tensor, "videos clips video"]) -> Float[Tensor, "videos clips width"]:
        """Unit clip vectors from pooled rows, which are normalised first."""
        return F.normalize(self.video(self.dropout(F.normalize(clips.float(), dim=-1))), dim=-1)

    def similarity(
        self, queries: Float[Tensor, "queries width"], clips: Float[Tensor, "videos clips width"]
    ) -> Float[Tensor, "queries videos clips"]:
        """Cosine of every query with every clip."""
        flat = queries @ clips.flatten(0, 1).T  # (queries, videos·clips)
        return flat.view(len(queries), *clips.shape[:2])

    @torch.inference_mode()
    def embed_sentences(self, sentences: Sequence[EncodedSentence]) -> Vectors:
        """Query vectors (N, width) for search; call it in evaluation mode."""
        words, mask = pad_words(sentences)
        vectors: Vectors = self.encode_words(words.to(self._device), mask.to(self._device)).cpu().numpy()
        return vectors

    @torch.inference_mode()
    def embed_clips(self, clips: Vectors) -> Vectors:
        """Clip vectors (V, S, width) for the index, from pooled rows (V, S, video_width)."""
        vectors: Vectors = self.encode_clips(torch.from_numpy(clips).to(self._device)).cpu().numpy()
        return vectors

    @property
    def _device(self) -> torch.device:
        return self.text.weight.device


def pad_words(sentences: Sequence[EncodedSentence]) -> tuple[Tensor, Tensor]:
    """Contextual rows of N sentences as (N, L, width), zeros at the end, and their mask (N, L)."""
    longest = max(len(encoded.words) for encoded in sentences)
    words = np.zeros((len(sentences), longest, sentences[0].contextual.shape[1]), dtype=np.float32)
    mask = np.zeros((len(sentences), longest), dtype=bool)
    for row, encoded in enumerate(sentences):
        words[row, : len(encoded.words)] = encoded.contextual
        mask[row, : len(encoded.words)] = True
    return torch.from_numpy(words), torch.from_numpy(mask)
