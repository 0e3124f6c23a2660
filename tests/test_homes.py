"""A home, or its videos, where an index is read: which index is taken, and what is said where none can be."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import dciml
from dciml.cli.app import app
from dciml.cli.mcp import started_for
from dciml.errors import DataError
from dciml.features import extract_videos
from dciml.homes import home_meant, index_in_use, refuse_home
from dciml.index import ClipIndex, verify_index
from dciml.media import write_video
from dciml.model_folder import load_model
from dciml.recipes.doctor import check_folders
from dciml.recipes.home import WITHOUT_MODEL, Home, open_home
from dciml.recipes.index import add_videos

MOVED = {"--device": None, "--model": None, "--features": None, "--store": None}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A home of six videos with subtitles, each six seconds long."""
    films = tmp_path_factory.mktemp("made") / "films"
    films.mkdir()
    for number, thing in enumerate(("red kite", "dog", "cat", "boat", "tree", "red ball")):
        pictures = [np.full((32, 48, 3), (40 * number + 9 * k) % 250, dtype=np.uint8) for k in range(24)]
        write_video(films / f"{number}.mp4", pictures, 4)
        (films / f"{number}.srt").write_text(f"1\n00:00:02,000 --> 00:00:04,000\na {thing}\n")
    home = open_home(films.with_name("films.dciml"), [films], WITHOUT_MODEL)
    extract_videos(home.find(), home.encoder, home.store, workers=1)
    add_videos(ClipIndex.open(home.index), load_model(home.model), home.store)
    return home


@pytest.fixture
def home(made: Home, tmp_path: Path) -> Home:
    """A home of its own for each test, beside its videos."""
    shutil.copytree(made.path.parent, tmp_path / "copy")
    return Home(tmp_path / "copy" / "films.dciml", made.folders, made.encoders)


def give_taught(home: Home, num_videos: int = 4) -> Path:
    """A taught model of a home in use: the untrained one, over fewer videos, so that the two can be told apart."""
    folder = home.path / "taught-2"
    shutil.copytree(home.model, folder / "model")
    shutil.copytree(home.index, folder / "index")
    index = ClipIndex.open(folder / "index")
    index.remove(index.video_ids[num_videos:])
    (home.path / "taught.json").write_text(json.dumps({"in_use": folder.name}))
    return folder


def command(*arguments: object) -> Any:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def ids(searcher_of: Path) -> set[str]:
    return set(dciml.open_index(searcher_of).index.video_ids)


def test_the_index_in_use_is_taken(home: Home) -> None:
    assert index_in_use(home.path) == home.index
    assert len(ids(home.path)) == 6
    taught = give_taught(home)
    assert index_in_use(home.path) == taught / "index" == home.present_index
    assert len(ids(home.path)) == 4
    (home.path / "taught.json").unlink()
    assert len(ids(home.path)) == 6


def test_an_index_is_taken_as_it_is(home: Home, tmp_path: Path) -> None:
    give_taught(home)
    assert index_in_use(home.index) == home.index
    assert index_in_use(tmp_path / "nowhere") == tmp_path / "nowhere"
    assert home_meant(home.store) is None  # a folder of this program is no folder of videos


