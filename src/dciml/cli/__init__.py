"""The command line: arguments and printing only. Heavy imports happen inside the commands."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the `dciml` command; errors that a user can act on are printed without a traceback."""
    from dciml.cli.app import app
    from dciml.errors import DcimlError

    try:
        app()
    except DcimlError as error:
        print(f"dciml: {error}", file=sys.stderr)
        raise SystemExit(1) from None
