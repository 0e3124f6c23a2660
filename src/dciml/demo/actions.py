"""What actors do in the demo corpus: where an actor is, how large and how turned, at each moment of its event.

Actions that end somewhere (crossing, rising, growing) start again every few seconds, so that a long event does not
move slower than a short one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

PASS_SECONDS = 3.5
"""About how long one crossing, rise, fall, growth or shrinking takes."""


@dataclass(frozen=True)
class Pose:
    """Centre as parts of the picture's width and height, size against the usual one, turn in degrees."""

    x: float
    y: float
    scale: float = 1.0
    angle_degrees: float = 0.0
    is_visible: bool = True
    faces_left: bool = False


@dataclass(frozen=True)
class Moment:
    """How far an event has come: `seconds` since its start, `seconds` in all."""

    seconds: float
    length_seconds: float

    @property
    def part(self) -> float:
        """0 to 1 within the present pass."""
        passes = max(1, round(self.length_seconds / PASS_SECONDS))
        return (self.seconds / self.length_seconds * passes) % 1.0

    def turns(self, per_second: float) -> float:
        """Angle in radians after so many full turns a second."""
        return 2 * math.pi * per_second * self.seconds


Motion = Callable[[Pose, Moment], Pose]


def pose_of(action: str, home: Pose, moment: Moment) -> Pose:
    """The pose at a moment of an action around a home pose.

    Raises:
        KeyError: an unknown action.
    """
    return ACTIONS[action](home, moment)


def _rightwards(home: Pose, moment: Moment) -> Pose:
    return replace(home, x=-0.1 + 1.2 * moment.part)


def _leftwards(home: Pose, moment: Moment) -> Pose:
    return replace(home, x=1.1 - 1.2 * moment.part, faces_left=True)


def _rises(home: Pose, moment: Moment) -> Pose:
    return replace(home, y=1.1 - 1.2 * moment.part)


def _falls(home: Pose, moment: Moment) -> Pose:
    return replace(home, y=-0.1 + 1.2 * moment.part)


def _bounces(home: Pose, moment: Moment) -> Pose:
    return replace(home, y=0.78 - 0.45 * abs(math.sin(moment.turns(0.4))))


def _spins(home: Pose, moment: Moment) -> Pose:
    return replace(home, angle_degrees=math.degrees(moment.turns(0.45)))


def _grows(home: Pose, moment: Moment) -> Pose:
    return replace(home, scale=0.45 + 1.4 * moment.part)


def _shrinks(home: Pose, moment: Moment) -> Pose:
    return replace(home, scale=1.85 - 1.4 * moment.part)


def _blinks(home: Pose, moment: Moment) -> Pose:
    return replace(home, is_visible=math.sin(moment.turns(0.8)) >= 0)


def _circles(home: Pose, moment: Moment) -> Pose:
    angle = moment.turns(0.35)
    return replace(home, x=0.5 + 0.3 * math.cos(angle), y=0.5 + 0.28 * math.sin(angle))


def _stays(home: Pose, moment: Moment) -> Pose:
    del moment
    return home


ACTIONS: dict[str, Motion] = {
    "blinks": _blinks,
    "bounces": _bounces,
    "circles": _circles,
    "falls": _falls,
    "grows": _grows,
    "leftwards": _leftwards,
    "rightwards": _rightwards,
    "rises": _rises,
    "shrinks": _shrinks,
    "spins": _spins,
    "stays": _stays,
}
EVENT_ACTIONS = tuple(action for action in ACTIONS if action != "stays")
"""The actions that sentences tell of; a bystander only stays."""
