"""Trains and compares a model for a home, as a process of its own: `python -m dciml.service.teach_worker`.

Training takes all that a process has: random states, threads, signals. Standard input takes one JSON object (see
`TeachOrder`); each line of standard output is one: `{"progress": 0.5, "doing": "training"}`, and at last
`{"verdict": …}` or `{"error": "a sentence"}`.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from dciml.errors import DataError, DcimlError
from dciml.recipes.home import read_home
from dciml.recipes.teach import attempt
from dciml.service.troubles import MISTAKE, sentence_of, trouble_of


@dataclass(frozen=True)
class TeachOrder:
    """What to do: train a model for the home `home` in the empty folder `folder` of it, and compare it."""

    home: str
    folder: str
    device: str

    def to_json(self) -> str:
        """As standard input takes it."""
        return json.dumps(asdict(self))


def main() -> None:
    """Read the order, carry it out, and say how it went."""
    os.nice(10)  # people who search come first
    with os.fdopen(os.dup(1), "w") as channel:
        os.dup2(2, 1)  # what libraries print must not be taken for a word to the server

        def say(message: dict[str, object]) -> None:
            print(json.dumps(message), file=channel, flush=True)

        order = TeachOrder(**json.loads(sys.stdin.read()))
        try:
            verdict = attempt(
                read_home(Path(order.home), order.device),
                Path(order.folder),
                tell=lambda share, doing: say({"progress": round(share, 3), "doing": doing}),
            )
        except MemoryError:
            say(
                {"error": sentence_of(DataError("teaching needs too much memory", mend="end other programs"))}
            )
        except DcimlError as error:
            trouble = trouble_of(error)
            say({"error": trouble.sentence if trouble else sentence_of(error)})
        except BrokenPipeError:
            pass  # the server is gone
        except OSError as error:
            trouble = trouble_of(error)
            say({"error": trouble.sentence if trouble else MISTAKE})
        else:
            say({"verdict": verdict.to_json()})


if __name__ == "__main__":
    main()
