"""Titles that tell videos apart which are called alike: `a/clip` and `b/clip`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath


@dataclass(frozen=True)
class Named:
    """A video with its title, and its file if one is known."""

    video_id: str
    title: str
    file: PurePath | None

    @property
    def folders(self) -> tuple[str, ...]:
        """The names of the folders that it is in, the innermost first: of the file, else of an id with slashes."""
        path = PurePath(self.video_id) if self.file is None else self.file
        return tuple(part for part in reversed(path.parent.parts) if part != path.anchor)


def telling_titles(videos: Sequence[Named]) -> dict[str, str]:
    """For videos that share a title with another one, titles that no two share, by id.

    In front comes as much of its folders as tells a video from the others, else the file's suffix or the id behind.

    >>> films = [Named(f"{place}/a.mp4", "a", PurePath(f"/films/{place}/a.mp4")) for place in ("x/raw", "y/raw", "z")]
    >>> sorted(telling_titles([*films, Named("b", "b", None)]).values())
    ['x/raw/a', 'y/raw/a', 'z/a']
    """
    alike: dict[str, list[Named]] = {}
    for video in videos:
        alike.setdefault(video.title, []).append(video)
    found: dict[str, str] = {}
    taken = set(alike)
    for title, own in alike.items():
        if len(own) == 1:
            continue
        told_apart = _told_apart(title, own)
        for video, told in zip(own, told_apart, strict=True):
            is_free = told not in taken and told_apart.count(told) == 1
            found[video.video_id] = told if is_free else f"{title} ({video.video_id})"
            taken.add(found[video.video_id])
    return found


def _told_apart(title: str, own: Sequence[Named]) -> list[str]:
    deepest = max(len(video.folders) for video in own)
    ends = [
        Counter("/".join(reversed(video.folders[:depth])) for video in own) for depth in range(deepest + 1)
    ]
    told = []
    for video in own:
        depths = range(1, len(video.folders) + 1)
        ways = ("/".join(reversed(video.folders[:depth])) for depth in depths)
        way = next((way for depth, way in zip(depths, ways, strict=True) if ends[depth][way] == 1), None)
        if way is not None:
            told.append(f"{way}/{title}")
            continue
        front = f"{video.folders[0]}/" if video.folders and len(ends[1]) > 1 else ""
        told.append(f"{front}{title}{_suffix(video)}")
    return told


def _suffix(video: Named) -> str:
    return "" if video.file is None else video.file.suffix
