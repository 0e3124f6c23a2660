"""Clip vectors and queries that look like a trained model's, for benchmarks of the search.

The numbers below were measured on the retrieval branch trained on QVHighlights' captions (2,284 videos, 32 clips
each, 384 numbers a vector): how the energy of a video's mean and of its clips' departures from it falls over the
principal axes, how much of it is in which, how alike neighbouring clips are, and how far above the others the
best, 10th and 100th video of a sentence score. A video is a Gaussian mean plus a Gaussian first-order
autoregression over its clips; a query is a mixture of one clip's direction and noise.

    measured / made: departures to means in energy 0.61 / 0.62; neighbouring departures' cosine 0.35 / 0.40;
    best video 3.1 / 3.5 standard deviations above the median video, 10th 2.5 / 2.5, 100th of 1,500 1.6 / 1.5;
    spread of clip scores inside the first videos, in standard deviations over videos, 0.56 / 0.60.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]
WIDTH, CLIPS = 384, 32
BLOCK = 512  # videos made at a time; video n depends on the seed and n alone
MEAN_ENERGY, CLIP_ENERGY, NORM = 1.178, 0.796, 0.6
NEIGHBOURS = 0.45
TO_CLIP = 0.55  # cosine of a query and the clip that it is about
MEAN_SPECTRUM = {
    0: 0.199,
    1: 0.095,
    2: 0.073,
    5: 0.047,
    10: 0.017,
    20: 0.0085,
    50: 0.0024,
    100: 6e-4,
    150: 2e-4,
    383: 1e-5,
}
CLIP_SPECTRUM = {
    0: 0.063,
    1: 0.051,
    2: 0.047,
    5: 0.029,
    10: 0.017,
    20: 0.011,
    50: 0.0046,
    100: 0.0018,
    150: 8e-4,
    383: 2e-4,
}


def spectrum(points: dict[int, float]) -> NDArray[np.float64]:
    """Shares of the energy of WIDTH axes, between the given ones by a power law."""
    logs = np.interp(np.log1p(np.arange(WIDTH)), np.log1p(list(points)), np.log(list(points.values())))
    return np.exp(logs) / np.exp(logs).sum()


class MadeVectors:
    """A corpus of any size, made as it is read."""

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed
        generator = np.random.default_rng(seed)
        axes, _ = np.linalg.qr(generator.normal(size=(WIDTH, WIDTH)))
        self._means = (axes * np.sqrt(MEAN_ENERGY * spectrum(MEAN_SPECTRUM))).T.astype(np.float32)
        self._clips = (axes * np.sqrt(CLIP_ENERGY * spectrum(CLIP_SPECTRUM))).T.astype(np.float32)
        centre = generator.normal(size=WIDTH)
        self._centre = (0.7 * centre / np.linalg.norm(centre)).astype(np.float32)

    def block(self, number: int) -> FloatArray:
        """Videos BLOCK · number and following: (BLOCK, CLIPS, WIDTH)."""
        generator = np.random.default_rng([self._seed, number])
        means = generator.standard_normal((BLOCK, WIDTH), dtype=np.float32) @ self._means + self._centre
        steps = generator.standard_normal((BLOCK, CLIPS, WIDTH), dtype=np.float32)
        for clip in range(1, CLIPS):
            steps[:, clip] *= np.float32(np.sqrt(1 - NEIGHBOURS**2))
            steps[:, clip] += np.float32(NEIGHBOURS) * steps[:, clip - 1]
        steps -= steps.mean(axis=1, keepdims=True)
        departures = (steps.reshape(-1, WIDTH) @ self._clips).reshape(steps.shape)
        vectors: FloatArray = (means[:, None] + departures) * np.float32(NORM)
        return vectors

    def queries(self, count: int, num_videos: int) -> FloatArray:
        """(count, WIDTH), of unit length, each about a clip of one of the first `num_videos` videos."""
        generator = np.random.default_rng([self._seed, num_videos, count, 1])
        found = []
        for number in generator.integers(0, max(1, num_videos // BLOCK), count).tolist():
            clip = (
                self.block(number)[generator.integers(BLOCK), generator.integers(CLIPS)] / NORM - self._centre
            )
            noise = generator.standard_normal(WIDTH).astype(np.float32) @ self._clips
            mixed = TO_CLIP * clip / np.linalg.norm(clip)
            mixed = mixed + np.sqrt(1 - TO_CLIP**2) * noise / np.linalg.norm(noise)
            found.append(mixed / np.linalg.norm(mixed))
        return np.array(found, dtype=np.float32)
