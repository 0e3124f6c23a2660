"""The command line: arguments and printing only. Heavy imports happen inside the commands."""

from __future__ import annotations

import signal
import sys
from types import FrameType


def main() -> None:
    """Run the `dciml` command; errors that a user can act on are printed without a traceback."""
    from dciml.cli.app import app
    from dciml.errors import DcimlError

    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
            signal.signal(number, _end)
    try:
        app()
    except DcimlError as error:
        print(f"dciml: {error}", file=sys.stderr)
        raise SystemExit(1) from None


def _end(number: int, _: FrameType | None) -> None:
    """End as Ctrl-C does: what is half written is removed on the way out."""
    raise SystemExit(128 + number)
