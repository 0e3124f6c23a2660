"""What is drawn in the demo corpus: eight places, six kinds of actors in six colours, and what these do.

Actions that end somewhere (crossing, rising, growing) start again every few seconds, so that a long event does not
move slower than a short one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageDraw

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
        """Angle in radians at a number of full turns a second."""
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


Colour = tuple[int, int, int]
Shape = Callable[[ImageDraw.ImageDraw, Colour], None]

COLOURS: dict[str, Colour] = {
    "blue": (35, 80, 225),
    "green": (25, 170, 60),
    "purple": (150, 45, 190),
    "red": (220, 30, 35),
    "white": (250, 250, 250),
    "yellow": (250, 215, 20),
}
OUTLINE: Colour = (25, 25, 28)
SIDE = 120  # pixels of the large drawing


@cache
def sprite(kind: str, colour: str) -> Image.Image:
    """The actor as a square RGBA picture of side `SIDE`, facing right. Do not draw on it: it is shared.

    Raises:
        KeyError: an unknown kind or colour.
    """
    image = Image.new("RGBA", (SIDE, SIDE))
    ACTORS[kind](ImageDraw.Draw(image), COLOURS[colour])
    return image


def _ball(draw: ImageDraw.ImageDraw, colour: Colour) -> None:
    draw.ellipse((14, 14, 106, 106), fill=colour, outline=OUTLINE, width=5)
    draw.rectangle((54, 17, 66, 103), fill=OUTLINE)
    draw.ellipse((26, 30, 44, 48), fill=(255, 255, 255))


def _car(draw: ImageDraw.ImageDraw, colour: Colour) -> None:
    draw.polygon((30, 58, 44, 34, 82, 34, 98, 58), fill=(170, 205, 225), outline=OUTLINE, width=4)
    draw.rounded_rectangle((4, 54, 116, 86), 10, fill=colour, outline=OUTLINE, width=4)
    for x in (32, 88):
        draw.ellipse((x - 14, 72, x + 14, 100), fill=OUTLINE)
        draw.ellipse((x - 6, 80, x + 6, 92), fill=(200, 200, 200))


def _cat(draw: ImageDraw.ImageDraw, colour: Colour) -> None:
    draw.line((18, 70, 8, 30), fill=colour, width=9)
    for x in (26, 40, 66, 80):
        draw.rectangle((x, 80, x + 9, 108), fill=colour, outline=OUTLINE, width=2)
    draw.ellipse((14, 52, 94, 92), fill=colour, outline=OUTLINE, width=4)
    draw.polygon((70, 40, 74, 12, 90, 32), fill=colour, outline=OUTLINE, width=3)
    draw.polygon((96, 32, 110, 12, 114, 42), fill=colour, outline=OUTLINE, width=3)
    draw.ellipse((68, 26, 116, 70), fill=colour, outline=OUTLINE, width=4)
    for x in (84, 102):
        draw.ellipse((x - 4, 40, x + 4, 48), fill=OUTLINE)


def _bird(draw: ImageDraw.ImageDraw, colour: Colour) -> None:
    draw.polygon((4, 52, 34, 62, 8, 80), fill=colour, outline=OUTLINE, width=3)
    draw.ellipse((22, 42, 92, 86), fill=colour, outline=OUTLINE, width=4)
    draw.ellipse((74, 28, 106, 60), fill=colour, outline=OUTLINE, width=4)
    draw.polygon((104, 38, 120, 46, 104, 52), fill=(245, 150, 30))
    draw.polygon((40, 58, 74, 58, 36, 8), fill=colour, outline=OUTLINE, width=4)
    draw.ellipse((88, 38, 95, 45), fill=OUTLINE)


def _person(draw: ImageDraw.ImageDraw, colour: Colour) -> None:
    skin = (226, 178, 140)
    for x in (44, 62):
        draw.rectangle((x, 78, x + 13, 118), fill=(60, 55, 60))
    for x in (26, 82):
        draw.rectangle((x, 42, x + 11, 78), fill=skin)
    draw.rectangle((36, 40, 83, 82), fill=colour, outline=OUTLINE, width=3)
    draw.ellipse((45, 4, 75, 38), fill=skin, outline=OUTLINE, width=3)
    draw.chord((45, 2, 75, 32), 180, 360, fill=(70, 45, 25))


def _boat(draw: ImageDraw.ImageDraw, colour: Colour) -> None:
    draw.rectangle((54, 6, 60, 84), fill=(90, 60, 35))
    draw.polygon((62, 8, 62, 74, 108, 74), fill=colour, outline=OUTLINE, width=4)
    draw.polygon((52, 24, 52, 74, 18, 74), fill=colour, outline=OUTLINE, width=4)
    draw.polygon((6, 82, 114, 82, 94, 112, 26, 112), fill=(120, 75, 40), outline=OUTLINE, width=4)


ACTORS: dict[str, Shape] = {
    "ball": _ball,
    "bird": _bird,
    "boat": _boat,
    "car": _car,
    "cat": _cat,
    "person": _person,
}


Painter = Callable[[Image.Image, Generator], None]


def paint_scene(scene: str, width: int, height: int, rng: Generator) -> Image.Image:
    """Paint a background; the same generator state gives the same picture.

    Raises:
        KeyError: an unknown scene.
    """
    image = Image.new("RGB", (width, height))
    SCENES[scene](image, rng)
    tint = rng.uniform(0.88, 1.12, 3) * rng.uniform(0.85, 1.1)
    pixels = np.asarray(image, dtype=np.float32) * tint + _texture(width, height, rng)
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def _texture(width: int, height: int, rng: Generator) -> np.ndarray:
    """Smooth random blotches, the same in all three channels."""
    small = Image.fromarray(rng.normal(0, 6, (height // 6, width // 6)).astype(np.float32))
    return np.asarray(small.resize((width, height), Image.Resampling.BILINEAR))[..., None]


def _gradient(image: Image.Image, top: Colour, bottom: Colour, start: float, end: float) -> None:
    """Fill the rows from `start` to `end` (parts of the height) from one colour to another."""
    width, height = image.size
    first, last = int(start * height), int(end * height)
    ramp = np.linspace(np.array(top), np.array(bottom), max(last - first, 1))
    strip = np.repeat(ramp[:, None, :], width, axis=1).astype(np.uint8)
    image.paste(Image.fromarray(strip), (0, first))


def _beach(image: Image.Image, rng: Generator) -> None:
    width, height = image.size
    shore, draw = rng.uniform(0.5, 0.65), ImageDraw.Draw(image)
    _gradient(image, (120, 190, 240), (200, 230, 250), 0, 0.35)
    _gradient(image, (20, 90, 160), (60, 160, 190), 0.35, shore)
    _gradient(image, (238, 214, 160), (215, 180, 120), shore, 1)
    for _ in range(5):
        x, y = rng.uniform(0, width), rng.uniform(0.4, shore) * height
        draw.line((x, y, x + 14, y), fill=(190, 225, 235))
    x = rng.uniform(0.1, 0.9) * width
    draw.ellipse((x - 7, 5, x + 7, 19), fill=(255, 240, 170))


def _kitchen(image: Image.Image, rng: Generator) -> None:
    width, height = image.size
    draw = ImageDraw.Draw(image)
    _gradient(image, (225, 215, 200), (210, 200, 185), 0, 0.7)
    _gradient(image, (140, 110, 90), (110, 85, 70), 0.7, 1)
    for x in range(0, width, 12):
        draw.line((x, 0.3 * height, x, 0.55 * height), fill=(180, 170, 160))
    for y in (0.3, 0.38, 0.47, 0.55):
        draw.line((0, y * height, width, y * height), fill=(180, 170, 160))
    draw.rectangle((0, 0.58 * height, width, 0.72 * height), fill=(95, 65, 45))
    draw.rectangle((0, 0.55 * height, width, 0.59 * height), fill=(60, 60, 65))
    fridge = rng.uniform(0.0, 0.75) * width
    draw.rectangle(
        (fridge, 0.1 * height, fridge + 26, 0.74 * height), fill=(175, 180, 188), outline=(110, 115, 120)
    )
    draw.line((fridge, 0.35 * height, fridge + 26, 0.35 * height), fill=(110, 115, 120))


def _forest(image: Image.Image, rng: Generator) -> None:
    width, height = image.size
    draw = ImageDraw.Draw(image)
    _gradient(image, (40, 80, 50), (25, 60, 30), 0, 0.75)
    _gradient(image, (70, 60, 35), (50, 42, 25), 0.75, 1)
    for x in np.sort(rng.uniform(-5, width, 11)):
        shade, thick = int(rng.integers(-15, 15)), rng.uniform(4, 9)
        draw.rectangle((x, 0.2 * height, x + thick, 0.85 * height), fill=(75 + shade, 55 + shade, 35 + shade))
        top = rng.uniform(0.05, 0.3) * height
        draw.ellipse((x - 10, top - 10, x + thick + 10, top + 16), fill=(25 + shade, 75 + shade, 35 + shade))


def _street(image: Image.Image, rng: Generator) -> None:
    width, height = image.size
    draw = ImageDraw.Draw(image)
    _gradient(image, (170, 185, 200), (200, 205, 210), 0, 0.65)
    x = -rng.uniform(0, 15)
    while x < width:
        wide, top, shade = rng.uniform(18, 32), rng.uniform(0.05, 0.3) * height, int(rng.integers(-20, 20))
        draw.rectangle((x, top, x + wide, 0.66 * height), fill=(140 + shade, 115 + shade, 105 + shade))
        for row in np.arange(top + 4, 0.6 * height, 10):
            for column in np.arange(x + 4, x + wide - 5, 9):
                draw.rectangle((column, row, column + 4, row + 5), fill=(215, 205, 150))
        x += wide + 1
    _gradient(image, (80, 80, 85), (60, 60, 64), 0.66, 1)
    for x in range(0, width, 22):
        draw.rectangle((x, 0.83 * height, x + 11, 0.85 * height), fill=(215, 215, 215))


def _snow(image: Image.Image, rng: Generator) -> None:
    width, height = image.size
    draw = ImageDraw.Draw(image)
    _gradient(image, (165, 180, 200), (205, 215, 225), 0, 0.55)
    peak = rng.uniform(0.2, 0.8) * width
    draw.polygon((peak - 60, 0.6 * height, peak, 8, peak + 60, 0.6 * height), fill=(135, 150, 172))
    draw.polygon((peak - 18, 24, peak, 8, peak + 18, 24), fill=(225, 230, 238))
    _gradient(image, (218, 224, 234), (200, 210, 226), 0.55, 1)
    for x in rng.uniform(0, width, 3):
        y = rng.uniform(0.5, 0.7) * height
        draw.polygon((x - 8, y, x, y - 22, x + 8, y), fill=(60, 90, 80))


def _night(image: Image.Image, rng: Generator) -> None:
    width, height = image.size
    draw = ImageDraw.Draw(image)
    _gradient(image, (8, 10, 35), (30, 30, 75), 0, 0.85)
    _gradient(image, (15, 18, 22), (8, 10, 12), 0.85, 1)
    for x, y in zip(rng.uniform(0, width, 40), rng.uniform(0, 0.8 * height, 40), strict=True):
        draw.point((x, y), fill=(210, 210, 220))
    x, y = rng.uniform(0.1, 0.9) * width, rng.uniform(0.1, 0.25) * height
    draw.ellipse((x - 8, y - 8, x + 8, y + 8), fill=(225, 222, 200))


def _desert(image: Image.Image, rng: Generator) -> None:
    width, height = image.size
    draw = ImageDraw.Draw(image)
    _gradient(image, (235, 190, 130), (250, 220, 170), 0, 0.5)
    _gradient(image, (205, 140, 75), (170, 105, 55), 0.5, 1)
    for part in (0.5, 0.62, 0.78):
        x = rng.uniform(-0.2, 1.0) * width
        box = (x - 70, part * height, x + 70, part * height + 60)
        draw.ellipse(box, fill=(int(225 - 70 * part), int(165 - 60 * part), int(100 - 50 * part)))
    x, y = rng.uniform(0.1, 0.9) * width, 0.72 * height
    draw.rectangle((x - 2, y - 24, x + 2, y), fill=(60, 95, 55))
    draw.rectangle((x - 8, y - 16, x + 8, y - 13), fill=(60, 95, 55))


def _meadow(image: Image.Image, rng: Generator) -> None:
    width, height = image.size
    draw = ImageDraw.Draw(image)
    _gradient(image, (110, 175, 235), (185, 220, 245), 0, 0.45)
    _gradient(image, (120, 185, 75), (75, 140, 45), 0.45, 1)
    for _ in range(3):
        x, y = rng.uniform(0, width), rng.uniform(0.05, 0.25) * height
        draw.ellipse((x - 14, y - 4, x + 14, y + 4), fill=(235, 240, 245))
    for x, y in zip(rng.uniform(0, width, 45), rng.uniform(0.5 * height, height, 45), strict=True):
        petal = (240, 225, 120) if rng.random() < 0.5 else (235, 235, 235)
        draw.point((x, y), fill=petal)


SCENES: dict[str, Painter] = {
    "beach": _beach,
    "desert": _desert,
    "forest": _forest,
    "kitchen": _kitchen,
    "meadow": _meadow,
    "night": _night,
    "snow": _snow,
    "street": _street,
}
