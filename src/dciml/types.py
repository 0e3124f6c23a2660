"""The records that all parts exchange. Plain values, no torch; everything is joined by id, never by position."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TrainingPair:
    """What training sees: a sentence and the video it belongs to. There is no field for a moment, on purpose."""

    query_id: str
    video_id: str
    sentence: str


@dataclass(frozen=True, slots=True)
class Query:
    """A sentence with the video and, for evaluation, the true moments (start, end) in seconds; () when unknown.

    >>> Query("q1", "v1", "a dog runs", ((1.0, 4.5),)).pair()
    TrainingPair(query_id='q1', video_id='v1', sentence='a dog runs')
    """

    query_id: str
    video_id: str
    sentence: str
    moments: tuple[tuple[float, float], ...] = ()

    def pair(self) -> TrainingPair:
        """The same without its moments."""
        return TrainingPair(self.query_id, self.video_id, self.sentence)


@dataclass(frozen=True, slots=True)
class Video:
    """A video of a corpus. `duration_seconds` > 0; `split` names the part of the data set it belongs to."""

    video_id: str
    duration_seconds: float
    split: str = ""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.duration_seconds) and self.duration_seconds > 0):
            raise ValueError(
                f"video {self.video_id}: duration {self.duration_seconds} is not a positive number"
            )


@dataclass(frozen=True, slots=True)
class SearchHit:
    """A returned moment. Higher `score` is better; scores compare inside one answer only.

    `confidence` is the probability that the video is the one described, 0 … 1, alike for all moments of a video;
    `moment_confidence` the probability that the described is in this span of it, never more than that. Both are None
    without a calibration. How well the borders fit is not known: pairs do not tell.
    """

    rank: int
    video_id: str
    start_seconds: float
    end_seconds: float
    score: float
    confidence: float | None = None
    moment_confidence: float | None = None
