"""Names and places of videos that clients add: nothing that a client sends is used as a path."""

from __future__ import annotations

import itertools
import os
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from dciml.errors import DataError
from dciml.service.errors import ServiceError, shortened
from dciml.service.files import MEDIA_TYPES

MAX_NAME_CHARS = 100
MAX_NAME_BYTES = 180  # a file may have 255: the rest is for a number, the suffix, ends of temporary names
PUNCTUATION = frozenset(" .()+-_")
MEND = "add a video file, such as MP4, WebM, MKV or MOV"


def split_name(file_name: str) -> tuple[str, str]:
    """A safe stem and the suffix of a client's file name.

    Raises:
        ServiceError: 422, the suffix is not that of a video.

    >>> split_name("../../etc/Süßes <b>.MP4"), split_name("C:\\\\films\\\\a.b.webm"), split_name("..mp4")
    (('Süßes _b_', '.mp4'), ('a.b', '.webm'), ('video', '.mp4'))
    """
    name = unicodedata.normalize("NFC", file_name).replace("\\", "/").rpartition("/")[2]
    stem, suffix = os.path.splitext(name)
    if stem.startswith(".") and not suffix:
        stem, suffix = "", stem[stem.rfind(".") :]
    if suffix.lower() not in MEDIA_TYPES:
        raise ServiceError(
            422, f"{shortened(name, 80)!r} does not have the name of a video file. To mend it: {MEND}."
        )
    return _cut(_safe(stem).strip(" .")).strip(" .") or "video", suffix.lower()


def _safe(stem: str) -> str:
    """Letters, their marks, numbers and some signs as they are; an underline for each run of others."""
    runs = itertools.groupby(
        stem, lambda letter: letter in PUNCTUATION or unicodedata.category(letter)[0] in "LMN"
    )
    return "".join("".join(run) if is_safe else "_" for is_safe, run in runs)


def _cut(stem: str) -> str:
    """As many whole characters as fit into both limits.

    >>> len(_cut("映" * 90)), len(_cut("a" * 300))
    (60, 100)
    """
    return stem[:MAX_NAME_CHARS].encode()[:MAX_NAME_BYTES].decode(errors="ignore")


def free_id(wanted: str, taken: Iterable[object]) -> str:
    """The wanted id, or with a number behind it the first that is not taken.

    >>> free_id("a", ["b"]), free_id("a", ["a", "a-2"])
    ('a', 'a-3')
    """
    taken = {unicodedata.normalize("NFC", str(name)) for name in taken}
    number, video_id = 1, wanted
    while video_id in taken:
        number += 1
        video_id = f"{wanted}-{number}"
    return video_id


def find_below_roots(path: str, roots: Iterable[Path]) -> tuple[Path, str]:
    """The real file that a client names, and its path below its root without the suffix, which becomes its id.

    Args:
        path: absolute, or relative to one of `roots`.
    Raises:
        ServiceError: 403, not below a root, also when it only leads elsewhere through links; 404, no such file;
            422, not the name of a video.
    """
    refused = ServiceError(403, "The path is not below a folder from which this server may add videos.")
    if "\0" in path:
        raise refused
    is_below = False
    for root in (root.resolve() for root in roots):
        named = Path(os.path.normpath(root / path))
        if not named.is_relative_to(root):
            continue
        is_below = True
        try:
            real = named.resolve(strict=True)
        except (OSError, RuntimeError, ValueError):
            continue
        if not real.is_relative_to(root):
            raise refused
        if real.is_file():
            split_name(real.name)
            video_id = real.relative_to(root).with_suffix("").as_posix()
            return real, unicodedata.normalize("NFC", video_id)
    raise ServiceError(404, "There is no such file.") if is_below else refused


def check_looks_like_video(file: Path) -> None:
    """Refuse what is not one of the known containers, before a decoder sees it.

    Playlists and scripts, which a decoder would follow to other files and addresses, are refused by this.

    Raises:
        DataError: not a video file.
    """
    with file.open("rb") as opened:
        head = opened.read(192)
    known = (
        head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")
        or head.startswith((b"\x1aE\xdf\xa3", b"OggS", b"\x00\x00\x01\xba", b"\x00\x00\x01\xb3"))
        or (head[:4] == b"RIFF" and head[8:12] == b"AVI ")
        or (len(head) > 188 and head[0] == head[188] == 0x47)
    )
    if not known:
        raise DataError("this is not a video file", mend=MEND)
