"""`dciml serve FOLDER` as a user types it: with an image–text model, without one, and with wrong things."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from dciml.cli.app import app
from dciml.errors import ConfigError, DataError
from dciml.media import write_video
from dciml.recipes import home as recipe


@pytest.fixture
def films(tmp_path: Path) -> Path:
    (tmp_path / "films").mkdir()
    for number in range(2):
        pictures = [np.full((32, 48, 3), 60 + 90 * number, dtype=np.uint8)] * 12
        write_video(tmp_path / "films" / f"{number}.mp4", pictures, 4)
    (tmp_path / "films" / "1.srt").write_text("1\n00:00:00,000 --> 00:00:02,000\nwe cut onions\n")
    return tmp_path / "films"


def serve(*arguments: object) -> Any:
    result = CliRunner().invoke(app, ["serve", *(str(argument) for argument in arguments)])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def ask(address: str, path: str, body: dict[str, Any] | None = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(address + path, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=20) as answer:
        return json.loads(answer.read())


def test_one_command_leads_from_a_folder_to_an_answer(films: Path, tiny_model: Callable[[str], Path]) -> None:
    model = f"image:{tiny_model('clip')}"
    command = [sys.executable, "-m", "dciml", "serve", str(films), "--encoder", model, "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == f"{films}.dciml keeps features and index of {films}.\n"
            greeting = process.stdout.readline()
            address = re.search(r"http://\S+?/", greeting)[0]  # type: ignore[index]
            end = time.monotonic() + 120
            while ask(address, "api/folder")["done"] < 2 or ask(address, "api/folder")["working"]:
                assert time.monotonic() < end
                time.sleep(0.2)
            answer = ask(address, "api/search", {"sentence": "cutting onions", "k": 20})
            assert answer["hits"][0]["video_id"] == "films/1.mp4"  # of pictures alike, the one with the words
            assert {hit["video_id"] for hit in answer["hits"]} == {"films/0.mp4", "films/1.mp4"}
        finally:
            process.send_signal(signal.SIGTERM)
    assert process.returncode in (0, -signal.SIGTERM)


def test_without_a_model_and_nobody_to_ask_it_says_what_to_do(
    films: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recipe, "is_fetched", lambda _: False)
    with pytest.raises(
        ConfigError, match=r"1\.5 GB\) is not here\. To mend it: call again with --yes .*builtin"
    ):
        serve(films)
    assert not films.with_name("films.dciml").exists()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(DataError, match="cannot be fetched"):
        serve(films, "--yes")
    assert not films.with_name("films.dciml").exists()


def test_wrong_folders_are_told_before_anything_is_made(films: Path, tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("no video")
    with pytest.raises(DataError, match="there is no video here"):
        serve(tmp_path / "texts", "--encoder", "builtin")
    with pytest.raises(DataError, match="there is no such file or folder"):
        serve(films, tmp_path / "nowhere", "--encoder", "builtin")
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "manifest.json").write_text("{}")
    with pytest.raises(DataError, match="this is a feature store, not a folder of videos"):
        serve(tmp_path / "store", "--encoder", "builtin")
    with pytest.raises(ConfigError, match=r"unknown video encoder 'bultin'.* did you mean builtin"):
        serve(films, "--encoder", "bultin")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["films", "store", "texts"]
