"""Times for people, by one rule everywhere: the command line, the page (`format.js` has the same), names of files; and
times for programs.
"""

from __future__ import annotations

import math

NEARLY_SECONDS = 0.05
"""A time that is this near to the next whole second counts as it: rounding has often made 59.97 of a minute."""


def to_millisecond(seconds: float) -> float:
    """A time in seconds as programs get it: what lies beyond a thousandth is rounding, not the video's.

    >>> to_millisecond(29.000000000000004), to_millisecond(1 / 3)
    (29.0, 0.333)
    """
    return round(seconds, 3)


def clock_parts(seconds: float) -> tuple[int, int, int]:
    """Hours, minutes and whole seconds that have passed, as any player counts them; a time before the start is 0.

    >>> clock_parts(75.9), clock_parts(59.95), clock_parts(3723.2), clock_parts(-3.0)
    ((0, 1, 15), (0, 1, 0), (1, 2, 3), (0, 0, 0))
    """
    whole = max(0, math.floor(seconds + NEARLY_SECONDS + 1e-6))
    return whole // 3600, whole // 60 % 60, whole % 60


def clock(seconds: float) -> str:
    """A time as mm:ss, or h:mm:ss from one hour on.

    >>> clock(64.6), clock(3599.97), clock(3723.2)
    ('01:04', '1:00:00', '1:02:03')
    """
    hours, minutes, rest = clock_parts(seconds)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes:02}:{rest:02}"


def clock_range(start_seconds: float, end_seconds: float) -> str:
    """A moment.

    >>> clock_range(40.0, 60.2)
    '00:40–01:00'
    """
    return f"{clock(start_seconds)}–{clock(end_seconds)}"


def clock_name(seconds: float) -> str:
    """A time as a part of a file name.

    >>> clock_name(40.0), clock_name(3723.2)
    ('00m40s', '1h02m03s')
    """
    hours, minutes, rest = clock_parts(seconds)
    return f"{hours}h{minutes:02}m{rest:02}s" if hours else f"{minutes:02}m{rest:02}s"
