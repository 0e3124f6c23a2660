"""Drawing and writing the demo corpus, on a tiny one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dciml.datasets.folder import DataFolder
from dciml.demo.corpus import (
    HEIGHT,
    WIDTH,
    CorpusSize,
    make_data_folder,
    make_videos,
    plan_corpus,
    render,
    video_path,
)
from dciml.demo.story import Story
from dciml.errors import DataError
from dciml.features.encoders.visual import BuiltinVisualEncoder
from dciml.media import iterate_frames, probe


@pytest.fixture(scope="module")
def stories() -> tuple[Story, ...]:
    """The shortest of a few stories, one for each split."""
    some = plan_corpus(CorpusSize(12, 12), 7)
    return tuple(min(part, key=lambda story: story.duration_seconds) for part in (some[:12], some[12:]))


@pytest.fixture(scope="module")
def videos(stories: tuple[Story, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    assert make_videos(stories, folder, workers=1) == 2
    return folder


def test_videos_are_as_planned(stories: tuple[Story, ...], videos: Path) -> None:
    for story in stories:
        info = probe(video_path(videos, story.video_id))
        assert (info.width, info.height, info.average_fps) == (WIDTH, HEIGHT, 8.0)
        assert info.duration_seconds == pytest.approx(story.duration_seconds, rel=1e-7)


def test_the_same_seed_gives_the_same_videos(
    stories: tuple[Story, ...], videos: Path, tmp_path: Path
) -> None:
    make_videos(stories, tmp_path, workers=2)
    for story in stories:
        once, again = (
            [picture for _, picture in iterate_frames(video_path(folder, story.video_id), 2.0)]
            for folder in (videos, tmp_path)
        )
        np.testing.assert_array_equal(once, again)


def test_actors_are_seen_in_their_events_and_nowhere_else(stories: tuple[Story, ...]) -> None:
    story = stories[0]
    played, empty = render(story), render(replace(story, events=(), bystanders=()))
    differs = np.array([(a != b).any(axis=2).mean() for a, b in zip(played, empty, strict=True)])
    seconds = np.arange(len(differs)) / 8
    shown = np.zeros(len(differs), dtype=bool)
    for event in (*story.events, *story.bystanders):
        own = (seconds >= event.start_seconds) & (seconds < event.end_seconds)
        assert np.median(differs[own]) > 0.015, event
        shown |= own
    assert (differs[~shown] == 0).all()
    assert (~shown).any()


def test_videos_are_used_again_and_only_missing_ones_drawn(
    stories: tuple[Story, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[str] = []

    def note(path: Path, frames: object, fps: float, **settings: object) -> None:
        del frames, fps, settings
        path.write_bytes(b"video")
        drawn.append(path.stem)

    monkeypatch.setattr("dciml.demo.corpus.write_video", note)
    assert make_videos(stories, tmp_path, workers=1) == 2
    assert make_videos(stories, tmp_path, workers=1) == 0
    video_path(tmp_path, stories[1].video_id).unlink()
    assert make_videos(stories, tmp_path, workers=1) == 1
    monkeypatch.setattr("dciml.demo.corpus.GENERATOR_VERSION", 99)
    assert make_videos(stories, tmp_path, workers=1) == 2
    ids = [story.video_id for story in stories]
    assert drawn == [*ids, ids[1], *ids]


def test_a_folder_of_other_videos_is_refused(stories: tuple[Story, ...], tmp_path: Path) -> None:
    (tmp_path / "holiday.mp4").write_bytes(b"mine")
    with pytest.raises(DataError, match="not of the demo, such as holiday"):
        make_videos(stories, tmp_path, workers=1)
    assert (tmp_path / "holiday.mp4").read_bytes() == b"mine"


def test_data_folder_joins_videos_sentences_and_moments(
    stories: tuple[Story, ...], videos: Path, tmp_path: Path
) -> None:
    encoder = BuiltinVisualEncoder()
    folder = make_data_folder(stories, videos, tmp_path / "data", encoder, workers=1)
    assert folder.splits == ("train", "test")
    for story, split in zip(stories, ("train", "test"), strict=True):
        assert [video.video_id for video in folder.videos(split)] == [story.video_id]
        assert folder.queries(split) == story.queries
        assert folder.store.num_rows(story.video_id) == int(np.ceil(2 * story.duration_seconds))
    before = (tmp_path / "data/features/rows.bin").stat().st_mtime_ns
    make_data_folder(stories, videos, tmp_path / "data", encoder, workers=1)
    assert (tmp_path / "data/features/rows.bin").stat().st_mtime_ns == before
    fewer = make_data_folder(plan_like(stories), videos, tmp_path / "data", encoder, workers=1)
    assert fewer.queries("train")[0].sentence == "Something else."
    assert DataFolder.open(tmp_path / "data").name == "dciml demo"


def plan_like(stories: tuple[Story, ...]) -> tuple[Story, ...]:
    """The same stories as another seed would have made them."""
    return tuple(
        replace(
            story,
            seed=(8, *story.seed[1:]),
            queries=(replace(story.queries[0], sentence="Something else."),),
        )
        for story in stories
    )
