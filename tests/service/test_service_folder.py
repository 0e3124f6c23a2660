"""A folder of videos is served while it is read: what comes, changes and goes is followed."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from dciml.errors import DataError
from dciml.homes import is_home
from dciml.index import ClipIndex
from dciml.media import write_video
from dciml.recipes.home import (
    WITHOUT_MODEL,
    Home,
    look,
    not_entered,
    open_home,
    place_of_home,
    read_home,
    refuse_without_videos,
    update,
)
from dciml.service.app import create_app
from dciml.service.server import listen, make_server
from dciml.service.settings import ServiceSettings

LOCAL = "http://127.0.0.1"
SECONDS = 60.0


def film(path: Path, said: str = "", level: int = 0) -> Path:
    """A video of six seconds, with a caption from the second to the fourth; written a minute ago."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_video(path, [np.full((32, 48, 3), (level + 9 * k) % 250, dtype=np.uint8) for k in range(24)], 4)
    files = [path]
    if said:
        files.append(path.with_suffix(".srt"))
        files[1].write_text(f"1\n00:00:02,000 --> 00:00:04,000\n{said}\n")
    for file in files:
        os.utime(file, (time.time() - 60, time.time() - 60))
    return path


@pytest.fixture
def films(tmp_path: Path) -> Path:
    folder = tmp_path / "films"
    film(folder / "a.mp4", "we cut onions")
    film(folder / "deep" / "a.mp4", "the fox sleeps", 40)
    (folder / "broken.mp4").write_bytes(b"junk")
    os.utime(folder / "broken.mp4", (1e9, 1e9))
    return folder


@contextmanager
def served(home: Home) -> Iterator[TestClient]:
    app = create_app(ServiceSettings(home.index, home=home, poll_seconds=0.2, cache=home.path / "cache"))
    with TestClient(app, base_url=LOCAL) as client:
        yield client


def settled(client: TestClient, wanted: Callable[[dict[str, Any]], bool] = lambda _: True) -> dict[str, Any]:
    """What the folder says once nothing is being read and it says what is wanted."""
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        state: dict[str, Any] = client.get("/api/folder").json()
        if not state["working"] and wanted(state):
            return state
        time.sleep(0.05)
    raise AssertionError(state)


def found(client: TestClient, sentence: str) -> list[str]:
    answer = client.post("/api/search", json={"sentence": sentence, "k": 5}).json()
    return list(dict.fromkeys(hit["video_id"] for hit in answer["hits"]))


def ids(client: TestClient) -> set[str]:
    return {video["video_id"] for video in client.get("/api/videos").json()["videos"]}


