"""VR: at which rank does the true video stand among all videos of the corpus?

A tie counts against: the true video is placed after every other video with an equal score, so that a model
which gives all videos the same score is last, not first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dciml.metrics.per_query import FloatArray, PerQuery, join
from dciml.types import Query

FIRST = (1, 5, 10, 100)


def true_ranks(scores: ArrayLike, true_columns: ArrayLike) -> NDArray[np.int64]:
    """Rank (from 1) of the true video of each query.

    Args:
        scores: (Q, V), higher is better.
        true_columns: (Q,), the column of each query's true video.
    Raises:
        ValueError: a score is NaN or infinite.

    >>> true_ranks([[0.9, 0.1, 0.5], [0.3, 0.3, 0.1]], [2, 0]).tolist()
    [2, 2]
    """
    array = np.asarray(scores)
    if not np.isfinite(array).all():
        raise ValueError("a score is not a finite number")
    own = np.take_along_axis(array, np.asarray(true_columns, dtype=np.int64)[:, None], axis=1)
    return np.asarray((array >= own).sum(axis=1), dtype=np.int64)


def score_blocks(
    query_vectors: NDArray[np.float32], clips: NDArray[np.float32], max_products: int = 8_000_000
) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    """Scores `max_j ⟨query, clip j⟩` in blocks of queries: yields (which queries, (block, V) scores).

    Args:
        query_vectors: (Q, D).
        clips: fused clips, (V, S, D).
        max_products: at most about this many inner products are held at a time; never Q·V·S.
    """
    num_videos, num_clips, width = clips.shape
    flat = clips.reshape(num_videos * num_clips, width)
    block = max(1, min(256, max_products // max(num_clips, 1)))
    videos = max(1, max_products // (block * num_clips))
    for start in range(0, len(query_vectors), block):
        chosen = slice(start, min(start + block, len(query_vectors)))
        scores = np.empty((chosen.stop - start, num_videos), dtype=np.float32)
        for first in range(0, num_videos, videos):
            last = min(first + videos, num_videos)
            products = query_vectors[chosen] @ flat[first * num_clips : last * num_clips].T
            scores[:, first:last] = products.reshape(len(products), last - first, num_clips).max(axis=2)
        yield chosen, scores


def recalls(queries: Sequence[Query], ranks: Mapping[str, int], first: Sequence[int] = FIRST) -> PerQuery:
    """R@K for each K (0 or 1 per query) and SumR, the sum of them all.

    Args:
        ranks: the true video's rank (from 1), keyed by query id.

    >>> recalls([Query("q", "v", "a dog")], {"q": 7}).means()
    {'R@1': 0.0, 'R@5': 0.0, 'R@10': 1.0, 'R@100': 1.0, 'SumR': 2.0}
    """
    array = np.array(join(queries, ranks), dtype=np.int64)
    if (array < 1).any():
        raise ValueError("ranks count from 1")
    values: dict[str, FloatArray] = {f"R@{k}": (array <= k).astype(np.float64) for k in first}
    values["SumR"] = np.sum(list(values.values()), axis=0)
    return PerQuery(tuple(query.query_id for query in queries), values)
