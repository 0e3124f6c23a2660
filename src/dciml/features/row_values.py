"""What the numbers of feature rows say, or lose: rows of zeros, rows too small for float16, rows that are all alike."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
