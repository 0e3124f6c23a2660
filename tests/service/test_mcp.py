"""`dciml mcp` with a real client of the protocol: over standard input and output, and over HTTP on a free port."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from mcp import Client, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client
from mcp.server.mcpserver.exceptions import UnexpectedToolError
from mcp_types import CallToolResult, TextContent
from typer.testing import CliRunner

from dciml.cli.app import app
from dciml.cli.serve import check_installed
from dciml.errors import ConfigError, DataError, ModelError
from dciml.service.mcp_server import make_mcp_server, run_mcp_http, sentence_of_call
from dciml.service.server import listen
from dciml.service.settings import ServiceSettings

SENTENCE = "the picture is red"
HIT_FIELDS = ("rank", "video_id", "start_seconds", "end_seconds", "score", "confidence")
ENVIRONMENT = {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def talk(server: Any, ask: Callable[[Client], Awaitable[None]], **options: Any) -> None:
    """Connect a client, and let it ask."""

    async def session() -> None:
        async with Client(server, read_timeout_seconds=60, **options) as client:
            await ask(client)

    in_a_thread(session)


def in_a_thread(session: Callable[[], Awaitable[None]]) -> None:
    """Run a session to its end; a browser of other tests may have a loop in the main thread."""
    with ThreadPoolExecutor(1) as thread:
        thread.submit(anyio.run, session).result(timeout=120)


def command(*arguments: object) -> Any:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def said_by(result: CallToolResult) -> str:
    """The only sentence of a tool's error."""
    assert result.is_error
    (block,) = result.content
    assert isinstance(block, TextContent)
    return block.text


async def found(client: Client, tool: str, **arguments: Any) -> dict[str, Any]:
    result = await client.call_tool(tool, arguments)
    assert isinstance(result, CallToolResult)
    assert not result.is_error, result.content
    assert result.structured_content is not None
    return result.structured_content


async def refused(client: Client, tool: str, **arguments: Any) -> str:
    result = await client.call_tool(tool, arguments)
    assert isinstance(result, CallToolResult)
    return said_by(result)


async def check_tools(client: Client) -> None:
    tools = {tool.name: tool for tool in (await client.list_tools()).tools}
    assert list(tools) == ["find_moments", "similar_moments", "list_videos", "video_details"]
    for tool in tools.values():
        hints = tool.annotations
        assert hints is not None
        assert (hints.read_only_hint, hints.destructive_hint) == (True, False)
        assert (hints.idempotent_hint, hints.open_world_hint) == (True, False)
        assert tool.description
        assert tool.output_schema is not None
        assert tool.output_schema["type"] == "object"
    asked = tools["find_moments"].input_schema
    assert asked["required"] == ["sentence"]
    assert (asked["properties"]["k"]["minimum"], asked["properties"]["k"]["maximum"]) == (1, 100)


async def check_errors(client: Client) -> None:
    for tool, arguments, said in (
        ("find_moments", {"sentence": "  "}, "The sentence is empty. To mend it: describe a moment"),
        ("find_moments", {"sentence": "red", "k": 0}, "k: Input should be greater than or equal to 1."),
        ("find_moments", {"sentence": "red", "k": 101}, "k: Input should be less than or equal to 100."),
        ("find_moments", {"sentence": "red", "videos": ["gray"]}, "does not hold the video 'gray'. To mend"),
        ("find_moments", {"sentence": "red", "top": 5}, "takes no 'top'. To mend it: give sentence, k, videos"),
        ("find_moments", {}, "sentence: Field required."),
        ("similar_moments", {"video_id": "no", "start_seconds": 0, "end_seconds": 1}, "the video 'no'"),
        ("similar_moments", {"video_id": "plain", "start_seconds": 4, "end_seconds": 99}, "between 0 and 6 sec"),
        ("list_videos", {"limit": 1000}, "limit: Input should be less than or equal to 200."),
        ("video_details", {"video_id": "no"}, "The index does not hold the video 'no'."),
    ):  # fmt: skip
        sentence = await refused(client, tool, **arguments)
        assert said in sentence
        assert "\n" not in sentence
        assert "Traceback" not in sentence
        assert "Error executing" not in sentence


