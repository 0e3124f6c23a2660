"""The demo corpus: real MP4 files with planned events, and their data folder.

    FOLDER/made.json       which generator, seed and sizes the files are of
    FOLDER/<video>.mp4

The same seed gives the same videos and sentences, however many processes draw them.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from dciml.datasets.folder import DataFolder
from dciml.datasets.folder_writer import write_data_folder
from dciml.demo.render import FRAMES_PER_SECOND, render
from dciml.demo.story import Split, Story, plan_story
from dciml.errors import DataError
from dciml.features.extract import extract_videos
from dciml.features.joined import VideoEncoder
from dciml.files import read_json, write_json
from dciml.media import write_video
from dciml.processes import map_in_processes
from dciml.types import Video

GENERATOR_VERSION = 1
"""Raise it whenever videos or sentences of the same seed change, so that old files are not used again."""
MARKER = "made.json"
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
        ).check(),
        notes=notes,
    )


def _split_of(story: Story) -> Split:
    return SPLITS[story.seed[1]]


def _claim(folder: Path, marker: dict[str, int]) -> None:
    """Leave in `folder` only videos that `marker` describes."""
    file = folder / MARKER
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
