"""What a person sees of a run, and how a person stops it between two steps."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from types import FrameType
from typing import TYPE_CHECKING

from rich.console import Console

from dciml.progress_line import ProgressLine
from dciml.training.checkpoint import RunProgress

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class Stopped(KeyboardInterrupt):
    """The run was asked to stop, has saved its checkpoint and says so; no error, and no reason to go on either."""


class StopRequest:
    """Remembers that SIGINT (Ctrl-C) or SIGTERM came, for the loop to look at when a step is complete.

    A second SIGINT stops at once, without saving; the last checkpoint stands.
    """

    def __init__(self) -> None:
        self.asked = False

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take both signals as requests; in a thread that cannot receive signals, change nothing."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.asked = True


class Reporter:
    """Shows epoch, time left, sentences per second and losses by name in a line; writes the same to TensorBoard.

    Args:
        out: the run's folder; TensorBoard's files go to `out`/tensorboard.
        enabled: False in all processes but the first.
        quiet: no bar and no lines.
    """

    def __init__(self, out: Path, *, enabled: bool, quiet: bool) -> None:
        self._out, self._enabled = out, enabled
        self._console = Console(quiet=quiet or not enabled, stderr=True)
        self._line = ProgressLine(self._console, quiet=quiet or not enabled)
        self._writer: SummaryWriter | None = None
        self._epochs = 0
        self._started, self._sentences = monotonic(), 0
        self._done = 0
        self._sums: dict[str, float] = {}
        self._counts: dict[str, int] = {}

    @contextmanager
    def showing(self) -> Iterator[None]:
        """Show the line, from the first moment of a run to the last."""
        with self._line:
            yield

    @contextmanager
    def open(self, progress: RunProgress, epochs: int) -> Iterator[None]:
        """Write to TensorBoard while the epochs go on."""
        self._epochs = epochs
        if self._enabled:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(self._out / "tensorboard", purge_step=progress.step or None)
        try:
            yield
        finally:
            if self._writer is not None:
                self._writer.close()

    def stage(self, what: str, total: int | None = None) -> None:
        """Something before or after the epochs begins."""
        self._line.begin(what, total)

    def stage_done(self, done: int) -> None:
        """So much of it is done."""
        self._line.tell(done)

    def start_training(self, num_steps: int, epoch: int, done: int) -> None:
        """The epochs begin, or go on from `epoch` after `done` of its `num_steps` steps."""
        self._done = epoch * num_steps + done
        self._line.begin(self._name_of(epoch), self._epochs * num_steps, self._done)

    def start_epoch(self, epoch: int, num_steps: int, done: int) -> None:
        """A new epoch begins (or goes on after `done` steps); the time left is that of all epochs."""
        self._sums, self._counts, self._sentences, self._started = {}, {}, 0, monotonic()
        self._done = epoch * num_steps + done
        self._line.tell(self._done, total=self._epochs * num_steps, what=self._name_of(epoch))

    def _name_of(self, epoch: int) -> str:
        return f"epoch {epoch + 1}/{self._epochs}"

    def step(self, step: int, values: dict[str, float], num_sentences: int) -> None:
        """One step is done."""
        self._sentences += num_sentences
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
            self._counts[name] = self._counts.get(name, 0) + 1  # a side does not take every step
            if self._writer is not None:
                self._writer.add_scalar(f"loss/{name}", value, step)
        losses = ", ".join(f"{name} {value:.3f}" for name, value in values.items())
        self._done += 1
        self._line.tell(self._done, details=f"{losses}, {self._rate():.0f} sentences/s")

    def validation(self, epoch: int, values: dict[str, float]) -> None:
        """Held-out pairs were evaluated."""
        if self._writer is not None:
            for name, value in values.items():
                self._writer.add_scalar(f"held_out/{name}", value, epoch)
        losses = ", ".join(f"{name} {total / self._counts[name]:.3f}" for name, total in self._sums.items())
        self._console.print(
            f"epoch {epoch + 1}: {self._rate():.1f} sentences/s; held out: SumR {values['retrieval']:.1f}, "
            f"grounding {values['grounding']:.3f}; mean losses: {losses}",
            highlight=False,
        )

    def note(self, text: str) -> None:
        """One line in plain words."""
        self._console.print(text, markup=False, highlight=False)

    def _rate(self) -> float:
        return self._sentences / max(monotonic() - self._started, 1e-9)
