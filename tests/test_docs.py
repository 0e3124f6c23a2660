"""The documents, held to the program: command lines parse, settings load, links lead somewhere, heavy imports wait."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from dciml.cli.app import app
from dciml.config import parse_config

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
SOURCES = sorted((ROOT / "src").rglob("*.py"))
HEAVY = ("torch", "faiss", "h5py", "av", "transformers", "lightning_fabric", "textblob")

FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`(dciml [^`\n]+)`")
LINK = re.compile(r"\]\(([^)\s]+)\)")
PATH = re.compile(r"`((?:src|docs|tests|scripts|configs|benchmarks)/[\w./-]*\w)`")
DECISION = re.compile(r"decisions?[ /](\d{4})([\w-]*\.md)?")


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def shell_commands(text: str) -> Iterator[list[str]]:
    """What follows `dciml` in each line of the shell examples, as a shell would split it."""
    for language, block in FENCE.findall(text):
        if language not in ("bash", "sh", "console"):
            continue
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line.removeprefix("$ "), comments=True)
            programs = [place for place, word in enumerate(words) if word.rpartition("/")[2] == "dciml"]
            if programs and (programs[0] == 0 or "=" in words[0] or words[programs[0] - 1] == "-m"):
                yield words[programs[0] + 1 :]


@cache
def program() -> Any:
    """All commands; making them takes a while."""
    return typer.main.get_command(app)


def find_command(words: list[str]) -> tuple[Any, list[str]]:
    """The command that the first words name, and the other words."""
    command = program()
    rest = list(words)
    while rest and hasattr(command, "commands") and not rest[0].startswith("-"):
        assert rest[0] in command.commands, f"there is no command {rest[0]!r} in: dciml {' '.join(words)}"
        command = command.commands[rest.pop(0)]
    return command, rest


def parse_whole(words: list[str]) -> None:
    """Parse a command line as the program would, without running it."""
    command, rest = find_command(words)
    if "--help" in rest or "--version" in rest:
        check_options(words)
        return
    try:
        command.make_context("dciml", rest)
    except Exception as error:
        raise AssertionError(f"dciml {' '.join(words)}: {error}") from error


def check_options(words: list[str]) -> None:
    """Every option of a command line must exist; the line need not be whole, and may hold placeholders."""
    command, rest = find_command(words)
    known = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    for word in rest:
        option = word.strip("[]").partition("=")[0]
        if option.startswith("-") and option not in known | {"--help"}:
            raise AssertionError(f"there is no option {option} in: dciml {' '.join(words)}")


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_shell_examples_parse(page: Path) -> None:
    for words in shell_commands(page.read_text(encoding="utf-8")):
        parse_whole(words)


@pytest.mark.parametrize("path", [*PAGES, *SOURCES], ids=name_of)
def test_commands_named_in_the_text_exist(path: Path) -> None:
    for text in INLINE.findall(path.read_text(encoding="utf-8")):
        words = [word for word in text.split()[1:] if word not in ("…", "...")]
        if words and "{" not in text:
            check_options(words)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_yaml_examples_are_settings(page: Path) -> None:
    for language, block in FENCE.findall(page.read_text(encoding="utf-8")):
        if language == "yaml":
            parse_config(yaml.safe_load(block), name_of(page))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_and_paths_lead_somewhere(page: Path) -> None:
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    links = [link.partition("#")[0] for link in LINK.findall(text) if "://" not in link]
    targets = [page.parent / link for link in links if link] + [ROOT / path for path in PATH.findall(text)]
    missing = [name_of(target.resolve()) for target in targets if not target.exists()]
    assert not missing, f"{name_of(page)} points to {', '.join(missing)}"


@pytest.mark.parametrize("path", [*PAGES, *SOURCES], ids=name_of)
def test_decisions_that_are_named_exist(path: Path) -> None:
    for number, rest in DECISION.findall(path.read_text(encoding="utf-8")):
        found = [file.name for file in (ROOT / "docs" / "decisions").glob(f"{number}-*.md")]
        assert len(found) == 1, f"decision {number}: {found}"
        assert not rest or found == [number + rest]


def test_decisions_are_numbered_once_each_and_fit_on_a_page() -> None:
    """Numbers are given out before a record is written; one that was not needed leaves a gap."""
    files = sorted((ROOT / "docs" / "decisions").glob("*.md"))
    numbers = [int(file.name[:4]) for file in files]
    assert len(set(numbers)) == len(numbers)
    assert numbers[:23] == list(range(1, 24))
    for file in files:
        text = file.read_text(encoding="utf-8")
        assert text.startswith(f"# {file.name[:4]} ")
        assert "## Context" in text and "## Decision" in text, file.name  # noqa: PT018
        assert len(text.split()) < 700, file.name


def test_readme_names_the_two_commands_and_keeps_the_place_for_figures() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for script in ("scripts/demo.sh", "scripts/check.sh"):
        assert script in text
        assert (ROOT / script).stat().st_mode & 0o111, f"{script} is not executable"
    assert text.index("<!-- figures:begin -->") < text.index("<!-- figures:end -->")


def test_constraints_pin_every_direct_dependency() -> None:
    import tomllib

    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    pinned = {name.lower().replace("_", "-") for name in pins}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [
        *project["dependencies"],
        *(w for extra in project["optional-dependencies"].values() for w in extra),
    ]
    names = {re.split(r"[<>=!~\[; ]", entry)[0].lower().replace("_", "-") for entry in wanted}
    names -= {"dciml"}  # an extra may take in other extras
    assert names <= pinned, f"not pinned: {sorted(names - pinned)}"
    assert pins["torch"] == "2.13.0"


@pytest.mark.parametrize(
    "arguments", [None, ["--help"], ["train", "--help"], ["import", "records", "--help"]]
)
def test_import_and_help_load_nothing_heavy(arguments: list[str] | None) -> None:
    program = f"""
import sys
import dciml
if {arguments!r} is not None:
    sys.argv = ["dciml", *{arguments!r}]
    from dciml.cli import main
    try:
        main()
    except SystemExit as end:
        assert not end.code, end.code
print("loaded:", *(name for name in {HEAVY!r} if name in sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].strip() == "loaded:"
