"""A crew contains what goes wrong with one item: errors, crashes, hangs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from dciml.errors import ConfigError, DataError
from dciml.processes import GIBIBYTE, Crew, OnCall, Outcome, called_beside

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
    if kind == "pid":
        return os.getpid(), calls
    if kind == "leave":
        os._exit(3)
    if kind == "hang":
        time.sleep(60)
    if kind == "large":
        return len(bytearray(int(text)) + b"."), calls
    if kind == "open":
        from dciml.processes import little_memory
        with little_memory(200 * 1024**2):
            bytearray(150 * 1024**2)
            bytearray(250 * 1024**2)
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


def is_running(pid: int) -> bool:
    process = Path(f"/proc/{pid}")
    if not process.exists():
        return False
    is_dead = (process / "stat").read_text().rpartition(")")[2].split()[0] == "Z"
    return not is_dead or len(list((process / "task").iterdir())) > 1  # its other threads end a moment later


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


def test_a_worker_takes_no_more_memory_than_it_may(work: Callable[..., Any]) -> None:
    items = ["a", f"large {2 * GIBIBYTE}", "large 1000", "open"]
    with Crew(work, 1, stall_seconds=60, memory_bytes=GIBIBYTE) as crew:
        outcomes = {o.item: o for o in crew.run(items)}
    assert [item for item, o in outcomes.items() if o.error is not None] == [items[1], "open"]
    for item in (items[1], "open"):
        assert "it needs more memory than 1.0 GiB" in str(outcomes[item].error)
    assert outcomes["large 1000"].result == (1001, 3)  # in the same process


def test_calls_come_from_any_thread_and_each_crash_stays_with_its_own(work: Callable[..., Any]) -> None:
    on_call = OnCall(work, 2, 10.0, GIBIBYTE)
    items = ["a", "crash b", "c", "bad d.mp4", "leave e", "f", f"large {2 * GIBIBYTE}", "h"]

    def call(item: str) -> Any:
        try:
            return on_call.call(item)[0]
        except DataError as error:
            return error.what

    with ThreadPoolExecutor(4) as pool:
        found = dict(zip(items, pool.map(call, items), strict=True))
    assert {item: result for item, result in found.items() if item == result} == {
        k: k for k in ("a", "c", "f", "h")
    }
    assert "crashed (Segmentation fault)" in found["crash b"]
    assert found["bad d.mp4"] == "it is bad"
    assert "ended early" in found["leave e"]
    assert "more memory" in found[items[6]]
    on_call.close()
    assert on_call.call("again") == ("again", 1)  # in a new process
    on_call.close()


def test_a_call_that_takes_too_long_is_given_up_and_its_process_replaced(work: Callable[..., Any]) -> None:
    on_call = OnCall(work, 1, 30.0, GIBIBYTE)
    pid = on_call.call("pid")[0]
    on_call._seconds = 0.5
    with pytest.raises(DataError, match=r"it took longer than 0\.5 s, so it was given up"):
        on_call.call("hang")
    on_call._seconds = 30.0
    other = on_call.call("pid")[0]
    assert other != pid
    os.kill(other, signal.SIGKILL)  # as the system does where memory is short, also to idle processes
    while is_running(other):
        time.sleep(0.01)
    assert on_call.call("a") == ("a", 1)
    on_call.close()


def test_a_crew_needs_a_worker() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        Crew(print, 0, 1.0)
    with pytest.raises(ValueError, match="at least 1"):
        OnCall(print, 0, 1.0, GIBIBYTE)


def test_processes_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    (tmp_path / "jobs_of_a_killed.py").write_text(
        "import os, time\n"
        "def hang(item, beat=None):\n"
        "    open(f'{item}.pid', 'w').write(str(os.getpid()))\n"
        "    os.rename(f'{item}.pid', f'{item}.done')\n"
        "    time.sleep(600)\n"
    )
    (tmp_path / "killed.py").write_text(
        "import sys, threading\n"
        "from dciml.processes import Crew, map_in_processes\n"
        "from jobs_of_a_killed import hang\n"
        "if __name__ == '__main__':\n"
        "    crew = threading.Thread(target=lambda: list(Crew(hang, 1, 600.0).run(['crew'])), daemon=True)\n"
        "    crew.start()\n"
        "    list(map_in_processes(hang, ['pool', 'other'], 2))\n"
    )
    parent = subprocess.Popen([sys.executable, "killed.py"], cwd=tmp_path)
    names = [tmp_path / f"{name}.done" for name in ("crew", "pool", "other")]
    while not all(name.exists() for name in names) and parent.poll() is None:
        time.sleep(0.02)
    parent.kill()
    parent.wait()
    pids = [int(name.read_text()) for name in names]
    end = time.monotonic() + 20
    while any(is_running(pid) for pid in pids) and time.monotonic() < end:
        time.sleep(0.02)
    assert not [pid for pid in pids if is_running(pid)]


def _slowly_negative(number: int) -> int:
    time.sleep(0.2)
    return -number


def _wrong(_: int) -> int:
    raise DataError("it is wrong", mend="mend it")


@pytest.mark.parametrize("alone", [False, True])
def test_work_beside_gives_its_result_or_its_error(alone: bool) -> None:
    with called_beside(_slowly_negative, 3, alone=alone) as result:
        assert result() == -3
    with called_beside(_wrong, 3, alone=alone) as result, pytest.raises(DataError) as error:
        result()
    assert str(error.value) == "it is wrong. To mend it: mend it."


def test_work_beside_ends_where_nobody_asks_for_it_any_more() -> None:
    begin = time.monotonic()
    with pytest.raises(DataError), called_beside(time.sleep, 60.0):
        _wrong(0)
    assert time.monotonic() - begin < 30
