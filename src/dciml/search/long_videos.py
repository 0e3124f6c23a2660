"""Hits in windows of long videos → hits in the whole videos, each moment once."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from dciml.features import Window, parse_window, whole_id
from dciml.index import ClipIndex, VideoFilter
from dciml.names import KnownNames
from dciml.types import SearchHit

SAME_MOMENT = 0.5
"""Hits of neighbouring windows are one moment when they share this much of the shorter one."""
EDGE_SHARE = 1 / 32
"""A hit that comes this near to an end of its window, as a share of the window, may be cut off there."""


class WindowedIds:
    """The ids of an index, seen as whole videos.

    >>> ids = WindowedIds(["a", "b#t=0,60", "b#t=30,90"])
    >>> ids.has_windows, ids.expand(["b", "a"]), ids.whole_videos
    (True, ['b#t=0,60', 'b#t=30,90', 'a'], ('a', 'b'))
    """

    def __init__(self, video_ids: Iterable[str]) -> None:
        self._windows: dict[str, Window] = {}
        self._of_video: dict[str, list[str]] = {}
        for video_id in video_ids:
            window = parse_window(video_id)
            if window is not None:
                self._windows[video_id] = window
            self._of_video.setdefault(window.video_id if window else video_id, []).append(video_id)
        self._names = KnownNames(self._of_video)

    @property
    def has_windows(self) -> bool:
        """Is there a long video?"""
        return bool(self._windows)

    @property
    def whole_videos(self) -> tuple[str, ...]:
        """Ids of the whole videos, in the order in which they, or their first windows, came."""
        return tuple(self._of_video)

    def __len__(self) -> int:
        """How many whole videos."""
        return len(self._of_video)

    def find(self, video_id: str) -> str | None:
        """The whole video of this id, whatever way its accents are written; None: there is none."""
        return self._names.find(video_id)

    def expand(self, video_ids: Iterable[str]) -> list[str]:
        """Each id replaced by those of its windows, where it has some; any other id stays as it is."""
        known = ((self.find(video_id), video_id) for video_id in video_ids)
        return [
            own for name, asked in known for own in (self._of_video[name] if name is not None else (asked,))
        ]

    def duration_seconds(self, video_id: str) -> float | None:
        """How long a whole video is that has windows: to the end of its last one; None for any other id."""
        windows = (self._windows.get(own) for own in self.expand([video_id]))
        return max((window.end_seconds for window in windows if window is not None), default=None)

    def whole_hits(self, hits: Sequence[SearchHit], max_hits: int) -> list[SearchHit]:
        """Hits of windows, best first, in the time of their whole videos; a moment that two windows see is one hit.

        Two hits of different windows of a video are one moment when they share half of the shorter one, or more. The
        better one stays; where the end of its window cuts it off and the other window sees the moment whole, it
        takes the times of the other. Hits of one window are left as they are: suppression has chosen among them.
        """
        if not self.has_windows:
            return list(hits[:max_hits])
        kept: list[_Placed] = []
        of_video: dict[str, list[_Placed]] = {}
        for hit in hits:
            placed = self._placed(hit)
            others = of_video.setdefault(placed.video_id, [])
            twin = next((other for other in others if other.is_same_moment(placed)), None)
            if twin is not None:
                twin.take_whole(placed)
                continue
            if len(kept) < max_hits:
                others.append(placed)
                kept.append(placed)
        return [
            replace(
                placed.hit,
                rank=rank,
                video_id=placed.video_id,
                start_seconds=placed.start,
                end_seconds=placed.end,
            )
            for rank, placed in enumerate(kept, start=1)
        ]

    def _placed(self, hit: SearchHit) -> _Placed:
        window = self._windows.get(hit.video_id)
        if window is None:
            return _Placed(hit, None, hit.video_id, hit.start_seconds, hit.end_seconds)
        start, end = (window.start_seconds + seconds for seconds in (hit.start_seconds, hit.end_seconds))
        return _Placed(hit, window, window.video_id, start, end)


def select_whole(index: ClipIndex, wanted: VideoFilter, windowed: WindowedIds) -> tuple[str, ...]:
    """The ids of the whole videos that a filter lets through; ids and lengths in it are those of whole videos.

    Args:
        windowed: of the ids of the index.
    Raises:
        DataError: `wanted.video_ids` names a video that the index does not hold.
    """
    named = None
    if wanted.video_ids is not None:
        named = dict.fromkeys(windowed.find(video_id) or video_id for video_id in wanted.video_ids)
    index.places(windowed.expand(named or ()))  # an unknown one is refused
    if named is None and not windowed.has_windows:
        return index.select(wanted)
    others = replace(wanted, video_ids=None, min_duration_seconds=None, max_duration_seconds=None)
    found: Iterable[str] = named or ()
    if named is None or others != VideoFilter():  # else there is no need to go through all videos
        found = dict.fromkeys(map(whole_id, index.select(others)))
    shortest, longest = wanted.min_duration_seconds or 0.0, wanted.max_duration_seconds
    any_length = not shortest and longest is None
    return tuple(
        video_id
        for video_id in found
        if named is None or video_id in named
        if any_length
        or shortest <= whole_seconds(index, video_id, windowed) <= (math.inf if longest is None else longest)
    )


def whole_seconds(index: ClipIndex, video_id: str, windowed: WindowedIds) -> float:
    """How long a whole video is. Raises DataError: the index does not hold it."""
    seconds = windowed.duration_seconds(video_id)
    return float(index.durations_seconds[index.places([video_id])[0]]) if seconds is None else seconds


@dataclass
class _Placed:
    """A hit with its times in the whole video; `window` is where it was found, None for a whole video."""

    hit: SearchHit
    window: Window | None
    video_id: str
    start: float
    end: float

    def is_same_moment(self, other: _Placed) -> bool:
        if self.window is None or self.window == other.window:
            return False
        shared = min(self.end, other.end) - max(self.start, other.start)
        return shared > 0 and shared >= SAME_MOMENT * min(self.end - self.start, other.end - other.start)

    def is_cut(self) -> bool:
        if self.window is None:
            return False
        edge = EDGE_SHARE * self.window.duration_seconds
        at_start = self.start - self.window.start_seconds <= edge and self.window.start_seconds > 0
        return at_start or self.window.end_seconds - self.end <= edge

    def take_whole(self, other: _Placed) -> None:
        if self.is_cut() and not other.is_cut():
            self.window, self.start, self.end = other.window, other.start, other.end
