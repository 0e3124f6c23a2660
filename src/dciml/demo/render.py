"""Stories → pictures: background, actors, and what a hand-held camera adds (jitter, noise, changing light)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image

from dciml.demo.actions import Moment, Pose, pose_of
from dciml.demo.actors import sprite
from dciml.demo.scenes import paint_scene
from dciml.demo.story import TICKS_PER_SECOND, Event, Story

WIDTH, HEIGHT = 128, 96
FRAMES_PER_SECOND = TICKS_PER_SECOND
MARGIN = 3  # pixels that the camera may sway to each side
ACTOR_SIDE = 36  # usual side of an actor, in pixels
NOISE_TILES = 6

Frame = NDArray[np.uint8]


def render(story: Story) -> Iterator[Frame]:
    """The pictures of a story, (HEIGHT, WIDTH, 3), `FRAMES_PER_SECOND` of them for each second."""
    rng = np.random.default_rng([*story.seed, 1])
    background = paint_scene(story.scene, WIDTH + 2 * MARGIN, HEIGHT + 2 * MARGIN, rng)
    noise = rng.normal(0, rng.uniform(1.5, 3.5), (NOISE_TILES, HEIGHT, WIDTH, 1)).astype(np.int16)
    count = round(story.duration_seconds * FRAMES_PER_SECOND)
    sway, light = _walk(count, 2, 0.5, rng), 1 + 0.1 * _walk(count, 1, 0.15, rng)[:, 0]
    for index in range(count):
        left, top = (MARGIN + np.round(sway[index] * MARGIN)).astype(int).tolist()
        image = background.crop((left, top, left + WIDTH, top + HEIGHT))
        for event in (*story.bystanders, *story.events):
            _draw(image, event, index / FRAMES_PER_SECOND)
        level = np.asarray(image, dtype=np.float32) * np.float32(light[index])
        grain = noise[int(rng.integers(NOISE_TILES)), :: int(rng.choice([-1, 1]))]
        yield np.clip(level.astype(np.int16) + grain, 0, 255).astype(np.uint8)


def _walk(count: int, width: int, step: float, rng: Generator) -> NDArray[np.float64]:
    """A random walk (count, width) that is drawn back to 0 and stays within -1 and 1."""
    values, now = np.zeros((count, width)), np.zeros(width)
    for index, push in enumerate(rng.normal(0, step, (count, width))):
        now = np.clip(0.85 * now + push, -1, 1)
        values[index] = now
    return values


def _draw(image: Image.Image, event: Event, seconds: float) -> None:
    if not event.start_seconds <= seconds < event.end_seconds:
        return
    moment = Moment(seconds - event.start_seconds, event.end_seconds - event.start_seconds)
    pose = pose_of(event.action, event.home, moment)
    if pose.is_visible:
        _paste(image, event, pose)


def _paste(image: Image.Image, event: Event, pose: Pose) -> None:
    picture = sprite(event.actor.kind, event.actor.colour)
    side = max(2, round(ACTOR_SIDE * pose.scale))
    picture = picture.resize((side, side), Image.Resampling.BILINEAR, reducing_gap=2.0)
    if pose.faces_left:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if pose.angle_degrees:
        picture = picture.rotate(-pose.angle_degrees, Image.Resampling.BILINEAR)
    corner = (round(pose.x * image.width - side / 2), round(pose.y * image.height - side / 2))
    image.paste(picture, corner, picture)
