"""Every command, given the wrong kind of thing in the place of each path, says so in one sentence."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from dciml.cli.app import app
from dciml.config import RunConfig, dump_config
from dciml.errors import DcimlError
from dciml.explain import explained
from dciml.index.catalogue import Catalogue

RUNNER = CliRunner()


def commands(command: Any, names: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    inner = getattr(command, "commands", None)
    if inner is None:
        yield " ".join(names), command
    else:
        for name, below in inner.items():
            yield from commands(below, (*names, name))


COMMANDS = dict(commands(typer.main.get_command(app)))
RIGHT = {
    ("train", "config"),
    ("baseline shared-space", "data"),
    *(("inspect", kind) for kind in ("data", "store")),
}
RIGHT |= {("inspect", "only model.json"), ("merge-stores", "store")}  # tells of it what is missing
HARMLESS = {"demo", "doctor"}  # without a path to read


@pytest.fixture
def things(tmp_path: Path, tiny_config: Callable[..., RunConfig]) -> dict[str, Path]:
    """What may stand where another thing is wanted."""
    config = tiny_config()
    things = {
        kind: tmp_path / kind for kind in ("missing", "empty-folder", "empty-file", "text", "binary", "pipe")
    }
    things["empty-folder"].mkdir()
    things["empty-file"].touch()
    things["text"].write_text("name: x\n- {[ \n")
    things["binary"].write_bytes(bytes(range(256)) * 20)
    os.mkfifo(things["pipe"])
    things["config"] = tmp_path / "config.yaml"
    things["config"].write_text(dump_config(config))
    things["data"] = Path(config.data.folder)
    things["store"] = things["data"] / "features"
    for name in (
        "manifest.json",
        "data.json",
        "model.json",
        Catalogue.__name__,
        "catalogue.sqlite",
        "config.yaml",
    ):
        folder = tmp_path / f"only-{name}"
        folder.mkdir()
        (folder / name).write_text('{"format": "of something else", "kind": "dciml"}')
        things[f"only {name}"] = folder
    return things


def lines(name: str, thing: Path, out: Path) -> list[str]:
    line = name.split()
    for parameter in COMMANDS[name].params:
        if not parameter.required and parameter.name != "out":
            continue
        value = str(out) if parameter.name in ("out", "target") else str(thing)
        if parameter.name == "split" and name == "import records":
            value = f"train={thing}"
        elif parameter.name in ("start", "end", "duration"):
            value = "1"
        is_argument = parameter.param_type_name == "argument"
        line += [value] if is_argument else [parameter.opts[0], value]
    return line


@pytest.mark.parametrize("name", [name for name in COMMANDS if name not in HARMLESS])
def test_wrong_kinds_of_things_are_told_in_a_sentence(
    name: str, things: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for kind, thing in things.items():
        if name == "extract" and kind not in ("missing", "empty-folder", "pipe"):
            continue  # what is no video is told by processes; tests/cli/test_extract_command.py has them
        if (name, kind) in RIGHT:
            continue  # these are right
        result = RUNNER.invoke(app, lines(name, thing, tmp_path / "out"))
        error = result.exception
        if isinstance(error, SystemExit):
            assert error.code in (1, 2), (kind, result.output)
            assert "Traceback" not in result.output
            continue
        assert error is not None, (kind, result.output)
        told = error if isinstance(error, DcimlError) else explained(error)
        assert told is not None, (kind, repr(error))
        assert "Traceback" not in str(told), (kind, str(told))
