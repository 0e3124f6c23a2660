"""Whose a folder is: a command writes into one only if it is free, or if the command's own marker lies in it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from dciml.errors import DataError
from dciml.files import PART_SUFFIX

# The files of a model folder, which is also the folder of the run that trained it.
CARD_FILE = "model.json"
WEIGHTS_FILE = "model.safetensors"
SETTINGS_FILE = "config.yaml"
VOCABULARY_FILE = "vocabulary.json"
RUN_FILE = "run.json"
TRAINED_ON_FILE = "trained_on.safetensors"
CALIBRATION_FILE = "calibration.json"
CHECKPOINT_FILE = "checkpoint.safetensors"
HOME_FILE = "home.json"

MARKERS = {
    "data.json": "a data folder",
    "manifest.json": "a feature store",
    "catalogue.sqlite": "an index",
    CARD_FILE: "a model folder",
    "demo.json": "the demo's folder",
    "added.json": "the folder of videos that a server added",
    HOME_FILE: "the home of a folder of videos",
}
"""File → what a folder is that holds it."""
_HALF_WRITTEN = re.compile(
    r"\.(lock|tmp.{6}|(checkpoint|model)\.safetensors\..*|.*" + re.escape(PART_SUFFIX) + ")"
)
"""Locks, and what killed processes leave: of this program, of earlier versions, and of safetensors."""


def is_free(folder: Path) -> bool:
    """Whether there is nothing yet, but for locks and half-written files of this program."""
    if not folder.is_dir():
        return not folder.exists() and not folder.is_symlink()
    return all(_HALF_WRITTEN.fullmatch(entry.name) for entry in folder.iterdir())


def kind_of(folder: Path) -> str | None:
    """What a folder of this program is, in words; None: it is none."""
    return next((kind for name, kind in MARKERS.items() if (folder / name).is_file()), None)


def how_to_add(index: Path) -> str:
    """How a video comes into an index, for people: into that of a home by its file."""
    is_of_home = any((place / HOME_FILE).is_file() for place in (index.parent, index.parent.parent))
    return (
        "save it in a folder of videos that `dciml serve` reads here"
        if is_of_home
        else "add it with `dciml index-add`"
    )


def refuse_foreign(folder: Path, marker: str) -> None:
    """Refuse a folder that is neither free nor one's own, before anything is done to it.

    Args:
        marker: the file, a key of `MARKERS`, by which one's own folder is known. Its content the caller checks.
    Raises:
        DataError: the folder holds something else; the message says what, where it can be told.
    """
    if is_free(folder) or (folder / marker).is_file():
        return
    mend = "name another folder, or an empty one"
    if not folder.is_dir():
        what = "this is a file" if folder.exists() else "this is a link that leads nowhere"
        raise DataError(f"{what}, not a folder", where=folder, mend=mend)
    kind = kind_of(folder)
    holds = f"it is {kind}" if kind else f"it holds other things, such as {min(folder.iterdir()).name!r}"
    raise DataError(f"this is not {MARKERS[marker]}: {holds}", where=folder, mend=mend)


def refuse_foreign_file(path: Path, what: str, is_own: Callable[[Path], bool]) -> None:
    """Refuse to write a file over another one, unless that is empty or of the same kind, before any work is done.

    Args:
        what: the kind, in words: "a report".
        is_own: whether a file, which is a regular one, is of that kind; may raise DataError where it is not.
    Raises:
        DataError: there is something else.
    """
    if not path.exists() and not path.is_symlink():
        return
    try:
        if path.is_file() and (not path.stat().st_size or is_own(path)):
            return
    except DataError:
        pass
    raise DataError(f"this is not {what}, and would be lost", where=path, mend="name another file")
