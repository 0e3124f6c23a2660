"""Damaged folders of every kind through every command that reads them: a sentence or an answer, soon, within bounds.

Files are removed, cut, changed by a bit, exchanged, filled with other numbers, or replaced by folders, links, pipes.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import traceback
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from dciml.config import RunConfig, dump_config

CASES, SECONDS, MEMORY = 100, 60.0, 3 << 30
PARTS = ("data", "data/features", "run", "base", "idx", "reports")
CONTEXT = get_context("forkserver")
CONTEXT.set_forkserver_preload(["dciml.recipes.train", "dciml.recipes.index", "dciml.service.app", __name__])


def lines(tree: Path, part: str) -> list[list[str]]:
    """The commands that read a part of the tree."""
    folder, data, run, base, idx = (str(tree / name) for name in (part, "data", "run", "base", "idx"))
    train = ["train", str(tree / "tiny.yaml"), "--quiet", "--set", f"data.folder={data}"]
    evaluate = ["--data", data, "--queries", "4", "--json", str(tree / "report.json")]
    of_data = [
        [*train, "--out", str(tree / "new-run")],
        ["evaluate", base, *evaluate],
        ["index", base, data, "--out", str(tree / "new-idx")],
        ["baseline", "shared-space", data, "--out", str(tree / "new-base"), "--epochs", "1"],
        ["calibrate", run, "--data", data, "--report", "test"],
    ]
    of_index = [
        ["search", idx, "dog runs", "--model", base],
        ["similar", idx, "test24", "1", "3"],
        ["index-verify", idx],
        ["index-compact", idx],
        ["index-remove", idx, "test25"],
        ["index-add", idx, data],
        ["index-backup", idx, str(tree / "backup")],
        ["serve", idx],
    ]
    of_model = [
        ["evaluate", folder, *evaluate],
        ["index", folder, data, "--out", str(tree / "new-idx")],
        *of_index[:2],
    ]
    of_part = {
        "data": of_data,
        "data/features": [*of_data, ["merge-stores", folder, "--out", str(tree / "merged")], *of_index[:2]],
        "run": [*of_model, [*train, "--out", run, "--resume"]],
        "base": of_model,
        "idx": of_index,
        "reports": [["compare", folder]],
    }
    return [["inspect", folder], ["inspect", folder, "--json"], *of_part[part], ["doctor", folder]]


def attempt(line: list[str]) -> str | None:
    """What is wrong with how a command ends, in this process; None: it answered or said what is wrong."""
    from dciml.cli.app import app
    from dciml.explain import explained

    if line[0] == "serve":
        return start(Path(line[1]))
    result = CliRunner().invoke(app, line)
    error = result.exception
    if error is None or isinstance(error, SystemExit):
        return None if result.exit_code in (0, 1, 2) and "Traceback" not in result.output else result.output
    said = explained(error)
    if said is None or len(str(said)) > 2000:
        return "".join(traceback.format_exception(error))
    return None


def start(index: Path) -> str | None:
    """The server's start, its first answers, and its end."""
    from fastapi.testclient import TestClient

    from dciml.explain import explained
    from dciml.service.app import create_app
    from dciml.service.settings import ServiceSettings

    try:
        app = create_app(ServiceSettings(index, cache=index.with_name("cache")))
        with TestClient(app, base_url="http://127.0.0.1", raise_server_exceptions=False) as client:
            for address in ("/healthz", "/api/videos", "/api/status"):
                client.get(address)
            found = client.post("/api/search", json={"sentence": "dog runs"})
    except Exception as error:
        return None if explained(error) else "".join(traceback.format_exception(error))
    return found.text if found.status_code == 500 and "mistake" in found.text else None


def attempt_all(tree: Path, part: str, report: Path) -> None:
    """Run the commands on a part; runs in a process of its own, which writes what was wrong."""
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    for line in lines(tree, part):
        report.write_text(f"it ended, or hung, in: dciml {' '.join(line)}")
        wrong = attempt(line)
        if wrong is not None:
            report.write_text(f"dciml {' '.join(line)}\n{wrong}")
            return
    report.write_text("")


