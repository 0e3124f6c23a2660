"""The captions of the PRVR releases (`TextData/…train.caption.txt`), and where their moments come from.

A line is `VIDEO#enc#NUMBER CAPTION`. The release holds neither moments nor lengths of videos; both come from the
data set's own annotations, where the same sentence of the same video is looked up.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dciml.datasets.records import QueryFile, check_sentence
from dciml.errors import DataError, Where
from dciml.features import tokenize
from dciml.files import read_foreign_text
from dciml.types import Query

_FORM = "write the line as: VIDEO#enc#NUMBER CAPTION"
Key = tuple[str, tuple[str, ...]]


@dataclass
class Annotated:
    """Moments by video and words of the sentence, and lengths of videos, from annotation files of any form.

    The same sentence may describe several moments of a video; its captions take them in turn.
    """

    moments: dict[Key, list[tuple[tuple[float, float], ...]]] = field(default_factory=dict)
    durations: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, files: Iterable[QueryFile]) -> Annotated:
        """All queries of some files."""
        found = cls()
        for file in files:
            found.durations.update(file.durations)
            for query in file.queries:
                key = (query.video_id, tokenize(query.sentence))
                found.moments.setdefault(key, []).append(query.moments)
        return found

    def __len__(self) -> int:
        return sum(map(len, self.moments.values()))


def read_prvr_captions(path: str | Path, annotated: Annotated | None = None) -> QueryFile:
    """Read a caption file; a query's id is that of the release, `VIDEO#enc#NUMBER`.

    Args:
        annotated: gives moments and lengths; a caption that it does not hold has no moment.
    Raises:
        DataError: a malformed line, or an id that comes twice; the message names the line.
    """
    path, annotated = Path(path), annotated or Annotated()
    queries: list[Query] = []
    lines: dict[str, int] = {}
    used: dict[Key, int] = {}
    for number, line in enumerate(read_foreign_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        where = Where(path, number)
        query_id, _, caption = line.strip().partition(" ")
        video_id, mark, _ = query_id.partition("#")
        if not (video_id and mark):
            raise DataError("the line is malformed", where=where, mend=_FORM)
        if query_id in lines:
            what = f"the caption id {query_id!r} is already that of line {lines[query_id]}"
            raise DataError(what, where=where, mend="remove one of the lines")
        sentence = check_sentence(caption, Where(path, number, "caption"))
        lines[query_id] = number
        queries.append(
            Query(query_id, video_id, sentence, _next(annotated.moments, video_id, sentence, used))
        )
    videos = {query.video_id for query in queries}
    durations = {video: seconds for video, seconds in annotated.durations.items() if video in videos}
    return QueryFile(tuple(queries), durations=durations, lines=lines)


def _next(
    moments: Mapping[Key, list[tuple[tuple[float, float], ...]]],
    video_id: str,
    sentence: str,
    used: dict[Key, int],
) -> tuple[tuple[float, float], ...]:
    key = (video_id, tokenize(sentence))
    found = moments.get(key)
    if not found:
        return ()
    turn = used.get(key, 0)
    used[key] = turn + 1
    return found[min(turn, len(found) - 1)]
