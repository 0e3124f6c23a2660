"""The command line: arguments and printing only. Heavy imports happen inside the commands.

Exit status: 0; 1 for an error that is told in a sentence; 2 for a wrong call; 70 for a fault of this program, whose
details are in a file that the message names; 130 after Ctrl-C. TERM and HUP end a command by that signal once it has
tidied up.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import traceback
from types import FrameType


def main() -> None:
    """Run the `dciml` command; errors are printed in a sentence, with a traceback only where DCIML_TRACEBACK is set."""
    from dciml.cli.app import app

    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
            signal.signal(number, _end)
    try:
        app()
    except Exception as error:
        raise SystemExit(_tell(error)) from None
    except _Ended as ended:
        # Now that all is tidy: who started this command is to see what it died of.
        signal.signal(ended.number, signal.SIG_DFL)
        os.kill(os.getpid(), ended.number)


def _tell(error: Exception) -> int:
    """Print an error; returns the exit status."""
    from dciml.explain import explained

    if os.environ.get("DCIML_TRACEBACK"):
        traceback.print_exception(error)
    known = explained(error)
    if known is not None:
        print(f"dciml: {known}", file=sys.stderr)
        return 1
    what = f"a fault of dciml ({type(error).__name__}: {error})".replace("\n", " ")
    print(f"dciml: {what}. To mend it: {_reported(error)}", file=sys.stderr)
    return 70


def _reported(error: Exception) -> str:
    """Write the details into a file, if that can be; returns what to do about it."""
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="dciml-", suffix=".txt", delete=False, encoding="utf-8", errors="backslashreplace"
        ) as file:
            file.write(f"dciml {' '.join(sys.argv[1:2])}\n")  # no more: a token may follow
            file.writelines(traceback.format_exception(error))
        return f"report it, with the details in {file.name}."
    except OSError:
        return "report it, with what DCIML_TRACEBACK=1 shows."


class _Ended(SystemExit):
    """SIGTERM or SIGHUP came."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.number = number


def _end(number: int, _: FrameType | None) -> None:
    """End as Ctrl-C does: what is half written is removed on the way out."""
    raise _Ended(number)
