"""A crew contains what goes wrong with one item: errors, crashes, hangs."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from dciml.errors import ConfigError
from dciml.processes import Crew, Outcome

JOBS = """
import os, signal, time
from dciml.errors import ConfigError, DataError

calls = 0

def work(item, beat):
    global calls
    calls += 1
    kind, _, text = item.partition(" ")
    if kind == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if kind == "leave":
        os._exit(3)
    if kind == "hang":
        time.sleep(60)
    if kind == "slow":
        for k in range(8):
            time.sleep(0.3)
            beat(k / 8, k)
    if kind == "bad":
        raise DataError("it is bad", where=text, mend="make it good")
    if kind == "bug":
        raise KeyError(text)
    if kind == "config":
        raise ConfigError("no such encoder")
    return item, calls
"""


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """A function of a module that new processes can import."""
    (tmp_path / "crew_jobs.py").write_text(JOBS)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "crew_jobs", raising=False)
    function: Callable[..., Any] = import_module("crew_jobs").work
    return function


def test_each_error_stays_with_its_item(work: Callable[..., Any]) -> None:
    items = ["a", "bad b.mp4", "crash c", "d", "leave e", "bug f", "g"]
    with Crew(work, 1, stall_seconds=60) as crew:
        outcomes: dict[str, Outcome[str, Any]] = {outcome.item: outcome for outcome in crew.run(items)}
    assert list(outcomes) == items
    assert {item: o.result for item, o in outcomes.items() if o.error is None} == {
        "a": ("a", 1),
        "d": ("d", 1),  # in a new process
        "g": ("g", 2),  # in the process that had the bug before
    }
    errors = {item: str(o.error) for item, o in outcomes.items() if o.error is not None}
    assert errors["bad b.mp4"] == "b.mp4: it is bad. To mend it: make it good."
    assert "the process that worked on it crashed (Segmentation fault)" in errors["crash c"]
    assert "ended early (exit code 3)" in errors["leave e"]
    assert "an unforeseen error (KeyError: 'f')" in errors["bug f"]


def test_silence_is_ended_and_beats_are_no_silence(work: Callable[..., Any]) -> None:
    beats: list[tuple[str, float, int]] = []
    with Crew(work, 2, stall_seconds=1.5) as crew:
        # The first items start the processes, which takes its own time.
        assert all(o.error is None or "no progress" in str(o.error) for o in crew.run(["a", "b"]))
        outcomes = {o.item: o for o in crew.run(["hang", "slow"], lambda *beat: beats.append(beat))}
    assert "no progress for 1.5 s" in str(outcomes["hang"].error)
    assert outcomes["slow"].result is not None
    assert {item for item, _, _ in beats} == {"slow"}
    assert [units for _, _, units in beats] == sorted(units for _, _, units in beats)


def test_an_error_of_the_settings_ends_all(work: Callable[..., Any]) -> None:
    with Crew(work, 1, stall_seconds=60) as crew, pytest.raises(ConfigError, match="no such encoder"):
        list(crew.run(["config", "a"]))


def test_a_crew_needs_a_worker() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        Crew(print, 0, 1.0)
