"""The command line: arguments and printing only. Heavy imports happen inside the commands."""

from __future__ import annotations

import os
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
    except _Ended as ended:
        # Now that all is tidy: who started this command is to see what it died of.
        signal.signal(ended.number, signal.SIG_DFL)
        os.kill(os.getpid(), ended.number)


class _Ended(SystemExit):
    """SIGTERM or SIGHUP came."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.number = number


def _end(number: int, _: FrameType | None) -> None:
    """End as Ctrl-C does: what is half written is removed on the way out."""
    raise _Ended(number)
