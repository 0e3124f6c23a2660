"""One line that says how far something is: what, a bar, the share, the time left; then details, as far as they fit."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn
from rich.table import Column
from rich.text import Text

BAR_WIDTH = 16
SPEED_SECONDS = 120.0
"""The time left is reckoned from the speed of so long."""


class ProgressLine:
    """A line on a terminal, gone at the end; where there is no terminal, nothing is shown.

    Use it as a context manager. What is printed meanwhile appears above it.

    Args:
        console: where it stands; None: standard error.
        quiet: show nothing.
    """

    def __init__(self, console: Console | None = None, *, quiet: bool = False) -> None:
        details = Column(ratio=1, no_wrap=True, overflow="ellipsis")
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=BAR_WIDTH),
            _Share(),
            _TimeLeft(),
            TextColumn("{task.fields[details]}", markup=False, table_column=details),
            console=console or Console(stderr=True),
            disable=quiet,
            transient=True,
            expand=True,
            speed_estimate_period=SPEED_SECONDS,
        )
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        self._bar.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.__exit__(kind, error, trace)

    def begin(self, what: str, total: float | None = None, done: float = 0) -> None:
        """Something new begins; `done` of it is not counted as the work of this process.

        Args:
            total: how much there is to do; None: not known, and so is the time left.
        """
        if self._task is not None:
            self._bar.remove_task(self._task)
        self._task = self._bar.add_task(what, total=total, completed=int(done), details="")

    def tell(
        self,
        done: float,
        *,
        total: float | None = None,
        what: str | None = None,
        details: str | None = None,
    ) -> None:
        """So much is done; what is None stays as it was."""
        assert self._task is not None, "nothing has begun"
        self._bar.update(self._task, completed=done, total=total, description=what)
        if details is not None:
            self._bar.update(self._task, details=details)


class _Share(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text("    " if not task.total else f"{task.percentage:>3.0f}%")


class _TimeLeft(ProgressColumn):
    max_refresh = 0.5

    def render(self, task: Task) -> Text:
        left = None if task.total is None else task.time_remaining
        if left is None:
            return Text("-:--:-- left", style="progress.remaining")
        minutes, seconds = divmod(int(left), 60)
        hours, minutes = divmod(minutes, 60)
        return Text(f"{hours}:{minutes:02}:{seconds:02} left", style="progress.remaining")
