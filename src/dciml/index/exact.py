"""Exact search over fused clip vectors: matrix products, then the best clip of each video. NumPy only.

One matrix product beats a search for the k nearest vectors here: the clips of a video are alike, so that
100 videos may take thousands of vectors, and all clip scores of the found videos are needed anyway.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

BLOCK_SCORES = 1 << 25  # clip scores held at once, 128 MiB

FloatArray = NDArray[np.float32]


def similarity_blocks(queries: FloatArray, vectors: FloatArray) -> Iterator[tuple[slice, FloatArray]]:
    """Inner products of queries (Q, D) and clips (V, S, D), by blocks of queries: each (block, V, S)."""
    num_videos, num_clips, width = vectors.shape
    flat = vectors.reshape(-1, width)
    size = max(1, BLOCK_SCORES // max(1, len(flat)))
    for start in range(0, len(queries), size):
        block = slice(start, min(start + size, len(queries)))
        product = queries[block] @ flat.T
        yield block, product.reshape(len(product), num_videos, num_clips)


def pair_similarities(queries: FloatArray, vectors: FloatArray, places: NDArray[np.int64]) -> FloatArray:
    """Inner products of query i with the clips of video `places[i]`: (N, D), (V, S, D) and (N,) → (N, S)."""
    num_clips, width = vectors.shape[1:]
    scores = np.empty((len(queries), num_clips), dtype=np.float32)
    size = max(1, BLOCK_SCORES // (num_clips * width))
    for start in range(0, len(queries), size):
        block = slice(start, start + size)
        scores[block] = np.matmul(vectors[places[block]], queries[block, :, None])[..., 0]
    return scores


def best_places(scores: FloatArray, tie_order: NDArray[np.int64], k: int) -> NDArray[np.int64]:
    """Columns of the k best scores a row, best first, ties by `tie_order`: (Q, V) → (Q, k)."""
    num_columns = scores.shape[1]
    places = np.empty((len(scores), k), dtype=np.int64)
    if k == 0:
        return places
    cut = num_columns - k
    least = np.partition(scores, cut, axis=1)[:, cut]
    for row, (values, limit) in enumerate(zip(scores, least, strict=True)):
        candidates = np.flatnonzero(values >= limit)  # more than k when scores tie at the limit
        order = np.lexsort((tie_order[candidates], -values[candidates]))
        places[row] = candidates[order[:k]]
    return places
