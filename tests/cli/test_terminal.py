"""What a person at a terminal sees: a line of progress in 80 columns, the order of commands, completion, hints."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer.main
from typer.testing import CliRunner

from dciml.cli.app import ORDER, app
from dciml.config import RunConfig, dump_config
from dciml.media import write_video

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
PROGRAM = [sys.executable, "-m", "dciml"]


def on_terminal(*arguments: object, width: int = 80) -> list[str]:
    """The lines, each as it stood for a while, that a command writes to a terminal of this width."""
    child, terminal = pty.fork()
    if child == 0:
        environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
        # Set here, not by the parent, so that it holds before the program looks.
        fcntl.ioctl(1, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
        words = [*PROGRAM, *(str(argument) for argument in arguments)]
        os.execve(PROGRAM[0], words, environment | {"TERM": "xterm-256color"})
    written = b""
    while True:
        try:
            data = os.read(terminal, 65536)
        except OSError:  # the other end is closed
            break
        written += data
        if not data:
            break
    os.close(terminal)
    _, status = os.waitpid(child, 0)
    text = ESCAPES.sub("", written.decode())
    assert os.waitstatus_to_exitcode(status) == 0, text
    return [line for line in re.split(r"[\r\n]+", text) if line.strip()]


def test_training_has_one_line_with_epoch_bar_and_time_left_before_any_loss(
    tiny_config: Callable[..., RunConfig], tmp_path: Path
) -> None:
    settings = tmp_path / "tiny.yaml"
    settings.write_text(dump_config(tiny_config(training={"epochs": 20, "validate_every": 20})))
    lines = on_terminal("train", settings, "--out", tmp_path / "out")
    bars = [line for line in lines if "━" in line]
    assert all(len(line) <= 80 for line in bars), bars
    assert bars[0].startswith("set-up: ")  # the wait before the first step is seen, too
    of_epochs = [line for line in bars if line.startswith("epoch ")]
    assert len({line.split()[0:2][1] for line in of_epochs}) > 1
    told = re.compile(r"epoch \d+/20 [━╸╺ ]{16} +\d+% \d:\d\d:\d\d left \w+ -?\d+\.\d+.*…")
    assert any(told.fullmatch(line.rstrip()) for line in of_epochs), of_epochs
    assert not [line for line in bars if re.search(r"triplet|nce", line) and "left" not in line]


@pytest.mark.parametrize("width", [80, 56])
def test_extraction_has_one_line_that_keeps_the_time_left(tmp_path: Path, width: int) -> None:
    for number in range(3):
        pictures = [np.full((96, 128, 3), (9 * k) % 250, dtype=np.uint8) for k in range(200)]
        write_video(tmp_path / f"a-video-with-a-long-name-{number}.mp4", pictures, 8)
    lines = on_terminal("extract", tmp_path, "--out", tmp_path / "store", "--workers", "1", width=width)
    bars = [line for line in lines if "━" in line]
    assert bars
    assert all(len(line) <= width and "left" in line for line in bars), bars
    assert any(re.match(r"\d of 3 videos ", line) for line in bars), bars


@pytest.mark.slow
def test_the_demo_shows_each_stage_in_such_a_line(tmp_path: Path) -> None:
    small = ["--set", "training.epochs=1", "--set", "retrieval.hidden=32", "--set", "grounding.hidden=32"]
    lines = on_terminal("demo", "--out", tmp_path / "demo", *small)
    bars = [line for line in lines if "━" in line]
    assert all(len(line) <= 80 and "left" in line for line in bars), bars
    for stage in (r"\d+ videos", "features", "set-up: ", "epoch 1/1", "evaluating", "index"):
        assert any(re.match(stage, line) for line in bars), stage


def test_commands_are_listed_in_the_order_of_work() -> None:
    command: Any = typer.main.get_command(app)
    assert command.list_commands(None) == list(ORDER)
    shown = subprocess.run([*PROGRAM, "-h"], capture_output=True, text=True, check=True).stdout
    listed = re.findall(r"^│ ([a-z][\w-]*)  ", shown, re.MULTILINE)
    assert listed == list(ORDER)


def test_every_command_has_a_short_option_for_help() -> None:
    command: Any = typer.main.get_command(app)
    for name in command.list_commands(None):
        assert CliRunner().invoke(app, [name, "-h"]).exit_code == 0


def test_what_reports_has_json() -> None:
    """All but servers, what prints JSON anyway (mcp-config), and groups, whose commands are looked at instead."""
    command: Any = typer.main.get_command(app)
    commands = {name: command.commands[name] for name in set(ORDER) - {"serve", "mcp", "mcp-config"}}
    for group in ("import", "baseline"):
        commands |= {f"{group} {name}": own for name, own in commands.pop(group).commands.items()}
    without = [n for n, own in commands.items() if not any("--json" in p.opts for p in own.params)]
    assert without == []


def test_completion_offers_commands_and_options() -> None:
    def completed(line: str, place: int) -> str:
        variables = {"_DCIML_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(place)}
        script = Path(sys.executable).parent / "dciml"
        return subprocess.run([script], env=os.environ | variables, capture_output=True, text=True).stdout

    assert completed("dciml index", 1).split() == [name for name in ORDER if name.startswith("index")]
    assert "--window-seconds" in completed("dciml index --w", 2)


def test_a_setting_without_its_section_is_named_with_it(
    tiny_config: Callable[..., RunConfig], tmp_path: Path
) -> None:
    settings = tmp_path / "tiny.yaml"
    settings.write_text(dump_config(tiny_config()))
    command = [*PROGRAM, "train", str(settings), "--set", "epochs=3"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 1
    assert "unknown setting epochs; did you mean training.epochs?" in " ".join(done.stderr.split())


def facts(*arguments: object) -> Any:
    done = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_json_holds_what_the_sentences_say(tiny_config: Callable[..., RunConfig], tmp_path: Path) -> None:
    settings, model, index = tmp_path / "tiny.yaml", tmp_path / "model", tmp_path / "index"
    settings.write_text(dump_config(tiny_config()))
    data = tmp_path / "tiny-data"
    assert facts("train", settings, "--out", model, "--json")["model"] == str(model)
    report = facts("evaluate", model, "--data", data, "--json", "-")
    assert report["num_queries"] == 16
    (tmp_path / "report.json").write_text(json.dumps(report))
    assert facts("compare", tmp_path / "report.json", "--json")["tables"][0]["name"] == "VR"
    known = facts("calibrate", model, "--data", data, "--split", "train", "--report", "test", "--json")
    assert (known["videos"], known["report"]["table"]["name"]) == (24, "Nothing found")
    assert facts("index", model, data, "--split", "test", "--out", index, "--json")["videos"] == 8
    assert facts("index-add", index, data, "--json") == {
        "index": str(index), "videos": 32, "with_windows": 32, "added": 24
    }  # fmt: skip
    assert facts("index-remove", index, "test24", "--json")["removed"] == 1
    assert facts("index-compact", index, "--json")["videos"] == 31
    assert facts("index-verify", index, "--json")["damages"] == []
    assert facts("index-backup", index, tmp_path / "copy", "--json")["index"] == str(tmp_path / "copy")
    (damaged,) = list(index.glob("segment-*.vectors"))[:1]
    damaged.write_bytes(damaged.read_bytes()[:-8] + b"\x00\x01\x02\x03\x04\x05\x06\x07")
    done = CliRunner().invoke(app, ["index-verify", str(index), "--json"])
    assert done.exit_code == 1
    assert json.loads(done.stdout)["damages"]
    spaces = facts("baseline", "shared-space", data, "--out", tmp_path / "s", "--epochs", 2, "--json")
    assert len(spaces["info_nce"]) == 2


def test_json_of_imports_and_stores(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", [np.full((32, 48, 3), 9 * k, dtype=np.uint8) for k in range(12)], 4)
    (tmp_path / "broken.mp4").write_bytes(b"junk")
    store, data = tmp_path / "store", tmp_path / "data"
    done = CliRunner().invoke(app, ["extract", str(tmp_path), "--out", str(store), "--json"])
    told = json.loads(done.stdout)
    assert (done.exit_code, told["extracted"]) == (1, ["a"])
    assert [failure["video_id"] for failure in told["failed"]] == ["broken"]
    merged = facts("merge-stores", store, "--out", tmp_path / "merged", "--json")
    assert (merged["videos"], merged["merged"]) == (1, [str(store)])
    (tmp_path / "train.csv").write_text("video,sentence\na,a grey field\n")
    arguments = ["--split", f"train={tmp_path / 'train.csv'}", "--features", store, "--out", data]
    made = facts("import", "records", *arguments, "--json")
    assert made["splits"]["train"]["queries"] == 1
