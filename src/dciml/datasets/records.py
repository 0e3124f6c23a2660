"""The one record form: JSON lines, one query a line; how fields are read, and what a true moment may be.

Every error names the file, the line and the field.

    {"query_id": "q1", "video_id": "v1", "sentence": "a dog runs", "duration": 30.5, "moments": [[1.0, 4.5]]}

`duration` (seconds) and `moments` (start and end in seconds) may be absent; training needs neither.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from dciml.errors import DataError, Where
from dciml.files import read_text, write_json_lines
from dciml.strict import parse_json
from dciml.types import Query, TrainingPair

PastEnd = Literal["clip", "refuse"]
BadMoments = Literal["refuse", "drop"]


@dataclass
class MomentRules:
    """Checks moments and counts what it had to change.

    Args:
        past_end: a moment that ends after its video is clipped to the video's end, or is an error.
        bad_moments: a moment that cannot be true (its end not after its start, or wholly outside the video)
            is an error, or is dropped while its sentence stays. Published training files hold a few of them.
    """

    past_end: PastEnd = "clip"
    bad_moments: BadMoments = "refuse"
    num_clipped: int = field(default=0, init=False)
    num_dropped: int = field(default=0, init=False)

    def check(
        self, start: float, end: float, duration_seconds: float | None, where: Where
    ) -> tuple[float, float] | None:
        """The moment as it is to be used, in seconds; None when it is dropped.

        Args:
            duration_seconds: of the video; None when it is not known, and then no end is checked against it.
        Raises:
            DataError: not finite, a negative start, or what the rules refuse.

        >>> MomentRules().check(2.0, 12.0, 10.0, Where("a.jsonl", 1))
        (2.0, 10.0)
        """
        if not (math.isfinite(start) and math.isfinite(end)):
            raise DataError(f"the moment [{start}, {end}] is not finite", where=where, mend="give seconds")
        if start < 0:
            raise DataError(
                f"the moment starts before the video, at {start} s", where=where, mend="start at 0 or later"
            )
        if end <= start:
            word = "before" if end < start else "at"
            self._refuse_or_drop(f"the moment ends {word} its start ({start} to {end} s)", where)
            return None
        if duration_seconds is None or end <= duration_seconds:
            return start, end
        if start >= duration_seconds:
            what = f"the moment ({start} to {end} s) lies wholly outside the video of {duration_seconds} s"
            self._refuse_or_drop(what, where)
            return None
        if self.past_end == "refuse":
            raise DataError(
                f"the moment ends at {end} s, after the end of the video at {duration_seconds} s",
                where=where,
                mend="correct the end, or clip it to the video with --past-end clip",
            )
        self.num_clipped += 1
        return start, duration_seconds

    def _refuse_or_drop(self, what: str, where: Where) -> None:
        if self.bad_moments == "refuse":
            mend = "correct or remove it, or keep only the sentence with --bad-moments drop"
            raise DataError(what, where=where, mend=mend)
        self.num_dropped += 1


Row = dict[str, Any]
_WORD = re.compile(r"[^\W_]")


def read_rows(path: Path) -> Iterator[tuple[int, Row]]:
    """Yield (line number, object) for each line that is not blank.

    Raises:
        DataError: the file is missing or empty, or a line is not a JSON object.
    """
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        row = parse_json(line, Where(path, number))
        if not isinstance(row, dict):
            raise DataError("the line is not a JSON object", where=Where(path, number), mend='write {"…": …}')
        yield number, row


def check_names(row: Row, known: Collection[str], where: Where) -> None:
    """Refuse unknown fields: a misspelt `moments` must not silently vanish."""
    for name in row:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            mend = (
                f"write {near[0]!r}"
                if near
                else f"remove it; the known fields are {', '.join(sorted(known))}"
            )
            raise DataError("the field is unknown", where=Where(where.path, where.line, name), mend=mend)


def text_field(row: Row, name: str, where: Where) -> str:
    """A field that must be there and must be a string that is not blank."""
    place = Where(where.path, where.line, name)
    value = _present(row, name, place)
    if not isinstance(value, str):
        raise DataError(f"this must be a string, not {_kind(value)}", where=place, mend="put it in quotes")
    if not value.strip():
        raise DataError(f"the {name} is empty", where=place, mend=f"write the {name}, or remove the line")
    return value


def number_field(row: Row, name: str, where: Where) -> float:
    """A field that must be there and must be a finite number."""
    place = Where(where.path, where.line, name)
    return as_number(_present(row, name, place), place)


def positive_field(row: Row, name: str, where: Where) -> float:
    """A field that must be there and must be a number above 0."""
    value = number_field(row, name, where)
    if value <= 0:
        place = Where(where.path, where.line, name)
        raise DataError(f"{value} is not a positive number", where=place, mend="give seconds, above 0")
    return value


def as_number(value: object, place: Where) -> float:
    """A JSON value as a finite number. Raises DataError for anything else, true and false included."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise DataError(f"this must be a number, not {_kind(value)}", where=place, mend="give a number")
    if not math.isfinite(value):
        raise DataError(
            f"the number is {value}", where=place, mend="give a finite number, or remove the field"
        )
    return float(value)


def check_sentence(sentence: str, place: Where) -> str:
    """A sentence without the blanks around it. Raises DataError for one that is empty or holds no word.

    >>> check_sentence(" A dog runs. ", Where("a.jsonl", 1, "sentence"))
    'A dog runs.'
    """
    if not sentence.strip():
        raise DataError("the sentence is empty", where=place, mend="write a sentence, or remove the query")
    if _WORD.search(sentence) is None:
        raise DataError(
            f"the sentence {sentence.strip()!r} has no word", where=place, mend="write a sentence with words"
        )
    return sentence.strip()


def _present(row: Row, name: str, place: Where) -> object:
    if name not in row:
        raise DataError("the field is missing", where=place, mend=f"add {name!r} to the line")
    value: object = row[name]
    return value


def _kind(value: object) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


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
