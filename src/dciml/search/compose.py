"""What search says: hits with their probabilities, whether anything was found, and how well each clip fits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from dciml.features.long_videos import parse_window, whole_id
from dciml.features.row_times import RowTimes
from dciml.search.calibration import Calibration
from dciml.search.long_videos import WindowedIds
from dciml.search.relevance import Relevance, clip_relevance, relevance_over_time
from dciml.types import SearchHit


@dataclass(frozen=True)
class Answer:
    """What search says to a sentence, or to a moment.

    Attributes:
        hits: the best moments, best first; the nearest ones where nothing was found. Moments of one video overlap at
            most as much as `AnswerConfig.nms_iou` says.
        found: False when `confidence` is below `AnswerConfig.min_confidence`, or there is no hit.
        confidence: probability that the described video is among those searched, 0 … 1; None without a calibration,
            and for a moment as the query. The probability of each video is `SearchHit.confidence`.
        relevance: of each video of a hit, 0 … 1 for equal parts of its duration: as many as it has clips, and of a long
            video about as many as its windows have. Comparable over the videos of this answer.
    """

    hits: tuple[SearchHit, ...]
    found: bool
    confidence: float | None
    relevance: dict[str, Relevance]


@dataclass(frozen=True)
class Looked:
    """What was looked at for one query: K videos (or windows) by id, with the scores of their clips (K, S).

    `chances` are the probabilities of the whole videos by id, and `present` that of any; None without a calibration.
    """

    video_ids: Sequence[str]
    clip_scores: NDArray[np.float32]
    chances: Mapping[str, float] | None = None
    present: float | None = None


def compose(
    looked: Looked,
    hits: Sequence[SearchHit],
    windowed: WindowedIds,
    row_times: Callable[[str], RowTimes],
    max_hits: int,
    min_confidence: float,
) -> Answer:
    """The answer to one query.

    Args:
        hits: ranked, of the videos and windows that were looked at.
        windowed: how windows belong to long videos.
        row_times: when the rows of a video or window that was looked at are.
    """
    if looked.chances is not None:
        hits = [replace(hit, confidence=looked.chances[whole_id(hit.video_id)]) for hit in hits]
    kept = tuple(windowed.whole_hits(hits, max_hits))
    found = bool(kept) and (looked.present is None or looked.present >= min_confidence)
    shown = _relevance(looked, [hit.video_id for hit in kept], windowed, row_times)
    return Answer(kept, found, looked.present, shown)


def with_chances(
    looked: Looked,
    calibration: Calibration,
    query_vector: NDArray[np.float32],
    scores: NDArray[np.float32],
    num_searched: int,
) -> Looked:
    """The same with probabilities. A long video counts once, by its best window, as in the calibration.

    Args:
        query_vector: (D,). scores: (K,) of what was looked at, best first.
        num_searched: whole videos.
    """
    first: dict[str, int] = {}
    for place, any_id in enumerate(looked.video_ids):
        first.setdefault(whole_id(any_id), place)
    best = scores[list(first.values())]
    known = calibration.probabilities(query_vector[None], best[None], num_searched)
    chances = dict(zip(first, known.videos[0].tolist(), strict=True))
    return replace(looked, chances=chances, present=float(known.present[0]))


def _relevance(
    looked: Looked, shown: Sequence[str], windowed: WindowedIds, row_times: Callable[[str], RowTimes]
) -> dict[str, Relevance]:
    rows: dict[str, list[tuple[str, Relevance]]] = {}
    for any_id, row in zip(looked.video_ids, clip_relevance(looked.clip_scores), strict=True):
        rows.setdefault(whole_id(any_id) if windowed.has_windows else any_id, []).append((any_id, row))
    found = {}
    for video_id in dict.fromkeys(shown):
        spans = []
        for any_id, row in rows[video_id]:
            window = parse_window(any_id) if any_id != video_id else None
            begin = 0.0 if window is None else window.start_seconds
            spans.append(begin + row_times(any_id).clip_spans(len(row)))
        whole = windowed.duration_seconds(video_id)
        seconds = row_times(video_id).duration_seconds if whole is None else whole
        found[video_id] = relevance_over_time(spans, [row for _, row in rows[video_id]], seconds)
    return found
