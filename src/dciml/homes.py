"""Homes of folders of videos, as commands that read an index know them: which home is meant, and which index is in use.

`dciml.recipes.home` makes and updates homes.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dciml.cautions import tell
from dciml.errors import DataError
from dciml.files import read_json
from dciml.folders import HOME_FILE as HOME_FILE
from dciml.folders import kind_of
from dciml.index import CATALOGUE_FILE

HOME_SUFFIX = ".dciml"
TAUGHT_FILE = "taught.json"
TAUGHT_NAME = re.compile(r"taught-[0-9]{1,9}")


def is_home(path: Path) -> bool:
    """Whether a folder is a home."""
    return os.path.isfile(
        path / HOME_FILE
    )  # says no to names that no file system takes, where `is_file` raises


def place_beside(path: Path) -> Path | None:
    """Where the home of a folder of videos is where nothing else was said; None: the folder is a whole disk.

    >>> place_beside(Path("/films/")), place_beside(Path("/"))
    (PosixPath('/films.dciml'), None)
    """
    whole = Path(os.path.abspath(path))
    return None if whole == Path(whole.anchor) else whole.with_name(whole.name + HOME_SUFFIX)


def read_home_file(home: Path) -> dict[str, Any]:
    """What a home's file says, with `folders` and `encoders`, lists of strings that are not empty.

    Raises:
        DataError: damaged, or of another version.
    """
    found = read_json(home / HOME_FILE)
    if (
        isinstance(found, dict)
        and (found.get("format"), found.get("format_version")) == ("dciml home", 1)
        and all(_are_strings(found.get(key)) for key in ("folders", "encoders"))
    ):
        return found
    raise DataError(
        "this does not describe a home of this version",
        where=home / HOME_FILE,
        mend="remove the home, and serve again",
    )


def _are_strings(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(each, str) for each in value)


@dataclass(frozen=True)
class Taught:
    """The taught model of a home: `folder` holds `model` and `index`, None where none is in use.

    `wrong` says why the one that is named cannot be used; the untrained one, which is always there, then answers.
    """

    folder: Path | None = None
    wrong: str = ""


def taught_folder(home: Path) -> Taught:
    """Which taught model of a home is in use, if any."""
    if not os.path.lexists(home / TAUGHT_FILE):
        return Taught()
    try:
        found = read_json(home / TAUGHT_FILE)
    except DataError as error:
        return Taught(wrong=f"{error} Until then the untrained model answers.")
    name = found.get("in_use") if isinstance(found, dict) else None
    if not isinstance(name, str) or not TAUGHT_NAME.fullmatch(name):
        what = "this does not name a taught model"
    elif not (home / name / "index" / CATALOGUE_FILE).is_file():
        what = f"{name}, the taught model that it names, is not there"
    else:
        return Taught(home / name)
    mend = f"bring it back, or teach again; `dciml teach {home} --undo` ends this"
    return Taught(
        wrong=str(DataError(f"{what}; the untrained one answers", where=home / TAUGHT_FILE, mend=mend))
    )


def home_meant(path: Path) -> Path | None:
    """The home that a path names: itself, or, of videos, the one beside them, which is told; None: neither."""
    if os.path.lexists(path / CATALOGUE_FILE):
        return None
    if is_home(path):
        return path
    if not os.path.exists(path) or kind_of(path):
        return None
    beside = place_beside(path)
    if beside is None or not is_home(beside):
        return None
    tell([f"{path} is no index; its home, {beside}, is taken"])
    return beside


def index_in_use(path: Path) -> Path:
    """The index to read where a path names one, a home, or videos with a home beside them.

    Returns: of a home, the index of its taught model where there is one, else the usual one; any other path as it is.
    Raises:
        DataError: the home is damaged, or has no index yet.
    """
    home = home_meant(path)
    if home is None:
        return path
    read_home_file(home)
    taught = taught_folder(home)
    index = (taught.folder or home) / "index"
    if not (index / CATALOGUE_FILE).is_file():
        raise DataError("the home has no index yet", where=home, mend=f"call `dciml serve {home}` once")
    if taught.wrong:
        tell([taught.wrong])
    return index


def refuse_home(path: Path, how: str) -> None:
    """Refuse to change the index of a home, which follows the home's folders.

    Args:
        how: it is done instead, with `{folders}` where the folders of the videos are to be named.
    Raises:
        DataError: a home is meant.
    """
    home = home_meant(path)
    if home is not None:
        folders = " or ".join(read_home_file(home)["folders"])
        what = f"this is the home of a folder of videos, whose index follows {folders}"
        raise DataError(what, where=home, mend=how.format(folders=folders, home=home))
