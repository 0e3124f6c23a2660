"""The container file and the systemd unit in docs/examples, held to the program and the project."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer.main

from dciml.cli.app import app

ROOT = Path(__file__).parents[2]
CONTAINERFILE = ROOT / "docs" / "examples" / "Containerfile"
UNIT = ROOT / "docs" / "examples" / "dciml.service"


def instructions() -> list[tuple[str, str]]:
    """(instruction, arguments) of the container file, continued lines joined."""
    text = re.sub(r"^#.*\n", "", CONTAINERFILE.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    return [(line.split(None, 1)[0], line.split(None, 1)[1]) for line in text.splitlines() if line.strip()]


def arguments_of(kind: str) -> list[str]:
    return [arguments for name, arguments in instructions() if name == kind]


def check_serves(words: list[str]) -> None:
    """Words that run `dciml serve` are taken by the program."""
    assert words[0].rpartition("/")[2] == "dciml"
    commands: Any = typer.main.get_command(app)
    commands.commands[words[1]].make_context("dciml", words[2:])


def test_the_container_gets_all_that_the_package_is_built_from() -> None:
    copied = {source for line in arguments_of("COPY") for source in line.split()[:-1]}
    missing = [source for source in copied if not (ROOT / source).exists()]
    assert not missing
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = [project["project"]["readme"], *project["project"]["license-files"], *wheel["force-include"]]
    needed += [*wheel["packages"], project["tool"]["hatch"]["version"]["path"], "pyproject.toml"]
    assert {path.partition("/")[0] for path in needed} <= copied


def test_the_container_installs_what_exists_and_runs_a_command_that_is_taken() -> None:
    install = next(line for line in arguments_of("RUN") if "pip install" in line)
    words = shlex.split(install)
    assert (ROOT / words[words.index("--constraint") + 1]).is_file()
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(re.findall(r"\w+", words[-1])) <= extras.keys()
    (entry,), (rest,) = arguments_of("ENTRYPOINT"), arguments_of("CMD")
    check_serves([*json.loads(entry), *json.loads(rest)])


def test_the_container_asks_after_its_own_health(client: Any) -> None:
    (check,) = arguments_of("HEALTHCHECK")
    program, option, code = json.loads(check.partition("CMD ")[2])
    assert (program, option) == ("python", "-c")
    compile(code, "healthcheck", "exec")
    (port,) = arguments_of("EXPOSE")
    path = re.search(rf"http://127\.0\.0\.1:{port}(/\w+)'", code)
    assert path is not None
    assert client.get(path[1]).status_code == 200


def test_the_unit_runs_a_command_that_is_taken(tmp_path: Path) -> None:
    start = next(line for line in UNIT.read_text().splitlines() if line.startswith("ExecStart="))
    words = shlex.split(start.removeprefix("ExecStart="))
    check_serves(words)
    verify = shutil.which("systemd-analyze")
    if verify is None:
        pytest.skip("there is no systemd-analyze to check the rest")
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace(words[0], sys.executable))  # a program that is there
    done = subprocess.run([verify, "verify", str(unit)], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
