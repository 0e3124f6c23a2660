"""The one record form: JSON lines, one query a line.

    {"query_id": "q1", "video_id": "v1", "sentence": "a dog runs", "duration": 30.5, "moments": [[1.0, 4.5]]}

`duration` (seconds) and `moments` (start and end in seconds) may be absent; training needs neither.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from dciml.datasets.fields import (
    Row,
    as_number,
    check_names,
    check_sentence,
    positive_field,
    read_rows,
    text_field,
)
from dciml.datasets.moments import BadMoments, MomentRules, PastEnd
from dciml.errors import DataError, Where
from dciml.files import write_json_lines
from dciml.types import Query, TrainingPair

FIELDS = ("query_id", "video_id", "sentence", "duration", "moments")


@dataclass(frozen=True)
class QueryFile:
    """What a reader found: the queries, and how many moments it clipped or dropped as impossible.

    `durations` holds the seconds of each video, as far as the file states what the reader was not told;
    `lines` holds the line of each query id, where the form has lines.
    """

    queries: tuple[Query, ...]
    num_clipped: int = 0
    num_dropped_moments: int = 0
    durations: Mapping[str, float] = field(default_factory=dict)
    lines: Mapping[str, int] = field(default_factory=dict)

    def renamed(self, names: Mapping[str, str]) -> QueryFile:
        """The same with other names for some videos; a video that has two names by now keeps its longer duration."""
        queries = tuple(replace(q, video_id=names.get(q.video_id, q.video_id)) for q in self.queries)
        durations: dict[str, float] = {}
        for video_id, seconds in self.durations.items():
            name = names.get(video_id, video_id)
            durations[name] = max(seconds, durations.get(name, seconds))
        return replace(self, queries=queries, durations=durations)


def read_queries(
    path: str | Path,
    durations: Mapping[str, float] | None = None,
    past_end: PastEnd = "clip",
    bad_moments: BadMoments = "refuse",
) -> QueryFile:
    """Read queries with their moments, for evaluation and import.

    Args:
        path: JSON lines.
        durations: seconds of each video; where it is silent, the line's own `duration` counts.
        past_end: moments that end after their video are clipped and counted, or refused.
        bad_moments: moments that cannot be true are refused, or dropped and counted (the sentence stays).
    Raises:
        DataError: something is not as it must be; the message names file, line, field and mend.
    """
    path, rules = Path(path), MomentRules(past_end, bad_moments)
    queries: list[Query] = []
    stated: dict[str, float] = {}
    lines: dict[str, int] = {}
    for pair, row, where in _read_pairs(path, lines):
        duration = _duration(row, pair.video_id, durations or {}, stated, where)
        queries.append(
            Query(pair.query_id, pair.video_id, pair.sentence, _moments(row, duration, rules, where))
        )
    return QueryFile(tuple(queries), rules.num_clipped, rules.num_dropped, stated, lines)


def read_pairs(path: str | Path) -> tuple[TrainingPair, ...]:
    """Read what training may see: (video, sentence) pairs; moments and durations are not looked at.

    Raises:
        DataError: as `read_queries`, for the fields that it reads.
    """
    return tuple(pair for pair, _, _ in _read_pairs(Path(path), {}))


def line_of_query(path: Path, query_id: str) -> int | None:
    """The line of a query in a file of records, for an error message; None when it is not there."""
    return next((number for number, row in read_rows(path) if row.get("query_id") == query_id), None)


def write_queries(path: str | Path, queries: Iterable[Query], durations: Mapping[str, float]) -> None:
    """Write queries as records, atomically. Durations that are not known are left out."""
    write_json_lines(Path(path), (_to_row(query, durations) for query in queries))


def _to_row(query: Query, durations: Mapping[str, float]) -> dict[str, Any]:
    row: dict[str, Any] = {"query_id": query.query_id, "video_id": query.video_id, "sentence": query.sentence}
    if query.video_id in durations:
        row["duration"] = durations[query.video_id]
    if query.moments:
        row["moments"] = [list(moment) for moment in query.moments]
    return row


def _read_pairs(path: Path, line_of: dict[str, int]) -> Iterable[tuple[TrainingPair, Row, Where]]:
    for number, row in read_rows(path):
        where = Where(path, number)
        check_names(row, FIELDS, where)
        pair = TrainingPair(
            query_id=text_field(row, "query_id", where),
            video_id=text_field(row, "video_id", where),
            sentence=check_sentence(text_field(row, "sentence", where), Where(path, number, "sentence")),
        )
        if pair.query_id in line_of:
            raise DataError(
                f"the query id {pair.query_id!r} is already that of line {line_of[pair.query_id]}",
                where=Where(path, number, "query_id"),
                mend="give each query an id of its own",
            )
        line_of[pair.query_id] = number
        yield pair, row, where


def _duration(
    row: Row, video_id: str, known: Mapping[str, float], stated: dict[str, float], where: Where
) -> float | None:
    own = positive_field(row, "duration", where) if "duration" in row else None
    if own is None:
        return known.get(video_id, stated.get(video_id))
    before = known[video_id] if video_id in known else stated.setdefault(video_id, own)
    if not same_duration(own, before):
        raise DataError(
            f"the video {video_id!r} lasts {own} s here and {before} s elsewhere",
            where=Where(where.path, where.line, "duration"),
            mend="give the video one duration",
        )
    return before


def same_duration(one_seconds: float, other_seconds: float) -> bool:
    """Whether two statements of a video's length agree as well as tools that measure it do: to 1 s or 2 %.

    >>> same_duration(30.0, 30.5), same_duration(30.0, 45.0)
    (True, False)
    """
    return abs(one_seconds - other_seconds) <= max(1.0, 0.02 * max(one_seconds, other_seconds))


def _moments(
    row: Row, duration: float | None, rules: MomentRules, where: Where
) -> tuple[tuple[float, float], ...]:
    place = Where(where.path, where.line, "moments")
    raw = row.get("moments", [])
    if not isinstance(raw, list):
        raise DataError(
            "this must be a list of [start, end]", where=place, mend="write [[start, end], …] in seconds"
        )
    moments: list[tuple[float, float]] = []
    for item in raw:
        if not isinstance(item, list) or len(item) != 2:
            raise DataError(
                f"{item!r} is not [start, end]", where=place, mend="write [[start, end], …] in seconds"
            )
        moment = rules.check(as_number(item[0], place), as_number(item[1], place), duration, place)
        if moment is not None:
            moments.append(moment)
    return tuple(moments)
