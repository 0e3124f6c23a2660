"""Checks of features that are handed over: which way round they lie, and whether rows, rate and length agree."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dciml.errors import DataError

if TYPE_CHECKING:
    from dciml.features.source import FeatureSource

ROWS_APART, SHARE_APART = 1.0, 0.01
"""So far rows and length may be apart, whichever is more: tools round the last row up, down or away."""
NUM_OTHERS = 20
_TURN = "write them as [rows, width]: a row a time step (in NumPy, `array.T`)"


def check_shapes(source: FeatureSource, video_ids: Collection[str]) -> None:
    """Refuse features that lie [width, time], as far as the videos tell: all rows of a source have one width.

    Of videos that all have the same length nothing can be told by their shapes; then see `find_mismatch`.

    Args:
        video_ids: those that are wanted; one that the source does not hold is passed over. Some others help to tell.
    Raises:
        DataError: some, or all, are transposed; the first one is named.
    """
    have = frozenset(source.video_ids)
    wanted = [video_id for video_id in video_ids if video_id in have]
    shapes = {v: source.shape(v) for v in dict.fromkeys((*wanted, *source.video_ids[:NUM_OTHERS]))}
    widths = Counter(width for _, width in shapes.values())
    if len(widths) <= 1:
        return
    lengths = Counter(num_rows for num_rows, _ in shapes.values())
    if len(lengths) == 1:
        turned, width = wanted, next(iter(lengths))
    else:
        shared = [number for number in widths | lengths if all(number in shape for shape in shapes.values())]
        if not shared:
            return  # rows of different widths; the store refuses them by name
        width = max(shared, key=lambda number: widths[number])
        turned = [video_id for video_id in wanted if shapes[video_id][1] != width]
    if not turned:
        return
    raise DataError(
        f"the video {turned[0]!r} has the shape {shapes[turned[0]]}, and {width} is the number that all videos share: "
        f"it lies [width, time] ({len(turned):,} of {len(wanted):,} videos do)",
        where=source.place(turned[0]),
        mend=_TURN,
    )


def rows_fit(num_rows: int, seconds: float, rate: float) -> bool:
    """Whether so many rows at this rate and this length agree, to a row or 1 %.

    >>> rows_fit(75, 150.0, 0.5), rows_fit(75, 126.0, 0.5)
    (True, False)
    """
    expected = seconds * rate
    return (
        math.isfinite(expected) and abs(num_rows - expected) <= max(ROWS_APART, SHARE_APART * expected) + 1e-6
    )


@dataclass(frozen=True)
class Mismatch:
    """Videos whose rows and stated rate give another length than they have; the worst one is named."""

    num_videos: int
    num_checked: int
    worst_id: str
    worst_rows: int
    worst_seconds: float
    rate: float

    def __str__(self) -> str:
        told = self.worst_rows / self.rate
        apart = abs(told - self.worst_seconds)
        more = "more" if told > self.worst_seconds else "less"
        share = 100 * apart / self.worst_seconds
        return (
            f"rows, rows per second and length do not agree in {self.num_videos:,} of {self.num_checked:,} videos; "
            f"furthest apart is {self.worst_id!r}: {self.worst_rows:,} rows at {self.rate:g} a second are {told:g} s, "
            f"but it lasts {self.worst_seconds:g} s ({apart:.3g} s or {share:.3g} % {more})"
        )


def find_mismatch(source: FeatureSource, durations: Mapping[str, float]) -> Mismatch | None:
    """Compare the rows of videos with their lengths, where rows per second are known; None: all agree.

    They agree when they are no more than a row apart, or 1 %. Where the source states a length that its rows fit, that
    will do: how far annotations may be from it is another question.
    """
    rate = source.rows_per_second
    if not rate:
        return None
    counts = {video_id: source.num_rows(video_id) for video_id in durations}
    bad = [
        video_id
        for video_id, seconds in durations.items()
        if not rows_fit(counts[video_id], seconds, rate)
        and not rows_fit(counts[video_id], source.durations.get(video_id, math.inf), rate)
    ]
    if not bad:
        return None
    worst = max(bad, key=lambda v: abs(counts[v] / (durations[v] * rate) - 1))
    return Mismatch(len(bad), len(counts), worst, counts[worst], durations[worst], rate)


def refuse_mismatch(source: FeatureSource, durations: Mapping[str, float], found: Mismatch) -> DataError:
    """The error for a mismatch, with the rate that would fit, or the word that features are transposed."""
    mend = (
        "give the rate that the rows were made with, or the lengths of the videos; or go on with "
        "--rate-mismatch rate (row i is at i / rate) or --rate-mismatch spread (the rows of each video are spread "
        "evenly over its length)"
    )
    shapes = {video_id: source.shape(video_id) for video_id in durations}
    if all(rows_fit(width, durations[v], found.rate) for v, (_, width) in shapes.items()):
        mend = f"the widths would fit: the features probably lie [width, time]; {_TURN}"
    else:
        usual = statistics.median(shapes[v][0] / seconds for v, seconds in durations.items())
        if all(rows_fit(count, durations[v], usual) for v, (count, _) in shapes.items()):
            mend = f"all rows would fit --rows-per-second {usual:.4g}; {mend}"
    return DataError(str(found), where=source.place(found.worst_id), mend=mend)
