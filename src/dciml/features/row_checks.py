"""Checks of feature rows: which way round they lie, their numbers, and whether rows, rate and duration agree."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dciml.errors import DataError

if TYPE_CHECKING:
    from dciml.features.base import FeatureSource

SAFE_LARGEST = 2.0**-9
"""A row with a number as large as this keeps its direction in float16, whatever its other numbers are."""
KEPT_COSINE = 0.999
"""A row whose float16 form points further away than this has lost its direction; one that becomes zero has too."""


def lost_rows(rows: NDArray[Any]) -> NDArray[np.bool_]:
    """Which rows (T, D) lose their direction in float16, since their numbers are too small: (T,).

    A row of zeros has none to lose. Uniform scaling does not change what is learned or found, so the remedy is to scale
    all features up.

    >>> lost_rows(np.array([[0.0, 0.0], [1e-9, 2e-9], [4e-8, 7e-8], [0.3, 1e-9]])).tolist()
    [False, True, True, False]
    """
    if rows.dtype == np.float16 or rows.dtype.kind in "iu":
        return np.zeros(len(rows), dtype=bool)
    largest = np.abs(rows).max(axis=1)
    lost: NDArray[np.bool_] = (largest > 0) & (largest < SAFE_LARGEST)
    places = np.flatnonzero(lost)
    wide = rows[places].astype(np.float64) / largest[places, None].astype(np.float64)
    half = rows[places].astype(np.float16).astype(np.float64) / largest[places, None].astype(np.float64)
    norms = np.linalg.norm(wide, axis=1) * np.linalg.norm(half, axis=1)
    cosine = np.divide((wide * half).sum(axis=1), norms, out=np.zeros(len(places)), where=norms > 0)
    lost[places] = cosine < KEPT_COSINE
    return lost


def scale_hint(rows: NDArray[Any]) -> str:
    """The words that say how to mend rows that are too small.

    >>> scale_hint(np.array([[2e-9, -5e-8]]))
    'multiply all features, of all videos, by the same number, 1e+07 say; only their directions count'
    """
    factor = 10.0 ** -np.floor(np.log10(float(np.abs(rows).max())) + 1)
    return f"multiply all features, of all videos, by the same number, {factor:.0e} say; only their directions count"


@dataclass
class RowsSeen:
    """Goes through the rows of videos and keeps what a user should know of them.

    `silence_is_known`: rows of captions are zero where nothing is said, and no word is lost about it.
    """

    silence_is_known: bool = False
    _zero: list[tuple[str, int, int]] = field(default_factory=list)  # video, its first such row, how many
    _lost: list[tuple[str, int, int]] = field(default_factory=list)
    _alike: list[str] = field(default_factory=list)
    _hint: str = ""

    def add(self, video_id: str, rows: NDArray[Any]) -> None:
        """Look at the rows (T, D) of a video; they are finite numbers."""
        zero, lost = ~rows.any(axis=1), lost_rows(rows)
        for kept, is_such in ((self._zero, zero), (self._lost, lost)):
            if is_such.any():
                kept.append((video_id, int(is_such.argmax()), int(is_such.sum())))
        if lost.any() and not self._hint:
            self._hint = scale_hint(rows[lost])
        if len(rows) > 1 and (rows[1] == rows[0]).all() and (rows == rows[0]).all() and not zero.all():
            self._alike.append(video_id)

    def warnings(self) -> list[str]:
        """One sentence for each thing that may spoil an answer."""
        found = []
        if self._lost:
            what = _counted("so small that float16 loses their direction", self._lost)
            found.append(f"{what}. To mend it: {self._hint}")
        if self._zero and not self.silence_is_known:
            found.append(_counted("all zeros, which is evidence of nothing", self._zero))
        if self._alike:
            found.append(
                f"all rows are the same in {_number(len(self._alike), 'video')} (the first: {self._alike[0]!r}): no "
                "moment of such a video can be told from another"
            )
        return found


def _counted(what: str, kept: list[tuple[str, int, int]]) -> str:
    video_id, row, _ = kept[0]
    rows = _number(sum(count for *_, count in kept), "row")
    return f"rows {what}: {rows} of {_number(len(kept), 'video')} (the first: video {video_id!r}, row {row})"


def _number(count: int, name: str) -> str:
    return f"{count:,} {name}" + ("" if count == 1 else "s")


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
    """Whether a number of rows, a rate and a length agree, to a row or 1 %.

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
