"""The demo corpus: real MP4 files with planned events, and their data folder.

    FOLDER/made.json       which generator, seed and sizes the files are of
    FOLDER/<video>.mp4

The same seed gives the same videos and sentences, however many processes draw them.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image

from dciml.datasets import DataFolder, write_data_folder
from dciml.demo.drawing import Moment, Pose, paint_scene, pose_of, sprite
from dciml.demo.story import TICKS_PER_SECOND, Event, Split, Story, plan_story
from dciml.errors import DataError
from dciml.features import ExtractionProgress, VideoEncoder, extract_videos
from dciml.files import read_json, write_json
from dciml.media import write_video
from dciml.processes import map_in_processes
from dciml.types import Video

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


GENERATOR_VERSION = 1
"""Raise it whenever videos or sentences of the same seed change, so that old files are not used again."""
MADE_FILE = "made.json"
DATA_NAME = "dciml demo"
SPLITS: tuple[Split, ...] = ("train", "test")


@dataclass(frozen=True)
class CorpusSize:
    """How many videos each split has."""

    train: int = 220
    test: int = 60


def plan_corpus(size: CorpusSize, seed: int) -> tuple[Story, ...]:
    """All stories, training first."""
    counts = {"train": size.train, "test": size.test}
    return tuple(plan_story(split, index, seed) for split in SPLITS for index in range(counts[split]))


def made_by(seed: int) -> dict[str, int]:
    """What is written beside videos that this generator made with a seed."""
    return {"generator_version": GENERATOR_VERSION, "seed": seed}


def video_path(folder: Path, video_id: str) -> Path:
    """Where the file of a video lies."""
    return folder / f"{video_id}.mp4"


def make_videos(
    stories: Sequence[Story], folder: Path, workers: int = 2, on_video: Callable[[str], None] | None = None
) -> int:
    """Draw and write the videos that `folder` does not hold yet; returns how many were written.

    Files of another generator version or seed are deleted first.

    Raises:
        DataError: the folder holds files that this generator did not make.
    """
    _claim(folder, made_by(stories[0].seed[0]))
    missing = [story for story in stories if not video_path(folder, story.video_id).exists()]
    for video_id in map_in_processes(partial(_make_video, folder), missing, workers):
        if on_video is not None:
            on_video(video_id)
    return len(missing)


def make_data_folder(
    stories: Sequence[Story],
    videos_folder: Path,
    path: Path,
    encoder: VideoEncoder,
    workers: int = 2,
    on_progress: Callable[[ExtractionProgress], None] | None = None,
) -> DataFolder:
    """Extract features and write the data folder, or open the one that is there already.

    Raises:
        DataError: a video cannot be decoded, or `path` holds something else.
    """
    notes = {
        "generator_version": GENERATOR_VERSION,
        "seed": stories[0].seed[0],
        "encoder": encoder.name,
        "num_videos": len(stories),
    }
    if (path / "data.json").exists():
        folder = DataFolder.open(path)
        if folder.name == DATA_NAME and dict(folder.notes) == notes:
            return folder
        if folder.name == DATA_NAME:
            shutil.rmtree(path)
    splits: dict[str, Split] = {story.video_id: _split_of(story) for story in stories}
    return write_data_folder(
        path,
        DATA_NAME,
        {
            split: [q for story in stories if splits[story.video_id] == split for q in story.queries]
            for split in SPLITS
        },
        [Video(story.video_id, story.duration_seconds, splits[story.video_id]) for story in stories],
        lambda store: extract_videos(
            {story.video_id: video_path(videos_folder, story.video_id) for story in stories},
            encoder,
            store,
            workers,
            on_progress,
        ).check(),
        notes=notes,
    )


def _split_of(story: Story) -> Split:
    return SPLITS[story.seed[1]]


def _claim(folder: Path, marker: dict[str, int]) -> None:
    """Leave in `folder` only videos that `marker` describes."""
    file = folder / MADE_FILE
    if file.exists() and read_json(file) == marker:
        return
    videos = sorted(folder.glob("*.mp4"))
    if videos and not file.exists():
        raise DataError(
            f"the folder holds videos that are not of the demo, such as {videos[0].name}",
            where=folder,
            mend="name another folder",
        )
    for video in videos:
        video.unlink()
    write_json(file, marker)


def _make_video(folder: Path, story: Story) -> str:
    path = video_path(folder, story.video_id)
    write_video(path, render(story), FRAMES_PER_SECOND, preset="superfast", crf=27)
    return story.video_id