def test_over_standard_input_and_output(served: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Started as `dciml mcp-config` says, one process answers all: as `dciml search` and `dciml similar`."""
    searched, alike = (
        json.loads(command(*words, "-k", 3, "--json").output)
        for words in (
            ("search", served / "index", SENTENCE),
            ("similar", served / "index", "plain", 3.0, 6.0),
        )
    )
    within = json.loads(command("search", served / "index", SENTENCE, "--video", "grey", "--json").output)

    async def ask(client: Client) -> None:
        await check_tools(client)
        check_same(searched, await found(client, "find_moments", sentence=SENTENCE, k=3))
        check_same(within, await found(client, "find_moments", sentence=SENTENCE, videos=["grey"]))
        moment = {"video_id": "plain", "start_seconds": 3.0, "end_seconds": 6.0}
        check_same(alike, await found(client, "similar_moments", **moment, k=3))
        first, last = [await found(client, "list_videos", offset=offset, limit=4) for offset in (0, 4)]
        assert (first["total"], first["next_offset"], last["next_offset"]) == (6, 4, None)
        assert len({video["video_id"] for page in (first, last) for video in page["videos"]}) == 6
        few = await found(client, "list_videos", words="KITCHEN")
        assert [video["video_id"] for video in few["videos"]] == ["kitchen/monday"]
        details = await found(client, "video_details", video_id="kitchen/monday")
        assert details["duration_seconds"] == pytest.approx(6.0)
        assert Path(details["media_path"]) == served / "videos" / "v0.mp4"
        await check_errors(client)

    monkeypatch.chdir(served)
    printed = json.loads(command("mcp-config", "index", "--name", "films", "--model", "model").output)
    server = printed["mcpServers"]["films"]
    assert Path(server["command"]).is_absolute()
    assert server["args"][-4:] == ["mcp", str(served / "index"), "--model", str(served / "model")]
    monkeypatch.chdir("/")
    talk(StdioServerParameters(**server, env=ENVIRONMENT), ask)


def check_same(printed: dict[str, Any], answer: dict[str, Any]) -> None:
    assert (answer["found"], len(answer["hits"])) == (printed["found"], len(printed["hits"]))
    assert answer["confidence"] == pytest.approx(printed["confidence"], abs=1e-5)
    assert answer["hits"]
    for own, wanted in zip(answer["hits"], printed["hits"], strict=True):
        assert own["title"]
        for name in HIT_FIELDS:
            assert own[name] == (
                pytest.approx(wanted[name], abs=1e-4) if isinstance(wanted[name], float) else wanted[name]
            )


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Processes that are started heed Ctrl-C, also where these tests run in the background of a shell, which do not."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
def test_nothing_but_the_protocol_is_on_standard_output_and_ctrl_c_ends_it(served: Path) -> None:
    hello = {
        "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}
    }  # fmt: skip
    asked = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello}
    arguments = [sys.executable, "-m", "dciml", "mcp", str(served / "index")]
    with subprocess.Popen(
        arguments,
        env=os.environ | ENVIRONMENT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        server.stdin.write(f"{json.dumps(asked)}\n")
        server.stdin.flush()
        answer = json.loads(server.stdout.readline())
        assert answer["result"]["serverInfo"]["name"] == "dciml"
        server.send_signal(signal.SIGINT)  # a user at a terminal, who has not closed standard input
        server.wait(30)
        rest = server.communicate()
    assert (server.returncode, *rest) == (-signal.SIGINT, "", "")


def test_an_index_that_is_none_is_told_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        command("mcp", tmp_path / "nowhere")
    with pytest.raises(DataError, match="no such folder"):
        command("mcp-config", tmp_path / "nowhere")


@contextmanager
def serving(index: Path, **changes: Any) -> Iterator[str]:
    """A server in a thread. Gives its address."""
    with listen("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        server = make_mcp_server(ServiceSettings(index, **changes), port)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            while not server.started:
                time.sleep(0.01)
            yield f"http://127.0.0.1:{port}/mcp"
        finally:
            server.should_exit = True
            thread.join(30)
            assert not thread.is_alive()


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_over_http(served: Path, mode: str) -> None:
    """Clients of the present protocol, and of those before."""
    searched = json.loads(command("search", served / "index", SENTENCE, "-k", 3, "--json").output)

    async def ask(client: Client) -> None:
        await check_tools(client)
        check_same(searched, await found(client, "find_moments", sentence=SENTENCE, k=3))
        denied = await found(client, "find_moments", sentence="the picture is not red")
        assert any(note.startswith("Negation hardly counts") for note in denied["notes"])
        details = await found(client, "video_details", video_id="plain")
        assert (details["title"], details["media_path"]) == ("v2", None)
        await check_errors(client)

    with serving(served / "index") as address:
        talk(address, ask, mode=mode)


def test_a_change_of_the_index_is_taken_up_at_once(served: Path, tmp_path: Path) -> None:
    shutil.copytree(served, tmp_path / "own")
    index = tmp_path / "own" / "index"

    async def ask(client: Client) -> None:
        assert (await found(client, "list_videos"))["total"] == 6
        await anyio.to_thread.run_sync(lambda: command("index-remove", index, "plain"))
        hits = (await found(client, "find_moments", sentence=SENTENCE, k=100))["hits"]
        assert {hit["video_id"] for hit in hits} == {
            "kitchen/monday",
            'a "b" <b>&ü',
            "grey",
            "second",
            "third",
        }
        assert "does not hold the video 'plain'" in await refused(client, "video_details", video_id="plain")

    with serving(index) as address:
        talk(address, ask)


def test_the_token_and_the_names_of_hosts_are_asked_for(served: Path) -> None:
    with serving(served / "index", token="secret-of-the-test") as address:
        body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
        accept = {"Accept": "application/json, text/event-stream"}
        bare, wrong, foreign = (
            httpx2.post(address, json=body, headers=accept | headers)
            for headers in (
                {},
                {"Authorization": "Bearer secret"},
                {"Authorization": "Bearer secret-of-the-test", "Host": "elsewhere.example"},
            )
        )
        assert (bare.status_code, wrong.status_code, foreign.status_code) == (401, 401, 421)
        right = {"Authorization": "Bearer secret-of-the-test"}
        assert httpx2.get(address, headers=accept | right, timeout=30).status_code == 405
        assert "secret-of-the-test" not in bare.text + wrong.text

        async def session() -> None:
            async with (
                httpx2.AsyncClient(headers=right) as http,
                Client(streamable_http_client(address, http_client=http)) as client,
            ):
                assert (await found(client, "list_videos"))["total"] == 6

        in_a_thread(session)


def test_other_machines_are_served_with_a_token_only(served: Path) -> None:
    with pytest.raises(ConfigError, match="there is no token"):
        run_mcp_http(ServiceSettings(served / "index", host="0.0.0.0"), 0)
    with pytest.raises(ConfigError, match="the token is empty"):
        command("mcp", served / "index", "--http", "--host", "0.0.0.0", "--token", "")
    assert command("mcp", served / "index", "--port", 0).exit_code == 2


def test_config_for_a_server_over_http() -> None:
    printed = json.loads(command("mcp-config", "--http", "http://127.0.0.1:8766").output)
    assert printed == {"mcpServers": {"dciml": {"type": "http", "url": "http://127.0.0.1:8766/mcp"}}}
    for wrong in (["--http", "localhost:8766"], [], ["index", "--http", "http://localhost:1/mcp"]):
        assert command("mcp-config", *wrong).exit_code == 2


def test_an_index_that_breaks_meanwhile_is_told_in_a_sentence(served: Path, tmp_path: Path) -> None:
    shutil.copytree(served, tmp_path / "own")
    catalogue = tmp_path / "own" / "index" / "catalogue.sqlite"

    async def ask(client: Client) -> None:
        assert (await found(client, "list_videos"))["total"] == 6
        catalogue.write_bytes(b"no database " * 1000)
        sentence = await refused(client, "video_details", video_id="plain")
        assert "index" in sentence
        assert str(tmp_path) not in sentence

    with serving(catalogue.parent) as address:
        talk(address, ask)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left", "/srv/secret"), "The server's disk is full."),
        (ModelError("/srv/secret: damaged"), "The index or its model cannot be used."),
        (KeyError("/srv/secret"), "The server made a mistake."),
    ],
)
def test_what_goes_wrong_is_told_without_paths(error: Exception, said: str) -> None:
    wrapped = UnexpectedToolError("Error executing tool find_moments")
    wrapped.__cause__ = error
    sentence = sentence_of_call(wrapped)
    assert sentence.startswith(said)
    assert "secret" not in sentence


def test_missing_packages_are_named() -> None:
    with pytest.raises(ConfigError, match=r"needs no_such_package\. .* pip install 'dciml\[mcp\]'"):
        check_installed(("json", "no_such_package"), "mcp")
