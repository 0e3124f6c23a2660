"""From what was looked at to an answer: hits of whole videos, probabilities, and where each video fits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from dciml.features import RowTimes, parse_window, whole_id
from dciml.search.calibration import Calibration
from dciml.search.contrast import (
    Relevance,
    clip_relevance,
    deviations_below,
    relevance_over_time,
    share_inside,
)
from dciml.search.long_videos import WindowedIds
from dciml.types import SearchHit

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Answer:
    """What search says to a sentence, or to a moment.

    Attributes:
        hits: the best moments, best first; the nearest ones where nothing was found. Moments of one video overlap at
            most as much as `AnswerConfig.nms_iou` says.
        found: False when `confidence` is below `AnswerConfig.min_confidence`, or there is no hit.
        confidence: probability that the described video is among those searched, 0 … 1; None without a calibration,
            or with one that tells nothing of that, and for a moment as the query. The probability of each video is
            `SearchHit.confidence`.
        relevance: of each video of a hit, 0 … 1 for equal parts of its duration: as many as it has clips, and of a long
            video about as many as its windows have. Comparable over the videos of this answer.
        deviations_below: of each hit, how far its best clip lies below the best one of all hits, in standard deviations
            of the similarity of all clips that were looked at. `Searcher.shown` leaves out by it.
        asked: the moment that was the query (video id, start, end); None where that was a sentence.
    """

    hits: tuple[SearchHit, ...]
    found: bool
    confidence: float | None
    relevance: dict[str, Relevance]
    deviations_below: tuple[float, ...] = ()
    asked: tuple[str, float, float] | None = None


@dataclass(frozen=True)
class Looked:
    """What was looked at for one query: K videos (or windows) by id, with the scores of their clips (K, S).

    `chances` are the probabilities of the whole videos by id, and `present` that of any; None without a calibration,
    whose scale is `scale`. `present` alone is None where the calibration tells nothing of it.
    """

    video_ids: Sequence[str]
    clip_scores: NDArray[np.float32]
    chances: Mapping[str, float] | None = None
    present: float | None = None
    scale: float | None = None


def compose(
    looked: Looked,
    hits: Sequence[SearchHit],
    windowed: WindowedIds,
    row_times: Callable[[str], RowTimes],
    max_hits: int,
    min_confidence: float,
    blank_videos: bool = True,
) -> Answer:
    """The answer to one query.

    Args:
        hits: ranked, of the videos and windows that were looked at.
        windowed: how windows belong to long videos.
        row_times: when the rows of a video or window that was looked at are.
        blank_videos: whether hits may lie in videos of which every clip has the score 0.
    """
    if not blank_videos:
        known = zip(looked.video_ids, looked.clip_scores, strict=True)
        blank = {any_id for any_id, scores in known if not scores.any()}
        hits = [hit for hit in hits if hit.video_id not in blank]
    if looked.chances is not None:
        hits = [replace(hit, confidence=looked.chances[whole_id(hit.video_id)]) for hit in hits]
    kept = windowed.whole_hits(hits, max_hits)
    found = bool(kept) and (looked.present is None or looked.present >= min_confidence)
    parts = _parts(looked, [hit.video_id for hit in kept], windowed, row_times)
    shown = _relevance(looked, parts, windowed, row_times)
    spans = [(hit.start_seconds, hit.end_seconds) for hit in kept]
    below = deviations_below(looked.clip_scores, [parts[hit.video_id] for hit in kept], spans)
    sure = tuple(_with_moment_confidence(hit, looked, parts[hit.video_id]) for hit in kept)
    return Answer(sure, found, looked.present, shown, below)


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
    present: float | None = float(known.present[0])
    # One video that is likely by itself is enough; an even chance for every sentence is not.
    if chances and max(chances.values()) < 0.5 and not calibration.tells_presence(num_searched):
        present = None
    return replace(looked, chances=chances, present=present, scale=calibration.scale)


def _parts(
    looked: Looked, shown: Sequence[str], windowed: WindowedIds, row_times: Callable[[str], RowTimes]
) -> dict[str, list[tuple[int, FloatArray]]]:
    """Of each video that is shown, which rows of what was looked at show it, and when their clips are: (S, 2)."""
    rows: dict[str, list[int]] = {}
    for row, any_id in enumerate(looked.video_ids):
        rows.setdefault(whole_id(any_id) if windowed.has_windows else any_id, []).append(row)
    found: dict[str, list[tuple[int, FloatArray]]] = {}
    for video_id in dict.fromkeys(shown):
        found[video_id] = []
        for row in rows[video_id]:
            any_id = looked.video_ids[row]
            window = parse_window(any_id) if any_id != video_id else None
            begin = 0.0 if window is None else window.start_seconds
            times = begin + row_times(any_id).clip_spans(looked.clip_scores.shape[1])
            found[video_id].append((row, times))
    return found


def _relevance(
    looked: Looked,
    parts: Mapping[str, Sequence[tuple[int, FloatArray]]],
    windowed: WindowedIds,
    row_times: Callable[[str], RowTimes],
) -> dict[str, Relevance]:
    relevance = clip_relevance(looked.clip_scores)
    found = {}
    for video_id, own in parts.items():
        whole = windowed.duration_seconds(video_id)
        seconds = row_times(video_id).duration_seconds if whole is None else whole
        found[video_id] = relevance_over_time(
            [times for _, times in own], [relevance[row] for row, _ in own], seconds
        )
    return found


def _with_moment_confidence(
    hit: SearchHit, looked: Looked, parts: Sequence[tuple[int, FloatArray]]
) -> SearchHit:
    if looked.scale is None or hit.confidence is None:
        return hit
    times, scores = [own for _, own in parts], [looked.clip_scores[row] for row, _ in parts]
    share = share_inside(times, scores, hit.start_seconds, hit.end_seconds, looked.scale)
    return replace(hit, moment_confidence=hit.confidence * share)
