"""From what a user names to video files and their ids."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dciml.errors import DataError
from dciml.features.video_files import find_videos


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in (
        "clips/b.mp4", "clips/a.MKV", "clips/deep/er/c.webm", "clips/notes.txt", "clips/.hidden.mp4",
        "clips/.trash/d.mp4", "other/b.mov", "other/[1].mp4", "other/recording",
    ):  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    return tmp_path


def names(found: dict[str, Path], folder: Path) -> dict[str, str]:
    return {video_id: path.relative_to(folder).as_posix() for video_id, path in found.items()}


def test_folders_are_searched_with_all_inside(folder: Path) -> None:
    assert names(find_videos([folder / "clips"]), folder) == {
        "a": "clips/a.MKV",
        "b": "clips/b.mp4",
        "c": "clips/deep/er/c.webm",
    }


def test_ids_by_path_keep_the_folders_name(folder: Path) -> None:
    found = find_videos([folder / "clips", folder / "other/b.mov"], "path")
    assert list(found) == ["clips/a.MKV", "clips/b.mp4", "clips/deep/er/c.webm", "other/b.mov"]


@pytest.mark.parametrize("ids", ["stem", "path"])
def test_globs_give_what_their_folder_gives(folder: Path, ids: str) -> None:
    assert find_videos([f"{folder}/clips/**"], ids) == find_videos([folder / "clips"], ids)  # type: ignore[arg-type]
    assert list(find_videos([f"{folder}/*/b.*", f"{folder}/clips/deep"], "path")) == [
        f"{folder.name}/clips/b.mp4",
        f"{folder.name}/other/b.mov",
        "deep/er/c.webm",
    ]


def test_a_named_file_may_have_any_name_and_counts_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder / "other")
    found = find_videos(["recording", "./recording", "[1].mp4", folder / "other/recording"])
    assert names(found, folder) == {"recording": "other/recording", "[1]": "other/[1].mp4"}


def test_two_files_with_one_id_are_refused_with_the_mend(folder: Path) -> None:
    with pytest.raises(
        DataError, match=r"other/b\.mov: this file and .*clips/b\.mp4 would both have the id 'b'.*--ids path"
    ):
        find_videos([folder])
    assert f"{folder.name}/other/b.mov" in find_videos([folder], "path")


@pytest.mark.parametrize(
    ("path", "message"), [("nowhere", "no such file"), ("*.mp4", "no video"), (".", "no video")]
)
def test_what_leads_nowhere_is_refused(tmp_path: Path, path: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        find_videos([tmp_path / path])


def test_links_in_circles_end(folder: Path) -> None:
    (folder / "clips/deep/round").symlink_to(folder / "clips")
    (folder / "clips/away").symlink_to(folder / "other/b.mov")
    assert list(find_videos([folder / "clips"])) == ["a", "b", "c"]


def test_a_name_that_is_not_text_is_refused(tmp_path: Path) -> None:
    (Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.mp4"))).write_bytes(b"x")
    with pytest.raises(DataError, match="is not UTF-8"):
        find_videos([tmp_path])
