"""Seconds ↔ pictures: frame rates as editing programs know them, and a moment as whole pictures."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

from dciml.media import VideoInfo

EDIT_RATES = (
    Fraction(24000, 1001),
    Fraction(24),
    Fraction(25),
    Fraction(30000, 1001),
    Fraction(30),
    Fraction(50),
    Fraction(60000, 1001),
    Fraction(60),
)
"""Pictures a second that editing programs have timecode for."""
SAME_RATE = 4e-4
"""Of a rate: what a file's average may be off; 24 and 23.976 differ by a thousandth."""
UNKNOWN_RATE = 25.0


def real_rate(average_fps: float) -> Fraction:
    """The rate of a video: the standard one that its average stands for, else the average itself.

    >>> real_rate(29.9702), real_rate(12.0), real_rate(23.31)
    (Fraction(30000, 1001), Fraction(12, 1), Fraction(2331, 100))
    """
    average = average_fps or UNKNOWN_RATE
    nearest = min(EDIT_RATES, key=lambda rate: abs(float(rate) - average))
    is_near = abs(float(nearest) - average) <= SAME_RATE * average
    return nearest if is_near else Fraction(average).limit_denominator(1001)


def edit_rate(average_fps: float) -> Fraction:
    """A rate that editing programs have: the video's own, else the lowest multiple of it, else the next higher one.

    >>> edit_rate(25.0), edit_rate(12.0), edit_rate(23.31), edit_rate(240.0)
    (Fraction(25, 1), Fraction(24, 1), Fraction(24000, 1001), Fraction(60, 1))
    """
    rate = real_rate(average_fps)
    multiples = [known for known in EDIT_RATES if (known / rate).denominator == 1]
    higher = [known for known in EDIT_RATES if known >= rate]
    return next(iter(multiples or higher), EDIT_RATES[-1])


@dataclass(frozen=True)
class Shot:
    """A moment in a file, in seconds, with a note for people; `name` is what to call the file, if not by its own."""

    info: VideoInfo
    start_seconds: float
    end_seconds: float
    note: str
    name: str = ""

    @property
    def called(self) -> str:
        """What to call the file."""
        return self.name or self.info.path.name

    @property
    def url(self) -> str:
        """The address of the file."""
        return self.info.path.resolve().as_uri()

    def pictures(self, rate: Fraction) -> tuple[int, int]:
        """Number of the first picture, from 0, and how many: all that are on screen in the moment, at least one."""
        first = math.floor(self.start_seconds * rate + 1e-6)
        return first, max(math.ceil(self.end_seconds * rate - 1e-6) - first, 1)