def test_a_folder_is_read_followed_and_taken_up_again(films: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dciml.service.folder.LOOK_SECONDS", 0.2)
    home = open_home(place_of_home([films]), [films], WITHOUT_MODEL)
    assert home.path == films.with_name("films.dciml")
    with served(home) as client:
        assert client.get("/healthz").json()["videos"] == 0  # it is served before anything is read
        state = settled(client, lambda now: now["videos"] == 3)
        assert (state["folders"], state["done"]) == (["films"], 2)
        assert [failure["video_id"] for failure in state["failures"]] == ["films/broken.mp4"]
        assert "subtitles beside the videos" in state["notes"][0]
        assert "--" not in state["notes"][0]  # the page is no terminal
        assert found(client, "cutting an onion")[0] == "films/a.mp4"
        assert found(client, "a fox")[0] == "films/deep/a.mp4"
        assert client.get("/media/films%2Fa.mp4").status_code == 200

        film(films / "new.mp4", "a red kite flies", 80)
        (films / "deep" / "a.mp4").unlink()
        film(films / "a.mp4", "we bake bread")
        film(films / "silent.mp4")
        settled(client, lambda _: ids(client) == {"films/a.mp4", "films/new.mp4", "films/silent.mp4"})
        settled(client, lambda _: found(client, "bread")[0] == "films/a.mp4")
        assert found(client, "kites")[0] == "films/new.mp4"
        assert "films/silent.mp4" not in found(client, "kites")  # nothing in it speaks for any sentence

    film(films / "while away.mp4", "rain falls")
    again = open_home(home.path, [], ())
    assert again.folders == (films,)
    with served(again) as client:
        assert client.get("/healthz").json()["videos"] == 3  # of before, at once
        settled(client, lambda _: found(client, "rain")[0] == "films/while away.mp4")


def test_a_disk_that_is_not_there_takes_nothing_out(films: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dciml.service.folder.LOOK_SECONDS", 0.2)
    home = open_home(films.with_name("home"), [films], WITHOUT_MODEL)
    with served(home) as client:
        settled(client, lambda now: now["done"] == 2)
        films.rename(films.with_name("elsewhere"))
        settled(client, lambda now: now["videos"] == 0)
        assert len(ids(client)) == 2
        films.with_name("elsewhere").rename(films)
        settled(client, lambda now: now["videos"] == 3)
        assert len(ids(client)) == 2


def test_what_a_killed_server_read_is_entered_by_the_next(films: Path) -> None:
    home = open_home(films.with_name("home"), [films], WITHOUT_MODEL)
    videos, _ = look(home)
    update(home, videos, enter=lambda _: None, on_work=lambda _: None, on_failure=lambda _: None)
    assert set(not_entered(home, videos, ClipIndex.open(home.index))) == {"films/a.mp4", "films/deep/a.mp4"}
    with served(home) as client:
        settled(client, lambda _: ids(client) == {"films/a.mp4", "films/deep/a.mp4"})


def text_failures(state: dict[str, Any]) -> dict[str, str]:
    return {failure["video_id"]: failure["reason"] for failure in state["text_failures"]}


def test_a_video_is_searched_without_text_beside_it_that_cannot_be_read(
    films: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("dciml.service.folder.LOOK_SECONDS", 0.2)
    (films / "a.srt").write_text("1\n00:00:02,000 --> soon\nwe cut onions\n")
    for language in ("fr", "de"):  # which of the two is meant cannot be told
        (films / "deep" / f"a.{language}.srt").write_text("1\n00:00:02,000 --> 00:00:04,000\nein Fuchs\n")
        os.utime(films / "deep" / f"a.{language}.srt", (1e9, 1e9))
    (films / "deep" / "a.srt").unlink()
    os.utime(films / "a.srt", (1e9, 1e9))
    home = open_home(films.with_name("home"), [films], WITHOUT_MODEL)
    with served(home) as client:
        state = settled(client, lambda now: now["videos"] == 3)
        assert [failure["video_id"] for failure in state["failures"]] == ["films/broken.mp4"]
        reasons = text_failures(state)
        assert reasons["films/a.mp4"].startswith("a.srt, line 2: this is not a timing line: '00:00:02")
        assert reasons["films/deep/a.mp4"].startswith("there are captions in several languages (de, fr)")
        assert "films/a.mp4 is searched without the text beside it: " in caplog.text
        assert ids(client) == {"films/a.mp4", "films/deep/a.mp4"}
        moment = {"video_id": "films/a.mp4", "start_seconds": 1, "end_seconds": 3}
        similar = client.post("/api/similar", json=moment).json()
        assert "films/deep/a.mp4" in {hit["video_id"] for hit in similar["hits"]}
    with served(home) as client:  # what the store holds already is still said
        settled(client, lambda now: len(now["text_failures"]) == 2)
        film(films / "a.mp4", "we cut onions")
        state = settled(client, lambda now: len(now["text_failures"]) == 1)
        assert list(text_failures(state)) == ["films/deep/a.mp4"]
        settled(client, lambda _: found(client, "cutting an onion")[:1] == ["films/a.mp4"])


def test_a_file_that_is_no_video_is_refused_before_anything_is_made(films: Path) -> None:
    notes, named = films / "notes.txt", films / "recording"
    notes.write_text("what to film next")
    (films / "a.mp4").rename(named)
    with pytest.raises(DataError, match=r"notes\.txt: this video cannot be read"):
        refuse_without_videos([films / "deep", notes])
    refuse_without_videos([named])


def test_files_that_are_still_written_to_wait(films: Path) -> None:
    home = open_home(films.with_name("home"), [films], WITHOUT_MODEL)
    before = look(home)
    (films / "a.mp4").touch()
    now = look(home)
    assert "films/a.mp4" not in now[0]
    assert now[1] != before[1]


def test_a_server_of_a_folder_does_not_greet_with_how_little_is_read_yet(
    films: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = open_home(films.with_name("home"), [films], WITHOUT_MODEL)
    with listen("127.0.0.1", 0) as listener:
        server = make_server(ServiceSettings(home.index, home=home), listener.getsockname()[1])
        threading.Timer(1.0, setattr, (server, "should_exit", True)).start()
        server.run(sockets=[listener])
    said = capsys.readouterr().out
    assert f"{films}: searchable one by one as they are read, at http://127.0.0.1:" in said
    assert " 0 videos" not in said


def test_a_server_that_watches_nothing_says_so(films: Path) -> None:
    home = open_home(films.with_name("home"), [films], WITHOUT_MODEL)
    with TestClient(create_app(ServiceSettings(home.index)), base_url=LOCAL) as client:
        assert client.get("/api/folder").json()["folders"] == []


def test_a_home_from_elsewhere_opens_no_other_folders(films: Path, tmp_path: Path) -> None:
    home = open_home(tmp_path / "deep" / "home", [films], WITHOUT_MODEL)
    with pytest.raises(DataError, match=r"also reads .*films, which does not lie beside it.* --home "):
        open_home(home.path, [], ())
    assert open_home(home.path, [films], ()).folders == (films,)


def test_homes_are_told_from_other_folders(films: Path, tmp_path: Path) -> None:
    home = open_home(tmp_path / "home", [films], WITHOUT_MODEL)
    assert is_home(home.path)
    with pytest.raises(DataError, match=r"made with other encoders .*--encoder builtin"):
        open_home(home.path, [films], ("text:words:16",))
    with pytest.raises(DataError, match=r"it holds other things, such as 'a\.mp4'"):
        open_home(films, [films], WITHOUT_MODEL)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="there is no video here"):
        open_home(tmp_path / "other", [tmp_path / "empty"], WITHOUT_MODEL)
    assert not (tmp_path / "other").exists()
    both = open_home(home.path, [film(tmp_path / "single.mp4")], ())
    assert set(both.find()) > {f"{tmp_path.name}/single.mp4", "films/a.mp4"}
    (home.path / "home.json").write_text(json.dumps({"format": "dciml home", "format_version": 2}))
    with pytest.raises(DataError, match="does not describe a home of this version"):
        read_home(home.path)
