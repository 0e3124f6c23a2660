"""Work that is shared out over threads, each of which computes alone.

Two threads that share every operation wait for each other after each; two that take half of the work each do not. For
the many small operations of grounding that is a third of the time (docs/PERFORMANCE.md).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Lock
from typing import TypeVar

import torch

Part = TypeVar("Part")
Result = TypeVar("Result")

_lock = Lock()
_teams: dict[int, ThreadPoolExecutor] = {}
_wanted: list[int] = []
os.register_at_fork(after_in_child=_teams.clear)  # threads do not come along


def num_shares() -> int:
    """Over how many threads work is shared out: what `set_num_shares` said, else as many as torch computes with."""
    return _wanted[0] if _wanted else torch.get_num_threads()


def set_num_shares(count: int | None) -> None:
    """Say over how many threads the whole process shares out work, whatever torch's number is; None: torch's number.

    Raises:
        ValueError: less than one.
    """
    if count is not None and count < 1:
        raise ValueError(f"work is shared out over at least one thread, not {count}")
    _wanted[:] = [] if count is None else [count]


def share_out(work: Callable[[Part], Result], parts: Sequence[Part]) -> list[Result]:
    """`work` of each part, in order; several at a time, each in a thread for which torch has one thread.

    Grad mode is a thread's own: `work` sets what it needs. It must not share out work itself. A single part runs in
    the calling thread, and so do all of them, one after the other, where work is not shared out.

    Raises:
        Whatever `work` raised for the first part that failed, when all have ended.
    """
    if len(parts) < 2 or num_shares() < 2:
        return [work(part) for part in parts]
    futures = [_team(num_shares()).submit(work, part) for part in parts]
    for future in futures:
        future.exception()
    return [future.result() for future in futures]


def _team(size: int) -> ThreadPoolExecutor:
    with _lock:
        if size not in _teams:
            before, started = torch.get_num_threads(), Barrier(size)
            team = ThreadPoolExecutor(size, "share", initializer=_compute_alone)
            # torch keeps a number for each thread, and the last one said for threads to come: say it for all of the
            # team first, and then again what it was.
            list(team.map(lambda _: started.wait(), range(size)))
            torch.set_num_threads(before)
            _teams[size] = team
        return _teams[size]


def _compute_alone() -> None:
    torch.get_num_threads()  # the first call in a thread takes over torch's number, and would undo the next line
    torch.set_num_threads(1)
