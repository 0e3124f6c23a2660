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
class View:
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


def view_of(
    hits: Sequence[SearchHit],
    deviations_below: Sequence[float],
    config: AnswerConfig,
    seconds_of: Callable[[str], float],
) -> View:
    """How hits, best first, are shown. The first one is never far below.

    Args:
        deviations_below: how far each lies below the best, see `Answer.deviations_below`.
        seconds_of: how long a video is.
    """
    ranks: dict[str, int] = {}
    shown = []
    for place, (hit, below) in enumerate(zip(hits, deviations_below, strict=True)):
        rank = ranks.setdefault(hit.video_id, len(ranks) + 1)
        most = config.far_below_deviations
        is_far_below = place > 0 and most is not None and below > most
        shown.append(ShownHit(widened(hit, config.min_seconds, seconds_of(hit.video_id)), rank, is_far_below))
    return View(tuple(shown))


def grouped(shown: Sequence[ShownHit]) -> list[list[ShownHit]]:
    """Moments, best first, by video: videos in the order of their best moments, each with its own ones best first."""
    groups: dict[str, list[ShownHit]] = {}
    for one in shown:
        groups.setdefault(one.hit.video_id, []).append(one)
    return list(groups.values())


def widened(hit: SearchHit, min_seconds: float, duration_seconds: float) -> SearchHit:
    """A hit that lasts so long at least, around its middle; moved where its video ends, and no longer than this is.

    >>> short = SearchHit(1, "v", 4.75, 5.0, 1.0)
    >>> [(hit.start_seconds, hit.end_seconds) for hit in (widened(short, 1.0, 9.0), widened(short, 1.0, 5.0))]
    [(4.375, 5.375), (4.0, 5.0)]
    """
    length = min(min_seconds, duration_seconds)
    if hit.end_seconds - hit.start_seconds >= length:
        return hit
    middle = (hit.start_seconds + hit.end_seconds) / 2
    start = min(max(middle - length / 2, 0.0), duration_seconds - length)
    return replace(hit, start_seconds=start, end_seconds=start + length)
