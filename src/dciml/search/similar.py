"""A moment as a query: which vector asks for it, and how an answer leaves out the moment itself."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dciml.errors import DataError
from dciml.index import VideoMatches
from dciml.types import SearchHit

FloatArray = NDArray[np.float64]
REST_WEIGHT = 0.75
"""On the demo corpus 0.75 of the rest finds moments of other videos that share as many words as those found by the text
(word overlap of the first one 0.14 for both; 0.11 with the plain mean, 0.05 by chance)."""
SHORTEST_SECONDS = 1e-3
ROUNDING_SECONDS = 1.0  # a player or a table may give the end of a video a little too late


def checked_span(video_id: str, start: float, end: float, duration: float) -> tuple[float, float]:
    """The span, in seconds, cut off at the end of the video. Raises DataError where it does not lie in the video.

    >>> checked_span("v", 3.0, 10.4, 10.0)
    (3.0, 10.0)
    """
    kept = min(end, duration)
    if not (0 <= start <= kept - SHORTEST_SECONDS and end <= duration + ROUNDING_SECONDS):  # NaN fails too
        raise DataError(
            f"{start:g} s to {end:g} s is no moment of the video {video_id!r}",
            mend=f"give a start and a later end between 0 and {duration:g} seconds",
        )
    return start, kept


def clip_shares(clip_spans: FloatArray, start: float, end: float) -> FloatArray:
    """Which share of each clip a span covers: (S,), in 0 … 1.

    Args:
        clip_spans: (S, 2), what each clip shows, see `RowTimes.clip_spans`; in seconds, as start and end.

    >>> clip_shares(np.array([[0.0, 2.0], [2.0, 4.0], [4.0, 6.0]]), 2.0, 4.5).tolist()
    [0.0, 1.0, 0.25]
    """
    first, last = clip_spans.T
    inside = np.minimum(last, end) - np.maximum(first, start)
    shares = np.divide(inside, last - first, out=np.zeros(len(inside)), where=last > first)
    return np.asarray(np.clip(shares, 0.0, 1.0))


def span_vector(clips: NDArray[np.float32], shares: FloatArray) -> NDArray[np.float32]:
    """The query for a span of a video: what its clips have that the others of the video have not, as a direction.

    Fused clips live in the space of queries; but all clips of a video share its scene and its frame vector, and their
    plain mean finds videos of that scene rather than moments like this one.

    Args:
        clips: (S, D) of the video. shares: (S,), which share of each the span covers.
    Returns: (D,), of length 1.
    """
    wide = clips.astype(np.float64)
    asked = shares @ wide / shares.sum()
    rest = 1.0 - shares
    if rest.sum() > 1e-6:
        asked = asked - REST_WEIGHT * (rest @ wide / rest.sum())
    return np.asarray(asked / max(float(np.linalg.norm(asked)), 1e-12), dtype=np.float32)


def query_span(parts: Sequence[FloatArray], start: float, end: float) -> tuple[int, list[FloatArray]]:
    """Where a span lies in the parts of its video, all in seconds: the windows of a long one, or one whole part.

    Args:
        parts: the times of the clips of each part, (S, 2) each.
    Returns: which part covers most of it, and the share of each clip that it covers, (S,) for each part. Where the
        features end before the span begins, it is the nearest clip.

    >>> query_span([np.array([[0.0, 4.0], [4.0, 8.0]]), np.array([[4.0, 8.0], [8.0, 12.0]])], 6.0, 10.0)
    (1, [array([0. , 0.5]), array([0.5, 0.5])])
    """
    shares = [clip_shares(part, start, end) for part in parts]
    covered = [min(part[-1, 1], end) - max(part[0, 0], start) for part in parts]
    best = int(np.argmax(covered))
    if not shares[best].any():
        shares[best][np.abs(parts[best].mean(axis=1) - (start + end) / 2).argmin()] = 1.0
    return best, shares


def without_span(matches: VideoMatches, place: int, shares: FloatArray) -> VideoMatches:
    """The same videos, of one query, as if the span's clips were not in the video at `place`.

    Its other clips keep their scores; those of the span get the least of them. A video without others is left out.
    """
    rows = np.flatnonzero(matches.places[0] == place)
    if not len(rows) or not shares.any():
        return matches
    places, scores, clips = (
        array[0].copy() for array in (matches.places, matches.scores, matches.clip_scores)
    )
    others = clips[rows[0]][shares == 0]
    if len(others):
        clips[rows[0], shares > 0] = others.min()
        scores[rows[0]] = others.max()
        order = np.argsort(-scores, kind="stable")
    else:
        order = np.delete(np.arange(len(places)), rows[0])
    return VideoMatches(places[order][None], scores[order][None], clips[order][None])


def hits_elsewhere(
    hits: Sequence[SearchHit], video_id: str, start_seconds: float, end_seconds: float
) -> list[SearchHit]:
    """The hits that share no time with the span of that video."""
    return [
        hit
        for hit in hits
        if hit.video_id != video_id or hit.end_seconds <= start_seconds or hit.start_seconds >= end_seconds
    ]