def test_a_folder_of_videos_stands_for_its_home(
    home: Home, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    films = home.path.with_name("films")
    with caplog.at_level(logging.WARNING, "dciml"):
        assert index_in_use(films) == home.index
    assert caplog.messages == [f"{films} is no index; its home, {home.path}, is taken"]
    monkeypatch.chdir(films)
    assert home_meant(Path()) == home.path
    shutil.rmtree(home.path)
    with pytest.raises(DataError, match=r"this folder is not an index.*or a home"):
        dciml.open_index(films)


def test_commands_that_read_take_a_home(home: Home, tmp_path: Path) -> None:
    give_taught(home)
    for place in (home.path, home.path.with_name("films")):
        hits = json.loads(command("search", place, "red", "--json", "-k", 9).stdout)["hits"]
        found = [hit["video_id"] for hit in hits]
        assert found[0] == "films/0.mp4"
        assert "films/5.mp4" not in found  # the red ball is not in the taught index
        alike = json.loads(command("similar", place, "films/0.mp4", 2, 4, "--json").stdout)
        assert alike["hits"]
        checked = json.loads(command("index-verify", place, "--json").stdout)
        assert (checked["index"], checked["videos"]) == (str(home.path / "taught-2" / "index"), 4)
        exported = command("export", place, "red", "--format", "json", "--out", "-").stdout
        assert json.loads(exported)["hits"]
        cut = command("cut", place, "red", "-k", 1, "--json", "--out", tmp_path / f"cut-{place.name}")
        assert len(json.loads(cut.stdout)["clips"]) == 1
        assert json.loads(command("inspect", place, "--json").stdout)["index"]["videos"] == 4
        command("index-backup", place, tmp_path / f"copy-{place.name}")
        assert len(ClipIndex.open(tmp_path / f"copy-{place.name}")) == 4


def test_a_client_is_told_of_the_home_itself(home: Home) -> None:
    """So that what is taught later answers, too."""
    for place in (home.path, home.path.with_name("films")):
        assert started_for(place, dict(MOVED))["args"][-1] == str(home.path)


def test_a_program_asks_a_home_and_follows_what_is_taught(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mcp")
    import dciml.service
    from dciml.service import ServiceSettings
    from dciml.service.mcp_server import create_tool_server

    given: list[ServiceSettings] = []
    monkeypatch.setattr(dciml.service, "run_mcp_stdio", given.append)
    command("mcp", home.path)
    server = create_tool_server(given[0], tells_paths=True)
    assert server.num_videos == 6
    give_taught(home)
    assert server._tools.list_videos().total == 4
    (home.path / "home.json").write_text("{")
    with pytest.raises(DataError, match=r"home\.json"):
        command("mcp", home.path)


def test_the_doctor_reads_a_home_and_what_it_was_taught(home: Home) -> None:
    taught = give_taught(home)
    found = {check.folder: check for check in check_folders([home.path.with_name("films")])}
    assert {check.state for check in found.values()} == {"ok"}
    assert {
        str(home.path),
        str(home.store),
        str(home.index),
        str(taught / "index"),
        str(taught / "model"),
    } <= {*found}
    assert found[str(home.path)].found == f"{home.path}: taught-2/index is in use"
    vectors = next((taught / "index").glob("*.vectors"))
    content = bytearray(vectors.read_bytes())
    content[len(content) // 2] ^= 255
    vectors.write_bytes(content)
    assert verify_index(taught / "index")
    states = {check.folder: check.state for check in check_folders([home.path])}
    assert states[str(taught / "index")] == "fail"
    assert states[str(home.index)] == "ok"


@pytest.mark.parametrize("content", ["{", "[]", '{"in_use": "../model"}', '{"in_use": "taught-7"}'])
def test_a_pointer_that_leads_nowhere_is_told(
    home: Home, content: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The untrained model answers, as in the page, but not in silence."""
    (home.path / "taught.json").write_text(content)
    assert index_in_use(home.path) == home.index == home.present_index
    assert len(caplog.messages) == 1
    assert "taught.json" in caplog.messages[0]
    assert "the untrained" in caplog.messages[0]
    states = {check.folder: check for check in check_folders([home.path])}
    assert states[str(home.path)].state == "fail"
    command("teach", home.path, "--undo")
    assert not (home.path / "taught.json").exists()


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        '{"format": "dciml home", "format_version": 2, "folders": ["f"], "encoders": ["builtin"]}',
    ],
)
def test_a_damaged_home_is_told(home: Home, content: str) -> None:
    (home.path / "home.json").write_text(content)
    for call in (lambda: command("search", home.path, "red"), lambda: command("index-verify", home.path)):
        with pytest.raises(DataError, match=r"home\.json.*To mend it"):
            call()
    states = {check.folder: check.state for check in check_folders([home.path])}
    assert states[str(home.path)] == "fail"


def test_a_home_without_an_index_says_how_to_get_one(home: Home) -> None:
    shutil.rmtree(home.index)
    with pytest.raises(DataError, match=r"the home has no index yet. To mend it: call `dciml serve .*` once"):
        dciml.open_index(home.path)


def test_a_home_of_no_videos_yet_says_so(tmp_path: Path, made: Home) -> None:
    home = open_home(tmp_path / "films.dciml", made.folders, WITHOUT_MODEL)
    with pytest.raises(DataError, match=r"no video yet that was read. To mend it: call `dciml serve"):
        command("search", home.path, "red")
    assert json.loads(command("index-verify", home.path, "--json").stdout)["videos"] == 0


@pytest.mark.parametrize(
    ("words", "how"),
    [
        (("index-add", "HOME", "STORE"), "put the video file into"),
        (("index-remove", "HOME", "films/0.mp4"), "take the video file out of"),
        (("index-compact", "HOME"), "name the index itself, such as"),
    ],
)
def test_commands_that_change_an_index_refuse_a_home(home: Home, words: tuple[str, ...], how: str) -> None:
    for place in (home.path, home.path.with_name("films")):
        given = [{"HOME": place, "STORE": home.store}.get(word, word) for word in words]
        with pytest.raises(DataError, match=f"home of a folder of videos.*{how}") as caught:
            command(*given)
        assert caught.value.where == home.path
    assert len(ClipIndex.open(home.index)) == 6
    refuse_home(home.index, "as ever")  # the index itself may be changed


def test_a_home_can_be_moved_with_its_videos(home: Home, tmp_path: Path) -> None:
    shutil.move(home.path.parent, tmp_path / "elsewhere")
    searcher = dciml.open_index(tmp_path / "elsewhere" / "films")
    assert searcher.index.model_folder() == tmp_path / "elsewhere" / "films.dciml" / "model"
    assert load_model(searcher.index.model_folder()).engine.fingerprint == searcher.index.fingerprint
