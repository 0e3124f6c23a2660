"""Long videos as overlapping windows. A window has the id `VIDEO_ID#t=START,END` (seconds), as in a media fragment.

Nothing is copied: `WindowedStore` serves the rows of a window from those of the whole video. What reads a store by
id (training, indexing, search) needs to know nothing of windows.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Self

from dciml.errors import DataError
from dciml.features.row_times import RowTimes
from dciml.features.store import FeatureStore
from dciml.features.store_format import StoreEntry

WHOLE_UP_TO = 1.5
"""A video of up to this many window lengths stays whole: a model copes with a little more than it was trained on."""
OVERLAP_SHARE = 0.5
"""Overlap of neighbouring windows where nothing else is said: any event of half a window lies whole in one of them."""
_WINDOW_ID = re.compile(r"(?P<video>.+)#t=(?P<start>\d+(?:\.\d+)?),(?P<end>\d+(?:\.\d+)?)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Window:
    """A stretch of a video, in seconds of the whole video.

    >>> Window("talk", 90.0, 210.5).window_id
    'talk#t=90,210.5'
    """

    video_id: str
    start_seconds: float
    end_seconds: float

    @property
    def window_id(self) -> str:
        """The id by which stores and indexes know this window; times are kept to a millisecond."""
        return f"{self.video_id}#t={_plain(self.start_seconds)},{_plain(self.end_seconds)}"

    @property
    def duration_seconds(self) -> float:
        """How long it is."""
        return self.end_seconds - self.start_seconds


def parse_window(any_id: str) -> Window | None:
    """The window that an id names; None for the id of a whole video.

    >>> parse_window("talk#t=90,210.5"), parse_window("talk")
    (Window(video_id='talk', start_seconds=90.0, end_seconds=210.5), None)
    """
    match = _WINDOW_ID.fullmatch(any_id) if "#t=" in any_id else None
    if match is None or float(match["start"]) >= float(match["end"]):
        return None
    return Window(match["video"], float(match["start"]), float(match["end"]))


def whole_id(any_id: str) -> str:
    """The id of the whole video, whether an id names that or a window of it."""
    window = parse_window(any_id)
    return any_id if window is None else window.video_id


@dataclass(frozen=True, slots=True)
class WindowRule:
    """How long windows are, and how far neighbours overlap at least; both in seconds.

    Raises:
        ValueError: a window that is not longer than its overlap, or a length that is not positive.
    """

    window_seconds: float
    overlap_seconds: float

    def __post_init__(self) -> None:
        if not 0 <= self.overlap_seconds < self.window_seconds < math.inf:
            raise ValueError(f"0 ≤ overlap < window must hold, not {self}")

    @classmethod
    def of(cls, window_seconds: float | None, overlap_seconds: float | None = None) -> Self | None:
        """The rule of two settings; None when videos are never split (`window_seconds` is None or 0)."""
        if not window_seconds:
            return None
        overlap = OVERLAP_SHARE * window_seconds if overlap_seconds is None else overlap_seconds
        return cls(window_seconds, overlap)


def windows_of(store: FeatureStore, video_id: str, rule: WindowRule | None) -> tuple[str, ...]:
    """The ids of a video's windows in the order of time; its own id alone where it is not long.

    The windows are equally long, evenly spread, cover the video to its end, and begin on a row.

    Raises:
        DataError: the store does not hold the video, or its own id reads like that of a window.
    """
    if parse_window(video_id) is not None:
        raise DataError(
            f"the id {video_id!r} reads like a window of a long video",
            where=store.path,
            mend="give the video an id that does not end with #t=START,END",
        )
    times = store.row_times(video_id)
    duration, rate = times.duration_seconds, 1.0 / times.seconds_per_row
    if rule is None or duration <= WHOLE_UP_TO * rule.window_seconds:
        return (video_id,)
    rows = min(times.num_rows, math.ceil(duration * rate - 1e-6))  # a row after the end belongs to no window
    size = max(1, round(rule.window_seconds * rate))
    step = max(1, math.floor((rule.window_seconds - rule.overlap_seconds) * rate))
    if size >= rows:
        return (video_id,)
    gaps = math.ceil((rows - size) / step)
    starts = [round(place * (rows - size) / gaps) for place in range(gaps + 1)]
    ends = [duration if start + size == rows else (start + size) / rate for start in starts]
    return tuple(
        Window(video_id, start / rate, end).window_id for start, end in zip(starts, ends, strict=True)
    )


def long_windows(
    store: FeatureStore, video_ids: Iterable[str], rule: WindowRule | None
) -> dict[str, tuple[str, ...]]:
    """The windows of those videos that are long. Raises DataError as `windows_of`."""
    found = {video_id: windows_of(store, video_id, rule) for video_id in dict.fromkeys(video_ids)}
    return {video_id: windows for video_id, windows in found.items() if len(windows) > 1}


def split_long(store: FeatureStore, video_ids: Sequence[str], rule: WindowRule | None) -> list[str]:
    """The ids with each long video replaced by its windows. Raises DataError as `windows_of`."""
    return [window_id for video_id in video_ids for window_id in windows_of(store, video_id, rule)]


class WindowedStore(FeatureStore):
    """A store that also serves windows of its videos, by their ids; rows stay where they are, memory-mapped.

    `video_ids` and `len` are those of the whole videos. The last row of a window is the one that its end falls into.
    """

    @classmethod
    def of(cls, store: FeatureStore) -> Self:
        """The same store with windows."""
        if isinstance(store, cls):
            return store
        return cls(store.path, store.manifest, list(store._entries.values()))

    def __contains__(self, video_id: object) -> bool:
        return super().__contains__(video_id) or (
            isinstance(video_id, str) and self._window_entry(video_id) is not None
        )

    def row_times(self, video_id: str) -> RowTimes:
        """As of a whole video; the rows of a window are as long as those of its video."""
        times, window = super().row_times(video_id), None
        if video_id not in self._entries:
            window = parse_window(video_id)
        if window is None:
            return times
        return replace(times, seconds_per_row=super().row_times(window.video_id).seconds_per_row)

    def _check(self, entry: StoreEntry) -> None:
        """A window has the checksum of its whole video."""
        window = None if entry.video_id in self._entries else parse_window(entry.video_id)
        super()._check(entry if window is None else self._entries[window.video_id])

    def _entry(self, video_id: str) -> StoreEntry:
        if not super().__contains__(video_id):
            entry = self._window_entry(video_id)
            if entry is not None:
                return entry
        return super()._entry(video_id)

    def _window_entry(self, video_id: str) -> StoreEntry | None:
        """The entry of a window of a stored video; None when it is not one, or lies outside."""
        window = parse_window(video_id)
        parent = None if window is None else self._entries.get(window.video_id)
        if window is None or parent is None:
            return None
        rate = 1.0 / super().row_times(parent.video_id).seconds_per_row
        start = round(window.start_seconds * rate)
        at_end = window.end_seconds > parent.duration_seconds - 1e-3
        end = parent.rows if at_end else max(round(window.end_seconds * rate), start + 1)
        if start >= end or end > parent.rows or window.end_seconds > parent.duration_seconds + 1e-3:
            return None
        return replace(  # the checksum stays that of the whole video: only whole videos are verified
            parent,
            video_id=video_id,
            offset=parent.offset + start,
            rows=end - start,
            duration_seconds=window.duration_seconds,
        )


def _plain(seconds: float) -> str:
    return f"{seconds:.3f}".rstrip("0").rstrip(".")