def spoil(folder: Path, rng: np.random.Generator) -> str:
    """Damage one thing in a folder; says what was done."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    if not files:
        return "nothing is left"
    file = files[rng.integers(len(files))]
    content = bytearray(file.read_bytes())
    kind = KINDS[rng.integers(len(KINDS))]
    kind(file, content, files, rng)
    return f"{kind.__name__} {file.relative_to(folder)}"


def remove(file: Path, *_: Any) -> None:
    file.unlink()


def cut(file: Path, content: bytearray, _: list[Path], rng: np.random.Generator) -> None:
    file.write_bytes(content[: rng.integers(len(content) + 1)])


def flip(file: Path, content: bytearray, _: list[Path], rng: np.random.Generator) -> None:
    for place in rng.integers(max(len(content), 1), size=rng.integers(1, 4)):
        content[place % max(len(content), 1)] ^= 1 << int(rng.integers(8))
    file.write_bytes(content)


def noise(file: Path, content: bytearray, _: list[Path], rng: np.random.Generator) -> None:
    file.write_bytes(rng.bytes(len(content)))


def exchange(file: Path, content: bytearray, files: list[Path], rng: np.random.Generator) -> None:
    other = files[rng.integers(len(files))]
    file.write_bytes(other.read_bytes())
    other.write_bytes(content)


def other_values(file: Path, content: bytearray, _: list[Path], rng: np.random.Generator) -> None:
    """Numbers, or what else stands in JSON, replaced by what nobody writes there."""
    odd = (10**30, -1, 0, 1e308, None, True, "", "x" * 300, [], {}, [[1]], {"a": 1}, "../..", 1 << 40, 0.5)
    try:
        lines = [json.loads(line) for line in content.decode().splitlines()]
        form = "lines"
    except ValueError:
        try:
            lines, form = [json.loads(content)], "whole"
        except ValueError:
            words = content.split(b" ")
            words[rng.integers(len(words))] = str(odd[rng.integers(len(odd))]).encode()
            file.write_bytes(b" ".join(words))
            return
    places: list[tuple[Any, Any]] = []
    stack: list[Any] = list(lines)
    while stack:
        value = stack.pop()
        inner = (
            value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        )
        for key, below in inner:
            places.append((value, key))
            stack.append(below)
    if places:
        holder, key = places[rng.integers(len(places))]
        holder[key] = odd[rng.integers(len(odd))]
    file.write_text("\n".join(map(json.dumps, lines)) + ("\n" if form == "lines" else ""))


def into_folder(file: Path, *_: Any) -> None:
    file.unlink()
    file.mkdir()


def into_link(file: Path, _: bytearray, files: list[Path], rng: np.random.Generator) -> None:
    file.unlink()
    targets = (file.name, "/dev/zero", "/dev/null", "/etc/passwd", "nowhere", "..", str(files[0]))
    file.symlink_to(targets[rng.integers(len(targets))])


def into_pipe(file: Path, *_: Any) -> None:
    file.unlink()
    os.mkfifo(file)


def unreadable(file: Path, *_: Any) -> None:
    file.chmod(0)  # no obstacle where root runs the tests


KINDS: tuple[Callable[..., None], ...] = (
    remove, cut, flip, flip, noise, exchange, other_values, other_values, other_values, into_folder, into_link,
    into_pipe, unreadable,
)  # fmt: skip


def build(tree: Path, config: RunConfig) -> None:
    """One folder of each kind, beside each other."""
    tree.mkdir()
    shutil.copytree(config.data.folder, tree / "data")
    (tree / "tiny.yaml").write_text(dump_config(config))
    (tree / "reports").mkdir()
    data, run, base, idx = (str(tree / name) for name in ("data", "run", "base", "idx"))
    for line in (
        ["train", str(tree / "tiny.yaml"), "--out", run, "--quiet", "--set", f"data.folder={data}"],
        ["baseline", "shared-space", data, "--out", base, "--epochs", "1"],
        ["index", base, data, "--split", "test", "--out", idx],
        ["evaluate", base, "--data", data, "--json", str(tree / "reports" / "report.json")],
    ):
        wrong = attempt(line)
        assert wrong is None, wrong


@pytest.mark.slow
def test_damaged_folders_end_in_a_sentence(tmp_path: Path, tiny_config: Callable[..., RunConfig]) -> None:
    build(tmp_path / "made", tiny_config())
    kept = tmp_path / "kept"
    (tmp_path / "made").rename(kept)  # so that an index finds nothing where it was made
    failures = []
    for seed in range(int(os.environ.get("FUZZ_FROM", 0)), int(os.environ.get("FUZZ_TO", CASES))):
        rng = np.random.default_rng(seed)
        tree, report = tmp_path / "tree", tmp_path / "report"
        shutil.copytree(kept, tree)
        part = PARTS[seed % len(PARTS)]
        done = [spoil(tree / part, rng) for _ in range(rng.integers(1, 3))]
        process = CONTEXT.Process(target=attempt_all, args=(tree, part, report))
        process.start()
        process.join(SECONDS)
        if process.is_alive():
            process.kill()
            process.join()
        wrong = report.read_text() if report.exists() else "it did not begin"
        if wrong:
            failures.append(f"case {seed}, {part}: {', '.join(done)}\n{wrong}")
        shutil.rmtree(tree)
        report.unlink(missing_ok=True)
    assert not failures, "\n\n".join(failures)
