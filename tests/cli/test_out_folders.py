"""Every command that writes a folder leaves alone what it did not make, and says so before it does any work."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from dciml.cli.app import app
from dciml.config import RunConfig, dump_config
from dciml.datasets.folder import DATA_FILE
from dciml.errors import DataError

RUNNER = CliRunner()
OWN_FOLDERS = ("demo", "train", "extract")
"""Commands that may be called again on what they made; all others make a new folder."""
NEW_FILES = ("cut", "export")
"""Commands that write files, never over others; tests/cli/test_moments_command.py has them."""


def commands(command: Any, names: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """All commands, with their names; groups have `commands`."""
    inner = getattr(command, "commands", None)
    if inner is None:
        yield " ".join(names), command
    else:
        for name, below in inner.items():
            yield from commands(below, (*names, name))


WRITING = {
    name: command
    for name, command in commands(typer.main.get_command(app))
    if {"out", "target"} & {parameter.name for parameter in command.params}
}


def line_of(name: str, out: Path) -> list[str]:
    """A command line with an output folder, whose other arguments lead nowhere."""
    line = name.split()
    for parameter in WRITING[name].params:
        value = str(out) if parameter.name in ("out", "target") else "nowhere"
        if parameter.param_type_name == "argument" and parameter.required:
            line.append(value)
        elif parameter.name == "out" or parameter.required:
            line += [parameter.opts[0], value]
    return line


def state(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def places(tmp_path: Path) -> list[Path]:
    """A folder of the user's, with subfolders that are called as ours are; an index; a file; a dangling link."""
    mine = tmp_path / "mine"
    for name in ("index", "model", "untrained", "videos", "data", "incoming"):
        (mine / name).mkdir(parents=True)
        (mine / name / "thesis.txt").write_text("years of work")
    index = tmp_path / "an-index"
    index.mkdir()
    (index / "catalogue.sqlite").write_bytes(b"not really")
    file = tmp_path / "file"
    file.write_text("text")
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "nowhere-at-all")
    return [mine, index, file, link]


@pytest.mark.parametrize("name", [name for name in WRITING if name not in OWN_FOLDERS + NEW_FILES])
def test_new_folders_are_made_only_where_there_is_nothing(
    name: str, places: list[Path], tmp_path: Path
) -> None:
    before = state(tmp_path)
    for place in places:
        result = RUNNER.invoke(app, line_of(name, place))
        assert isinstance(result.exception, DataError), (place, result.output, result.exception)
        assert str(result.exception).startswith(f"{place}: "), result.exception
    assert state(tmp_path) == before


@pytest.mark.parametrize("name", OWN_FOLDERS)
def test_folders_that_a_command_did_not_make_are_left_alone(
    name: str, places: list[Path], tmp_path: Path, tiny_config: Callable[..., RunConfig]
) -> None:
    assert name in WRITING
    config = tmp_path / "c.yaml"
    config.write_text(dump_config(tiny_config()))
    inputs = {"demo": [], "train": [str(config)], "extract": [str(tmp_path / "nowhere.mp4")]}[name]
    before = state(tmp_path)
    for place in places:
        result = RUNNER.invoke(app, [name, *inputs, "--out", str(place)])
        assert result.exit_code != 0
        said = str(result.exception) if isinstance(result.exception, DataError) else result.output
        assert f"{place}: this is " in said, result.exception
    assert state(tmp_path) == before


def test_a_demo_whose_parts_somebody_replaced_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "demo.json").write_text("{}")
    (tmp_path / "index").mkdir()
    (tmp_path / "index" / "thesis.txt").write_text("years of work")
    result = RUNNER.invoke(app, ["demo", "--out", str(tmp_path)])
    assert isinstance(result.exception, DataError)
    assert "index: this is not an index" in str(result.exception)
    assert (tmp_path / "index" / "thesis.txt").read_text() == "years of work"
    assert not (tmp_path / DATA_FILE).exists()


@pytest.mark.parametrize("option", ["--json", "--submission"])
def test_evaluate_writes_over_nothing_but_its_own_kind_and_says_so_first(option: str, tmp_path: Path) -> None:
    mine = tmp_path / "film.mp4"
    mine.write_bytes(b"of mine")
    result = RUNNER.invoke(app, ["evaluate", "nowhere", "--data", "nowhere", option, str(mine)])
    assert isinstance(result.exception, DataError)
    assert "would be lost" in str(result.exception)
    assert mine.read_bytes() == b"of mine"
