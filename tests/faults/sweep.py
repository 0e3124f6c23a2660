"""Drives one call through a failure of every one of its operations, and looks at what is left."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fault_layer import MODES, Crash, Faults, Mode, room

from dciml.errors import DcimlError

EXPECTED = (OSError, DcimlError, sqlite3.Error, Crash)


@dataclass(frozen=True)
class Call:
    """A call that changes a folder.

    Attributes:
        prepare: makes what the call finds. `run` is the call.
        state: what a reader sees; before the call and after it, and nothing else, may ever be seen.
        is_clean: a failure leaves no files but those of one of these states, where the disk is only full.
    """

    prepare: Callable[[Path], object]
    run: Callable[[Path], object]
    state: Callable[[Path], Any]
    is_clean: bool = True


def sweep(call: Call, place: Path, modes: Sequence[Mode] = MODES, step: int = 1) -> int:
    """Fail at every `step`-th operation, in each mode. Returns: how many operations the call has.

    After each failure the folder shows the state before the call or the one after it; if that before, the same call
    succeeds at once.
    """
    template, clean = place / "template", place / "clean"
    template.mkdir(parents=True)
    with Faults(template).in_force():
        call.prepare(template)
    shutil.copytree(template, clean)
    before, before_files = call.state(template), _names(template)
    counting = Faults(clean)
    with counting.in_force():
        call.run(clean)
    after, after_files = call.state(clean), _names(clean)
    assert before != after
    for mode in modes:
        for number in range(0, len(counting.log), step):
            folder = place / "tried"
            shutil.copytree(template, folder)
            code = errno.EIO if mode == "once" and number % 2 else errno.ENOSPC
            faults = Faults(folder, number, mode, code)
            raised = _fail(call, folder, faults)
            said = f"{mode} at {number} ({faults.log[-1]}), raised {raised!r}"
            assert isinstance(raised, EXPECTED) or raised is None, said
            found = call.state(folder)
            assert found in ((before, after) if raised else (after,)), said
            if call.is_clean and mode == "full":
                assert _names(folder) <= before_files | after_files, (said, _names(folder))
            if found == before:
                with Faults(folder).in_force():
                    call.run(folder)
                assert call.state(folder) == after, said
            shutil.rmtree(folder)
    return len(counting.log)


def sweep_room(call: Call, place: Path, step: int = 4096) -> None:
    """Let the system refuse every file beyond so many bytes, for each multiple of `step` until there is enough."""
    template, folder = place / "template", place / "tried"
    template.mkdir(parents=True)
    call.prepare(template)
    before, num_bytes, raised = call.state(template), 0, True
    while raised:
        shutil.copytree(template, folder)
        raised = False
        with room(num_bytes):
            try:
                call.run(folder)
            except EXPECTED:
                raised = True
        if raised:
            assert call.state(folder) == before, num_bytes
            call.run(folder)
        assert call.state(folder) != before
        shutil.rmtree(folder)
        num_bytes += step
    assert num_bytes > 2 * step  # else nothing was ever refused


def _fail(call: Call, folder: Path, faults: Faults) -> BaseException | None:
    with faults.in_force():
        try:
            call.run(folder)
        except BaseException as error:
            return error
    return None


def _names(folder: Path) -> set[str]:
    return {
        str(Path(where, name).relative_to(folder)) for where, _, names in os.walk(folder) for name in names
    }
