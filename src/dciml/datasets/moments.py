"""The rules for true moments, one place for all readers: what is clipped, dropped, or an error."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from dciml.errors import DataError, Where

PastEnd = Literal["clip", "refuse"]
BadMoments = Literal["refuse", "drop"]


@dataclass
class MomentRules:
    """Checks moments and counts what it had to change.

    Args:
        past_end: a moment that ends after its video is clipped to the video's end, or is an error.
        bad_moments: a moment that cannot be true (its end not after its start, or wholly outside the video)
            is an error, or is dropped while its sentence stays. Published training files hold a few of them.
    """

    past_end: PastEnd = "clip"
    bad_moments: BadMoments = "refuse"
    num_clipped: int = field(default=0, init=False)
    num_dropped: int = field(default=0, init=False)

    def check(
        self, start: float, end: float, duration_seconds: float | None, where: Where
    ) -> tuple[float, float] | None:
        """The moment as it is to be used, in seconds; None when it is dropped.

        Args:
            duration_seconds: of the video; None when it is not known, and then no end is checked against it.
        Raises:
            DataError: not finite, a negative start, or what the rules refuse.

        >>> MomentRules().check(2.0, 12.0, 10.0, Where("a.jsonl", 1))
        (2.0, 10.0)
        """
        if not (math.isfinite(start) and math.isfinite(end)):
            raise DataError(f"the moment [{start}, {end}] is not finite", where=where, mend="give seconds")
        if start < 0:
            raise DataError(
                f"the moment starts before the video, at {start} s", where=where, mend="start at 0 or later"
            )
        if end <= start:
            word = "before" if end < start else "at"
            self._refuse_or_drop(f"the moment ends {word} its start ({start} to {end} s)", where)
            return None
        if duration_seconds is None or end <= duration_seconds:
            return start, end
        if start >= duration_seconds:
            what = f"the moment ({start} to {end} s) lies wholly outside the video of {duration_seconds} s"
            self._refuse_or_drop(what, where)
            return None
        if self.past_end == "refuse":
            raise DataError(
                f"the moment ends at {end} s, after the end of the video at {duration_seconds} s",
                where=where,
                mend="correct the end, or clip it to the video with --past-end clip",
            )
        self.num_clipped += 1
        return start, duration_seconds

    def _refuse_or_drop(self, what: str, where: Where) -> None:
        if self.bad_moments == "refuse":
            mend = "correct or remove it, or keep only the sentence with --bad-moments drop"
            raise DataError(what, where=where, mend=mend)
        self.num_dropped += 1
