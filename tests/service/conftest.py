"""A small served folder: real videos, features, a model trained for one epoch, an index; and clients for it."""

from __future__ import annotations

import shutil
import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import replace
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
from fastapi.testclient import TestClient

from dciml.config import parse_config
from dciml.datasets.folder import write_data_folder
from dciml.features.encoders.visual import BuiltinVisualEncoder
from dciml.features.extract import extract_videos
from dciml.index.tables import seal_facts, seal_videos
from dciml.media import write_video
from dciml.model_folder import load_model
from dciml.recipes.index import build_index
from dciml.recipes.train import train
from dciml.service.app import create_app
from dciml.service.server import listen, make_server
from dciml.service.settings import ServiceSettings
from dciml.types import Query, Video

COLOURS = {"red": (200, 30, 30), "green": (30, 190, 30), "blue": (30, 30, 210), "grey": (128, 128, 128)}
IDS = {
    "kitchen/monday": ("red", "green"),
    'a "b" <b>&ü': ("green", "blue"),
    "plain": ("blue", "red"),
    "grey": ("grey", "green"),
    "second": ("red", "blue"),
    "third": ("green", "grey"),
}
SECONDS = 6.0


def write_colours(path: Path, colours: tuple[str, ...], seconds: float = SECONDS) -> None:
    """A video of 64x48 that shows one colour after another, with a moving bar."""
    frames = []
    number = round(seconds * 8)
    for index in range(number):
        frame = np.empty((48, 64, 3), dtype=np.uint8)
        frame[:] = COLOURS[colours[index * len(colours) // number]]
        frame[:, index % 60 : index % 60 + 4] = 255
        frames.append(frame)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_video(path, frames, 8.0)


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with videos/, data/, model/ and index/; only to be read."""
    folder = tmp_path_factory.mktemp("served")
    paths = {video_id: folder / "videos" / f"v{number}.mp4" for number, video_id in enumerate(IDS)}
    for video_id, colours in IDS.items():
        write_colours(paths[video_id], colours)
    queries, half = [], SECONDS / 2
    for video_id, colours in IDS.items():
        for place, colour in enumerate(colours):
            moment = (place * half, (place + 1) * half)
            queries.append(Query(f"{video_id}-{place}", video_id, f"the picture is {colour}", (moment,)))
    write_data_folder(
        folder / "data",
        "colours",
        {"train": queries},
        [Video(video_id, SECONDS, "train") for video_id in IDS],
        lambda store: extract_videos(paths, BuiltinVisualEncoder(), store, workers=1),
    )
    model = train(parse_config(_settings(folder / "data"), "test"), folder / "model", resume=False)
    build_index(load_model(model), folder / "data", folder / "index")
    return folder


def _settings(data: Path) -> dict[str, Any]:
    return {
        "name": "tiny",
        "data": {"folder": str(data)},
        "text": {"encoder": "words:16", "max_words": 8},
        "retrieval": {"hidden": 16, "heads": 2, "num_clips": 8, "max_frames": 16, "gaussian_widths": [None, 1.0],
                      "num_blocks": 1},
        "grounding": {"hidden": 16, "heads": 2, "layers": 1, "num_proposals": 3, "num_positions": 8},
        "training": {"epochs": 1, "batch_videos": 4, "threads": 1, "accelerator": "cpu"},
    }  # fmt: skip


@contextmanager
def editing(index: Path) -> Iterator[sqlite3.Connection]:
    """Change a catalogue by hand, as whoever gives an index away might: its checksums fit in the end."""
    with closing(sqlite3.connect(index / "catalogue.sqlite")) as connection, connection:
        yield connection
        seal_videos(connection)
        seal_facts(connection)


@pytest.fixture(scope="session")
def edited() -> Callable[[Path], AbstractContextManager[sqlite3.Connection]]:
    """Changes the catalogue of an index folder by hand."""
    return editing


def settings_for(folder: Path, **changes: Any) -> ServiceSettings:
    """Settings that serve a folder like `served`, with the thumbnails inside it."""
    return replace(ServiceSettings(folder / "index", cache=folder / "cache", poll_seconds=0), **changes)


@pytest.fixture(scope="session")
def client(served: Path) -> Iterator[TestClient]:
    """A client of an app over the shared folder; for tests that change nothing."""
    with TestClient(create_app(settings_for(served, read_only=True)), base_url="http://localhost") as client:
        yield client


@pytest.fixture(scope="session")
def changing_client(served: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """A client of an app that would take changes; for tests whose changes are refused."""
    folder = tmp_path_factory.mktemp("changing") / "own"
    copy_of(served, folder)
    with TestClient(create_app(settings_for(folder)), base_url="http://localhost") as client:
        yield client


@pytest.fixture
def own(served: Path, tmp_path: Path) -> Path:
    """A copy of the served folder that a test may change."""
    return copy_of(served, tmp_path / "own")


def copy_of(served: Path, folder: Path) -> Path:
    """Copy a served folder; nothing in the copy refers to the first one."""
    shutil.copytree(served, folder)
    with editing(folder / "index") as connection:
        change = "UPDATE {0} SET {1} = replace({1}, ?, ?)"
        for table, column in (("videos", "media_absolute"), ("stores", "absolute")):
            connection.execute(change.format(table, column), (str(served), str(folder)))
    return folder


@pytest.fixture
def client_of() -> Iterator[Callable[..., TestClient]]:
    """Makes clients for folders and settings; ended after the test."""
    opened: list[TestClient] = []

    def make(folder: Path, **changes: Any) -> TestClient:
        client = TestClient(
            create_app(settings_for(folder, **changes)),
            base_url="http://localhost",
            raise_server_exceptions=False,
        )
        client.__enter__()
        opened.append(client)
        return client

    yield make
    for client in opened:
        client.__exit__(None, None, None)


@pytest.fixture(scope="session")
def quoted() -> Callable[[str], str]:
    """An id as it stands in an address."""
    return lambda video_id: quote(video_id, safe="")


def ask(port: int, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> tuple[int, bytes]:
    with closing(HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        return response.status, response.read()


class Running:
    """A server in a thread."""

    def __init__(self, settings: ServiceSettings) -> None:
        self.listener = listen("127.0.0.1", 0)
        self.port = self.listener.getsockname()[1]
        self.server = make_server(settings, self.port)
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [self.listener]})
        self.thread.start()
        while not self.server.started:
            time.sleep(0.01)

    def ask(self, method: str, path: str, body: str | None = None) -> tuple[int, bytes]:
        headers = {"Content-Type": "application/json"}
        return ask(self.port, method, path, None if body is None else body.encode(), headers)

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=30)

    def stop(self) -> None:
        self.server.should_exit = True
        self.thread.join(30)
        self.listener.close()
        assert not self.thread.is_alive()


@pytest.fixture
def running(served: Path) -> Iterator[Callable[..., Running]]:
    """Starts servers; ended after the test."""
    started: list[Running] = []

    def start(folder: Path = served, **changes: Any) -> Running:
        changes = {"cache": folder / "cache", "poll_seconds": 0} | changes
        started.append(Running(ServiceSettings(folder / "index", **changes)))
        return started[-1]

    yield start
    for server in started:
        server.stop()


@pytest.fixture(scope="session")
def ask_of() -> Callable[..., tuple[int, bytes]]:
    """One request over HTTP: port, method, path, body, headers → status and content."""
    return ask
