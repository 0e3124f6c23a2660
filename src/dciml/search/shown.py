"""An answer as it is shown: by video, without what is far below the best, no moment shorter than can be seen.

Only what people look at goes through here. Evaluation, and `Answer` itself, have all moments as they were found.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from dciml.config import AnswerConfig
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
    """How hits, best first, are shown. The first one is never far below.

    Args:
        deviations_below: how far each lies below the best, see `Answer.deviations_below`.
        room_of: from where to where in its video a hit may be widened, in seconds.
    """
    ranks: dict[str, int] = {}
    shown = []
    for place, (hit, below) in enumerate(zip(hits, deviations_below, strict=True)):
        rank = ranks.setdefault(hit.video_id, len(ranks) + 1)
        most = config.far_below_deviations
        is_far_below = place > 0 and most is not None and below > most
        shown.append(ShownHit(widened(hit, config.min_seconds, room_of(hit)), rank, is_far_below))
    return ShownAnswer(tuple(shown))


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
