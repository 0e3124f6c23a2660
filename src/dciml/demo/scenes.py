"""Backgrounds of the demo corpus: eight places, drawn with gradients and simple shapes, each a little different."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageDraw

Colour = tuple[int, int, int]
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
