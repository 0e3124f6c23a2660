"""Warnings that protect a result: told once, in one form, and kept by the caller with the result."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable

_LOG = logging.getLogger("dciml")


def tell(cautions: Iterable[str]) -> tuple[str, ...]:
    """Log each sentence as a warning, once; the command line prints it on standard error. Returns what was told."""
    told = tuple(dict.fromkeys(cautions))
    for sentence in told:
        _LOG.warning("%s", sentence)
    return told


def show_warnings() -> None:
    """Let all warnings of dciml appear on standard error as `dciml: warning: …`; for the command line."""
    if not any(isinstance(handler, _OnStandardError) for handler in _LOG.handlers):
        _LOG.addHandler(_OnStandardError())


class _OnStandardError(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        if sys.stderr is None:
            return  # it is closed, and what is printed would go to standard output
        try:
            print(f"dciml: {record.levelname.lower()}: {self.format(record)}", file=sys.stderr)
        except (OSError, ValueError):
            return  # nobody reads it any more
