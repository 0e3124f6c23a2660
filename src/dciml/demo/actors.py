"""The actors of the demo corpus: six kinds in six colours, drawn large and scaled down for smooth edges."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from PIL import Image, ImageDraw

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
