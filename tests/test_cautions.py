"""Warnings: once each, in one form."""

from __future__ import annotations

import logging

import pytest

from dciml.cautions import show_warnings, tell


def test_cautions_are_told_once_in_one_form(capsys: pytest.CaptureFixture[str]) -> None:
    show_warnings()
    show_warnings()
    try:
        assert tell(["this is odd", "that too", "this is odd"]) == ("this is odd", "that too")
        logging.getLogger("dciml.inputs").warning("a guess: %s", "latin-1")
    finally:
        (handler,) = logging.getLogger("dciml").handlers
        logging.getLogger("dciml").removeHandler(handler)
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.splitlines() == [
        f"dciml: warning: {text}" for text in ("this is odd", "that too", "a guess: latin-1")
    ]


def test_cautions_to_nobody_are_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    show_warnings()
    try:
        monkeypatch.setattr("sys.stderr", None)
        assert tell(["nobody reads it"]) == ("nobody reads it",)
    finally:
        logging.getLogger("dciml").handlers.clear()
