"""Work on files from clients, as a process of its own: a file that breaks a decoder breaks this process.

Such a process can be ended at any moment. Its standard input takes one JSON object, the order; each line of its
standard output is one: `{"progress": 0.5}`, and at last `{"done": true}` or `{"error": "a sentence"}`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any

from dciml.errors import DataError, DcimlError
from dciml.processes import limit_memory, share_of_memory
from dciml.service.troubles import MISTAKE, sentence_of, trouble_of

Tell = Callable[[dict[str, object]], None]


EndedBy = Callable[[Callable[[], None]], AbstractContextManager[None]]
"""Gets what ends the process; while its block runs, that may be called. As `JobQueue.ended_by`."""


def run_guarded(
    module: str, order: str, seconds: float, ended_by: EndedBy, on_progress: Callable[[float], None]
) -> str | None:
    """Let `python -m module` carry out an order.

    Args:
        order: JSON.
        seconds: then it is ended.
        on_progress: is told how far it is, 0 to 1.
    Returns: None when it is done, else a sentence that says what is wrong.
    """
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with (
        subprocess.Popen(
            [sys.executable, "-m", module], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
        ) as process,
        ended_by(process.kill),
        _killed_after(process, seconds),
    ):
        last = _follow(process, order, on_progress)
    if last.get("done"):
        return None
    return str(last.get("error", "The video could not be read, or it took too long."))


def _follow(
    process: subprocess.Popen[bytes], order: str, on_progress: Callable[[float], None]
) -> dict[str, Any]:
    """Give the order and take what is said, to the last word."""
    assert process.stdin is not None
    assert process.stdout is not None
    last: dict[str, Any] = {}
    with suppress(BrokenPipeError):  # it ended before it read the order; then its last word is missing
        process.stdin.write(order.encode())
        process.stdin.close()
    for line in process.stdout:
        last = json.loads(line)
        if "progress" in last:
            on_progress(float(last["progress"]))
    return last


@contextmanager
def _killed_after(process: subprocess.Popen[bytes], seconds: float) -> Iterator[None]:
    timer = threading.Timer(seconds, process.kill)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def carry_out(work: Callable[[str, Tell], None], memory_bytes: int | None = None) -> None:
    """The other side: read the order, do the work, and say how it went.

    Args:
        work: gets the order and a way to tell how far it is.
        memory_bytes: what it may take; None: a share of the machine's.
    """
    os.nice(10)  # people who search come first
    with os.fdopen(os.dup(1), "w") as channel:
        os.dup2(2, 1)  # what libraries print must not be taken for a word to the server

        def tell(message: dict[str, object]) -> None:
            print(json.dumps(message), file=channel, flush=True)

        limit_memory(memory_bytes or share_of_memory(1))
        try:
            work(sys.stdin.read(), tell)
        except MemoryError:
            tell(
                {"error": sentence_of(DataError("reading it needs too much memory", mend="convert the file"))}
            )
        except DcimlError as error:
            trouble = trouble_of(error)
            tell({"error": trouble.sentence if trouble else sentence_of(error)})
        except BrokenPipeError:  # the server is gone
            return
        except OSError as error:
            trouble = trouble_of(error)
            tell({"error": trouble.sentence if trouble else MISTAKE})
        else:
            tell({"done": True})
