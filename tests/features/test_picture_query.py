"""A picture as a query: found by an image–text model, by the command and over HTTP; clear errors elsewhere."""

from __future__ import annotations

import io
import json
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image
from typer.testing import CliRunner

from dciml.cli.app import app
from dciml.errors import DataError
from dciml.features import FeatureStore
from dciml.index import ClipIndex
from dciml.media import frame_at, write_video
from dciml.model_folder import load_model
from dciml.recipes.home import TEXT_BESIDE, WITHOUT_MODEL, Home, look, open_home, update
from dciml.recipes.index import add_videos
from dciml.recipes.pictures import read_picture
from dciml.service.app import create_app
from dciml.service.settings import ServiceSettings


def filled(path: Path, films: Path, encoders: tuple[str, ...]) -> Home:
    """A home with all videos of a folder in its index."""
    home = open_home(path, [films], encoders)
    index, model = ClipIndex.open(home.index), load_model(home.model)
    videos, _ = look(home)
    failures: list[Any] = []
    update(
        home,
        videos,
        lambda ids: add_videos(index, model, home.store, only=ids),
        lambda _: None,
        failures.append,
    )
    assert not failures
    return home


@pytest.fixture
def films(tmp_path: Path) -> Path:
    """Two films of two scenes each, all four of other patterns; of a minute ago."""
    import os

    folder = tmp_path / "films"
    folder.mkdir()
    draw = np.random.default_rng(0)
    for number in range(2):
        scenes = draw.integers(0, 256, (2, 4, 6, 3), dtype=np.uint8).repeat(8, axis=1).repeat(8, axis=2)
        write_video(folder / f"{number}.mp4", [scenes[step // 16] for step in range(32)], 4)
        (folder / f"{number}.srt").write_text("1\n00:00:00,000 --> 00:00:02,000\nwe cut onions\n")
    for file in folder.iterdir():
        os.utime(file, (1e9, 1e9))
    return folder


def test_a_picture_finds_its_moment(films: Path, tmp_path: Path, tiny_model: Callable[[str], Path]) -> None:
    home = filled(tmp_path / "home", films, (f"image:{tiny_model('clip')}", TEXT_BESIDE))
    Image.fromarray(frame_at(films / "1.mp4", 6.0)).save(tmp_path / "asked.png")
    command = ["search", str(home.index), "--image", str(tmp_path / "asked.png"), "--json"]
    found = json.loads(CliRunner().invoke(app, command).stdout)
    best = found["hits"][0]
    assert (found["image"], best["video_id"]) == (str(tmp_path / "asked.png"), "films/1.mp4")
    assert best["start_seconds"] == pytest.approx(4, abs=1)
    assert best["end_seconds"] == pytest.approx(8, abs=1)
    only = json.loads(CliRunner().invoke(app, [*command, "--video", "films/0.mp4"]).stdout)
    assert {hit["video_id"] for hit in only["hits"]} == {"films/0.mp4"}

    settings = ServiceSettings(home.index, cache=tmp_path / "cache")
    with TestClient(create_app(settings), base_url="http://127.0.0.1") as client:
        picture = b64encode((tmp_path / "asked.png").read_bytes()).decode()
        answer = client.post("/api/picture", json={"picture": picture, "k": 3})
        assert answer.json()["hits"][0]["video_id"] == "films/1.mp4"
        assert answer.json()["hits"][0]["start_seconds"] == best["start_seconds"]
        within = client.post("/api/picture", json={"picture": picture, "video_ids": ["films/0.mp4"]})
        assert {hit["video_id"] for hit in within.json()["hits"]} == {"films/0.mp4"}
        refused = client.post("/api/picture", json={"picture": b64encode(b"no picture").decode()})
        assert (refused.status_code, refused.json()["detail"]) == (
            422, "This is no picture that can be read. To mend it: name a picture, such as a JPEG or PNG file."
        )  # fmt: skip


def test_an_index_without_an_image_text_model_says_why(films: Path, tmp_path: Path) -> None:
    home = filled(tmp_path / "home", films, WITHOUT_MODEL)
    Image.new("RGB", (8, 8)).save(tmp_path / "asked.png")
    command = ["search", str(home.index), "--image", str(tmp_path / "asked.png")]
    result = CliRunner().invoke(app, command)
    assert isinstance(result.exception, DataError)
    assert "builtin-visual-1" in str(result.exception)
    assert "not of an image–text model" in str(result.exception)
    assert len(FeatureStore.open(home.store)) == 2
    both = CliRunner().invoke(app, [*command, "a sentence too"])
    assert both.exit_code == 2


def test_pictures_are_read_as_they_are_shown(tmp_path: Path) -> None:
    turned = Image.new("RGB", (4, 2), "red")
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    turned.save(tmp_path / "turned.jpg", exif=exif)
    assert read_picture(tmp_path / "turned.jpg").shape == (4, 2, 3)
    Image.new("RGBA", (2, 2), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    assert read_picture(tmp_path / "clear.png").min() == 255
    for broken in (b"", b"GIF89a", (tmp_path / "turned.jpg").read_bytes()[:60]):
        with pytest.raises(DataError, match="no picture that can be read"):
            read_picture(broken)
    with pytest.raises(DataError, match="there is no such file"):
        read_picture(tmp_path / "nowhere.png")
    large = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(large, "PNG")
    with pytest.raises(DataError, match=r"no picture that can be read|20000 × 20000 pixels"):
        read_picture(large.getvalue())
