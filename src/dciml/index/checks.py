"""What an index takes: queries, and new videos."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dciml.errors import DataError
from dciml.index.catalogue import IndexFacts
from dciml.index.segments import LARGEST

FloatArray = NDArray[np.float32]


def checked_queries(query_vectors: ArrayLike, width: int) -> FloatArray:
    """Query vectors as (Q, width). Raises ValueError for another shape, or a number that is not finite."""
    queries = np.ascontiguousarray(query_vectors, dtype=np.float32)
    if queries.ndim != 2 or queries.shape[1] != width:
        raise ValueError(f"query vectors must have the shape (queries, {width}), not {queries.shape}")
    if not np.isfinite(queries).all():
        raise ValueError("a query vector is not finite")
    return queries


def check_new(
    video_ids: Sequence[str],
    vectors: FloatArray,
    durations_seconds: NDArray[np.float64],
    held: set[str],
    path: Path,
    facts: IndexFacts,
) -> None:
    """Refuse videos that an index cannot take.

    Args:
        held: ids that the index holds and keeps. `path` is named in errors.
    Raises:
        DataError: an id comes twice or is held; a vector or a duration is not usable.
        ValueError: an array has another shape.
    """
    expected = (len(video_ids), facts.num_clips, facts.width)
    if vectors.shape != expected or durations_seconds.shape != expected[:1]:
        raise ValueError(
            f"vectors must have the shape {expected}, not {vectors.shape}, and a duration a video"
        )
    seen = set(held)
    for video_id, video_vectors, duration in zip(video_ids, vectors, durations_seconds, strict=True):
        if video_id in seen:
            raise DataError(
                f"the video {video_id!r} is in the index already",
                where=path,
                mend="leave it out, replace it (`dciml index-add --replace`), or take it out first",
            )
        usable = (np.abs(video_vectors) <= LARGEST).all()
        if not usable or not (np.isfinite(duration) and duration > 0):
            raise DataError(
                f"the video {video_id!r} has a vector or a duration that is not usable",
                where=path,
                mend="check its features",
            )
        seen.add(video_id)
