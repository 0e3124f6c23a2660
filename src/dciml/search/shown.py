"""An answer as it is shown: by video, without what is far below the best, no moment shorter than can be seen, none
mostly inside a better one.

Only what people look at goes through here. Evaluation, and `Answer` itself, have all moments as they were found.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from dciml.clock import to_millisecond
from dciml.config import AnswerConfig
from dciml.search.answer import ROUNDING
from dciml.types import SearchHit


@dataclass(frozen=True)
class ShownHit:
    """A moment as it is shown.

    Attributes:
        hit: with a length that can be seen.
        video_rank: 1 for the video of the best moment, 2 for the next video, …
        is_far_below: whether it is so far below the best that it is shown on request only.
    """

    hit: SearchHit
    video_rank: int
    is_far_below: bool


@dataclass(frozen=True)
class ShownAnswer:
    """An answer as it is shown: all its moments, best first."""

    hits: tuple[ShownHit, ...]

    @property
    def close(self) -> tuple[ShownHit, ...]:
        """Those that are not far below the best."""
        return tuple(shown for shown in self.hits if not shown.is_far_below)

    @property
    def num_far_below(self) -> int:
        """How many are."""
        return len(self.hits) - len(self.close)


def show(
    hits: Sequence[SearchHit],
    deviations_below: Sequence[float],
    config: AnswerConfig,
    room_of: Callable[[SearchHit], tuple[float, float]],
) -> ShownAnswer:
    """How hits, best first, are shown, numbered anew, with times to a millisecond. The first one is never far below.

    Args:
        deviations_below: how far each lies below the best, see `Answer.deviations_below`.
        room_of: from where to where in its video a hit may be widened, in seconds.
    """
    wide = [widened(hit, config.min_seconds, room_of(hit)) for hit in hits]
    ranks: dict[str, int] = {}
    shown: list[ShownHit] = []
    for place in places_apart(wide, config.max_inside):
        hit, below, most = wide[place], deviations_below[place], config.far_below_deviations
        rank = ranks.setdefault(hit.video_id, len(ranks) + 1)
        is_far_below = place > 0 and most is not None and below > most
        start, end = to_millisecond(hit.start_seconds), to_millisecond(hit.end_seconds)
        told = replace(hit, rank=len(shown) + 1, start_seconds=start, end_seconds=end)
        shown.append(ShownHit(told, rank, is_far_below))
    return ShownAnswer(tuple(shown))


def places_apart(hits: Sequence[SearchHit], max_inside: float | None) -> list[int]:
    """The places of the hits, best first, that share no more than a part of the shorter one with a better one of their
    video that stays.

    >>> hits = [SearchHit(1, "v", 8, 11, 3.0), SearchHit(2, "v", 8, 9, 2.0), SearchHit(3, "v", 10, 14, 1.0)]
    >>> places_apart(hits, 0.5), places_apart(hits, None)
    ([0, 2], [0, 1, 2])
    """
    if max_inside is None:
        return list(range(len(hits)))
    of_video: dict[str, list[SearchHit]] = {}
    kept = []
    for place, hit in enumerate(hits):
        others = of_video.setdefault(hit.video_id, [])
        if all(_share_of_shorter(hit, other) <= max_inside for other in others):
            others.append(hit)
            kept.append(place)
    return kept


def _share_of_shorter(one: SearchHit, other: SearchHit) -> float:
    shared = min(one.end_seconds, other.end_seconds) - max(one.start_seconds, other.start_seconds)
    shorter = min(one.end_seconds - one.start_seconds, other.end_seconds - other.start_seconds)
    return shared / shorter / (1 + ROUNDING) if shared > 0 else 0.0


def grouped(shown: Sequence[ShownHit]) -> list[list[ShownHit]]:
    """Moments, best first, by video: videos in the order of their best moments, each with its own ones best first."""
    groups: dict[str, list[ShownHit]] = {}
    for one in shown:
        groups.setdefault(one.hit.video_id, []).append(one)
    return list(groups.values())


def widened(hit: SearchHit, min_seconds: float, room: tuple[float, float]) -> SearchHit:
    """A hit that lasts so long at least, around its middle; moved where its room ends, and no longer than this is.

    Args:
        room: start and end in seconds, around the hit: of its video, as a rule.

    >>> short = SearchHit(1, "v", 4.75, 5.0, 1.0)
    >>> wide = [widened(short, 1.0, (0.0, seconds)) for seconds in (9.0, 5.0)]
    >>> [(hit.start_seconds, hit.end_seconds) for hit in wide]
    [(4.375, 5.375), (4.0, 5.0)]
    """
    first, last = room
    length = min(min_seconds, last - first)
    if hit.end_seconds - hit.start_seconds >= length:
        return hit
    middle = (hit.start_seconds + hit.end_seconds) / 2
    start = min(max(middle - length / 2, first), last - length)
    return replace(hit, start_seconds=start, end_seconds=start + length)
