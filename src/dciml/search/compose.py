"""What search says: hits with their probabilities, whether anything was found, and how well each clip fits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from dciml.features.long_videos import Window, parse_window, whole_id
from dciml.search.calibration import FloatArray
from dciml.search.long_videos import WindowedIds
from dciml.search.relevance import clip_relevance, joined_relevance
from dciml.types import SearchHit

Relevance = NDArray[np.float32]


@dataclass(frozen=True)
class Answer:
    """What search says to a sentence, or to a moment.

    Attributes:
        hits: the best moments, best first; the nearest ones where nothing was found. Moments of one video overlap at
            most as much as `AnswerConfig.nms_iou` says.
        found: False when `confidence` is below `AnswerConfig.min_confidence`, or there is no hit.
        confidence: probability that the described video is among those searched, 0 … 1; None without a calibration,
            and for a moment as the query. The probability of each video is `SearchHit.confidence`.
        relevance: of each video of a hit, 0 … 1 for each of its clips, which are equal parts of its duration; of a
            long video for as many parts as its windows have. Comparable over the videos of this answer.
    """

    hits: tuple[SearchHit, ...]
    found: bool
    confidence: float | None
    relevance: dict[str, Relevance]


@dataclass(frozen=True)
class Looked:
    """What was looked at for one query: K videos (or windows) by id, with the scores of their clips (K, S).

    `chances` (K,) are the probabilities of the videos and `present` that of any; None without a calibration.
    """

    video_ids: Sequence[str]
    clip_scores: NDArray[np.float32]
    chances: FloatArray | None = None
    present: float | None = None


def compose(
    looked: Looked, hits: Sequence[SearchHit], windowed: WindowedIds, max_hits: int, min_confidence: float
) -> Answer:
    """The answer to one query.

    Args:
        hits: ranked, of the videos and windows that were looked at.
        windowed: how windows belong to long videos; a long video is as likely as its windows together.
    """
    if looked.chances is not None:
        of_video: dict[str, float] = {}
        for any_id, chance in zip(looked.video_ids, looked.chances.tolist(), strict=True):
            of_video[whole_id(any_id)] = min(1.0, of_video.get(whole_id(any_id), 0.0) + chance)
        hits = [replace(hit, confidence=of_video[whole_id(hit.video_id)]) for hit in hits]
    kept = tuple(windowed.whole_hits(hits, max_hits))
    found = bool(kept) and (looked.present is None or looked.present >= min_confidence)
    return Answer(kept, found, looked.present, _relevance(looked, [hit.video_id for hit in kept], windowed))


def _relevance(looked: Looked, shown: Sequence[str], windowed: WindowedIds) -> dict[str, Relevance]:
    rows: dict[str, list[tuple[Window | None, Relevance]]] = {}
    for any_id, row in zip(looked.video_ids, clip_relevance(looked.clip_scores), strict=True):
        window = parse_window(any_id) if windowed.has_windows else None
        rows.setdefault(any_id if window is None else window.video_id, []).append((window, row))
    found = {}
    for video_id in dict.fromkeys(shown):
        duration = windowed.duration_seconds(video_id)
        parts = [(window, row) for window, row in rows[video_id] if window is not None]
        if duration is None or not parts:
            found[video_id] = rows[video_id][0][1]
        else:
            spans = [(window.start_seconds, window.end_seconds) for window, _ in parts]
            found[video_id] = joined_relevance(spans, [row for _, row in parts], duration)
    return found
