"""The command line: arguments and printing only. Heavy imports happen inside the commands.

Exit status: 0; 1 for an error explained in a sentence; 2 for a wrong call; 70 for a fault of this program, whose
details are in a file that the message names; 130 after Ctrl-C. TERM and HUP end a command by that signal once it has
tidied up.
"""

from __future__ import annotations

import io
import os
import signal
import sys
import tempfile
import traceback
from contextlib import suppress
from pathlib import Path
from types import FrameType

from dciml.errors import DataError

RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK")
"""Libraries read these while they are loaded."""


def main() -> None:
    """Run the `dciml` command; errors are printed in a sentence, with a traceback only where DCIML_TRACEBACK is set."""
    try:
        _prepare()
        from dciml.cli.app import app

        app()
    except Exception as error:
        raise SystemExit(_tell(error)) from None
    except KeyboardInterrupt:  # while the program was being loaded; later the library of the commands has it
        raise SystemExit(130) from None
    except _Ended as ended:
        # Now that all is tidy: who started this command is to see what it died of.
        signal.signal(ended.number, signal.SIG_DFL)
        os.kill(os.getpid(), ended.number)


def _prepare() -> None:
    """What holds for every command: how signals end it, how it prints, and that it is somewhere."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
            signal.signal(number, _end)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Letters that a terminal does not have, and names that are not UTF-8, are no reason to print nothing.
        sys.stdout.reconfigure(errors="backslashreplace")
    for name in RANKS:
        if not os.environ.get(name, "0").isdecimal():
            what = f"the environment variable {name} is {os.environ[name]!r}, not the number of a process"
            raise DataError(what, mend="unset it")
    try:
        Path.cwd()
    except OSError:
        mend = "go to another one (cd), and call it again"
        raise DataError("the folder that you are in is gone", mend=mend) from None


def _tell(error: Exception) -> int:
    """Print an error; returns the exit status."""
    from dciml.explain import explained

    if os.environ.get("DCIML_TRACEBACK"):
        traceback.print_exception(error)
    known = explained(error)
    if known is not None:
        _say(f"dciml: {known}")
        return 1
    what = f"a fault of dciml ({type(error).__name__}: {error})".replace("\n", " ")
    _say(f"dciml: {what}. To mend it: {_reported(error)}")
    return 70


def _say(sentence: str) -> None:
    """On standard error, if there is one that takes it: where it is closed, a file of the user may have its place."""
    if sys.stderr is not None:
        with suppress(OSError):
            print(sentence, file=sys.stderr, flush=True)


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
