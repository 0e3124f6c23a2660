"""When the rows of a video are, and what that says of its clips: the one place that turns unit time into seconds.

Unit time is a share of the rows: u stands before row u·T of T rows. Where rows per second are known, row i covers
[i / rate, (i + 1) / rate) seconds whatever the video's length; else the rows are spread evenly over it. No time lies
beyond the end of the video. With S clips, clip j is made of the rows between two of `pooling.clip_borders`; where there
are fewer rows than clips, several clips show the same row, and their time is that row's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dciml.features.pooling import clip_borders
from dciml.spans import to_seconds

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class RowTimes:
    """The clock of a video's rows: `num_rows` (T ≥ 1) of `seconds_per_row` each, in `duration_seconds`.

    >>> RowTimes(6, 1.0, 5.1).seconds([[4 / 6, 5 / 6], [5 / 6, 1.0]]).round(3).tolist()
    [[4.0, 5.0], [5.0, 5.1]]
    """

    num_rows: int
    seconds_per_row: float
    duration_seconds: float

    @property
    def covered_seconds(self) -> float:
        """Where the last row ends; a little after the end of the video, where the end cuts that row."""
        return self.num_rows * self.seconds_per_row

    def seconds(self, unit: ArrayLike) -> FloatArray:
        """Unit time of any shape (…) → seconds (…)."""
        return span_seconds(np.asarray(unit)[..., None], self.covered_seconds, self.duration_seconds)[..., 0]

    def clip_spans(self, num_clips: int) -> FloatArray:
        """The seconds that each of S clips shows: (S, 2). Neighbours that show the same row have the same.

        >>> RowTimes(3, 2.0, 5.0).clip_spans(4).tolist()
        [[0.0, 2.0], [0.0, 2.0], [2.0, 4.0], [4.0, 5.0]]
        """
        return self.seconds(clip_rows(self.num_rows, num_clips) / self.num_rows)


def span_seconds(
    spans_unit: ArrayLike, covered_seconds: ArrayLike, duration_seconds: ArrayLike
) -> FloatArray:
    """Unit-time spans (…, 2) → seconds (…, 2), for many videos at once.

    Args:
        covered_seconds, duration_seconds: (…) of each span's video, as in `RowTimes`.
    """
    ends = np.asarray(duration_seconds, dtype=np.float64)[..., None]
    return np.minimum(to_seconds(spans_unit, covered_seconds), ends)


def clip_rows(num_rows: int, num_clips: int) -> IntArray:
    """The rows [first, end) that each of S clips shows: (S, 2).

    >>> clip_rows(5, 2).tolist(), clip_rows(2, 3).tolist()
    ([[0, 2], [2, 5]], [[0, 1], [0, 1], [1, 2]])
    """
    borders = clip_borders(num_rows, num_clips)
    return np.stack([borders[:-1], np.maximum(borders[1:], borders[:-1] + 1)], axis=1)


def clip_centers(num_rows: int, num_clips: int) -> FloatArray:
    """The middle of the rows that each of S clips shows, in unit time: (S,).

    >>> clip_centers(5, 2).round(3).tolist(), clip_centers(2, 3).tolist()
    ([0.2, 0.7], [0.25, 0.25, 0.75])
    """
    return np.asarray(clip_rows(num_rows, num_clips).mean(axis=1) / num_rows)


def clips_to_unit(borders: ArrayLike, num_rows: ArrayLike, num_clips: int) -> FloatArray:
    """Borders of clips, whole numbers 0 … S → unit time. `num_rows` broadcasts against them.

    >>> clips_to_unit([0, 1, 2], 5, 2).tolist()
    [0.0, 0.4, 1.0]
    """
    rows = np.asarray(num_rows, dtype=np.int64)
    return np.asarray(np.asarray(borders, dtype=np.int64) * rows // num_clips / rows)


def unit_to_clips(unit: ArrayLike, num_rows: ArrayLike, num_clips: int) -> FloatArray:
    """The inverse, between borders too: unit time → clips, 0 … S, in proportion inside a clip (or a row, if longer).

    >>> unit_to_clips([0.0, 0.2, 0.4, 1.0], 5, 2).tolist()
    [0.0, 0.5, 1.0, 2.0]
    """
    rows = np.asarray(num_rows, dtype=np.int64)
    pieces = np.minimum(rows, num_clips)  # clips, or rows where those are longer
    place = np.asarray(unit, dtype=np.float64) * rows
    row = np.clip(np.floor(place), 0, rows - 1).astype(np.int64)
    piece = -((-(row + 1) * pieces) // rows) - 1
    first, end = piece * rows // pieces, (piece + 1) * rows // pieces
    left, right = -((-piece * num_clips) // pieces), -((-(piece + 1) * num_clips) // pieces)
    return np.asarray(left + (place - first) / (end - first) * (right - left))


def whole_rows(spans_unit: ArrayLike, num_rows: ArrayLike, num_clips: int) -> FloatArray:
    """Spans (…, 2) with borders moved to the nearest ones of rows, where there are fewer rows than clips.

    Nothing finer than a row is known of such a video. A span keeps at least the row that holds its middle.

    Args:
        num_rows: (…), of each span's video.

    >>> whole_rows([[0.3, 0.8], [0.6, 0.7]], [4, 4], 32).tolist()
    [[0.25, 0.75], [0.5, 0.75]]
    """
    spans = np.asarray(spans_unit, dtype=np.float64)
    rows = np.asarray(num_rows, dtype=np.int64)[..., None]
    borders = np.rint(spans * rows)
    middle = np.clip(np.floor(spans.mean(axis=-1, keepdims=True) * rows), 0, rows - 1)
    is_empty = borders[..., :1] >= borders[..., 1:]
    borders = np.where(is_empty, np.concatenate([middle, middle + 1], axis=-1), borders)
    return np.where(rows < num_clips, borders / rows, spans)
