from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dciml.errors import DataError
from dciml.index import ClipIndex, VideoDetails, VideoFilter


def make_index(folder: Path) -> ClipIndex:
    index = ClipIndex.create(
        folder / "index",
        num_clips=2,
        width=3,
        fingerprint="abc",
        model_folder=folder / "model",
        store_path=folder / "store",
    )
    details = [
        VideoDetails(
            media_path=folder / "videos" / "home" / "tea.mp4", tags=("kitchen", "day"), date_unix=100.0
        ),
        VideoDetails(
            title="A garden",
            media_path=folder / "videos" / "home2" / "x.mp4",
            tags=("day",),
            date_unix=200.0,
            checksum="12",
        ),
        VideoDetails(tags=("kitchen", "kitchen")),
    ]
    index.add(["tea", "garden", "bare"], np.ones((3, 2, 3)), [10.0, 20.0, 30.0], None, details)
    return index


def test_video_tells_what_was_given(tmp_path: Path) -> None:
    index = make_index(tmp_path)
    for opened in (index, ClipIndex.open(index.path)):
        tea, garden, bare = (opened.video(video_id) for video_id in ("tea", "garden", "bare"))
        assert (tea.title, garden.title, bare.title) == ("tea", "A garden", "bare")
        assert tea.media_path == str(tmp_path / "videos" / "home" / "tea.mp4")
        assert (tea.tags, bare.tags, bare.media_path, bare.date_unix) == (
            ("day", "kitchen"),
            ("kitchen",),
            None,
            None,
        )
        assert (garden.date_unix, garden.checksum, garden.duration_seconds) == (200.0, "12", 20.0)
        assert tea.added_unix > 1.6e9
    with pytest.raises(DataError, match=r"does not hold the video 'te'.*did you mean 'tea'"):
        index.video("te")


def test_the_name_of_a_file_leads_to_its_id(tmp_path: Path) -> None:
    index = make_index(tmp_path)
    index.add(["films/summer/four.mkv", "fours"], np.ones((2, 2, 3)), [10.0, 20.0])
    for name in ("four", "four.mkv"):
        with pytest.raises(DataError, match=r"did you mean 'films/summer/four\.mkv'"):
            index.video(name)


def test_video_file_is_found_after_the_project_moved(tmp_path: Path) -> None:
    project = tmp_path / "project"
    file = project / "videos" / "home" / "tea.mp4"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"film")
    make_index(project)
    project.rename(tmp_path / "moved")
    moved = ClipIndex.open(tmp_path / "moved" / "index")
    assert moved.video("tea").media_path == str(tmp_path / "moved" / "videos" / "home" / "tea.mp4")
    assert moved.select(VideoFilter(folder=tmp_path / "moved" / "videos" / "home")) == ("tea",)


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (VideoFilter(), "tea garden bare"),
        (VideoFilter(video_ids=["bare", "tea"]), "tea bare"),
        (VideoFilter(folder="videos"), "tea garden"),
        (VideoFilter(folder="videos/home"), "tea"),
        (VideoFilter(folder="videos/home%"), ""),
        (VideoFilter(tag="kitchen"), "tea bare"),
        (VideoFilter(tag="kitch"), ""),
        (VideoFilter(after_unix=100.0), "tea garden"),
        (VideoFilter(before_unix=200.0), "tea"),
        (VideoFilter(min_duration_seconds=20.0), "garden bare"),
        (VideoFilter(max_duration_seconds=20.0), "tea garden"),
        (VideoFilter(tag="day", min_duration_seconds=15.0), "garden"),
        (VideoFilter(video_ids=["bare"], tag="day"), ""),
        (VideoFilter(video_ids=[]), ""),
    ],
)
def test_select_takes_what_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wanted: VideoFilter, expected: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert make_index(tmp_path).select(wanted) == tuple(expected.split())


def test_select_refuses_an_unknown_id(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not hold the video 'zzz'"):
        make_index(tmp_path).select(VideoFilter(video_ids=["tea", "zzz"]))


def test_removed_video_takes_its_tags_along(tmp_path: Path) -> None:
    index = make_index(tmp_path)
    index.remove(["tea"])
    assert index.select(VideoFilter(tag="kitchen")) == ("bare",)
    index.add(["tea"], np.ones((1, 2, 3)), [1.0])
    assert index.video("tea").tags == ()


def test_find_looks_at_ids_titles_and_tags_of_the_videos_of_its_state(tmp_path: Path) -> None:
    index = make_index(tmp_path)

    def found(words: str, index: ClipIndex = index) -> tuple[str, ...]:
        return index.find(lambda text: words in text)

    assert found("") == ("tea", "garden", "bare")
    assert (found("bar"), found("A gar"), found("kit"), found("day")) == (
        ("bare",),
        ("garden",),
        ("tea", "bare"),
        ("tea", "garden"),
    )
    assert found("mp4") == ()
    before = ClipIndex.open(index.path)
    index.remove(["tea"])
    index.add(["kitten"], np.ones((1, 2, 3)), [1.0])
    assert found("kit") == ("bare", "kitten")
    assert found("kit", before) == ("tea", "bare")
