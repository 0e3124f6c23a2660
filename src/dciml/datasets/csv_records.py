"""A table of one's own: CSV or TSV with a line a sentence.

    video,sentence,start,end
    kitchen.mp4,a man opens the fridge,12.5,18

Only `video` and `sentence` are needed. `start` and `end` (seconds, or 1:02:03.5) give a true moment for evaluation;
`duration` (of the video) and `query_id` may be there too. Comma, semicolon or tab separate.
"""

from __future__ import annotations

import csv
import difflib
import io
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from dciml.datasets.records import BadMoments, MomentRules, PastEnd, QueryFile, check_sentence, same_duration
from dciml.errors import DataError, Where
from dciml.files import read_foreign_text
from dciml.types import Query

TABLE_SUFFIXES = (".csv", ".tsv")
COLUMNS = ("video", "sentence", "start", "end", "duration", "query_id")
_SECONDS = re.compile(r"(?:(\d+):)?(?:(\d+):)?(\d+(?:\.\d*)?|\.\d+)")


def read_csv_queries(
    path: str | Path,
    durations: Mapping[str, float] | None = None,
    past_end: PastEnd = "clip",
    bad_moments: BadMoments = "refuse",
) -> QueryFile:
    """Read a table of sentences. Without a column `query_id` a query's id is `<file's stem>_<line>`.

    Args:
        durations: seconds of each video; where it is silent, the column `duration` counts.
        past_end, bad_moments: as for `read_queries`.
    Raises:
        DataError: a column is missing or unknown, or a cell is not as it must be; the message names line and column.
    """
    path, rules = Path(path), MomentRules(past_end, bad_moments)
    queries: list[Query] = []
    stated: dict[str, float] = {}
    lines: dict[str, int] = {}
    for number, row in _rows(path):
        video_id = _cell(row, "video", Where(path, number, "video"))
        sentence = check_sentence(row["sentence"], Where(path, number, "sentence"))
        duration = _duration(row, video_id, durations or {}, stated, Where(path, number, "duration"))
        query_id = row.get("query_id", "") or f"{path.stem}_{number}"
        if query_id in lines:
            what = f"the query id {query_id!r} is already that of line {lines[query_id]}"
            raise DataError(
                what, where=Where(path, number, "query_id"), mend="give each line an id of its own"
            )
        lines[query_id] = number
        queries.append(
            Query(query_id, video_id, sentence, _moments(row, duration, rules, Where(path, number)))
        )
    if not queries:
        raise DataError("the table has no line below its header", where=path, mend="write a line a sentence")
    return QueryFile(tuple(queries), rules.num_clipped, rules.num_dropped, stated, lines)


def _rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    text = read_foreign_text(path)
    header = text.lstrip().split("\n", 1)[0]
    delimiter = max("\t;,", key=header.count)
    table = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True, skipinitialspace=True)
    names: list[str] | None = None
    try:
        for cells in table:
            if not any(cell.strip() for cell in cells):
                continue
            if names is None:
                names = _columns([cell.strip().lower() for cell in cells], Where(path, table.line_num))
                continue
            if len(cells) != len(names):
                what = f"the line has {len(cells)} cells, the header has {len(names)}"
                mend = 'put a sentence with commas in quotes: "a man, a dog"'
                raise DataError(what, where=Where(path, table.line_num), mend=mend)
            yield table.line_num, {name: cell.strip() for name, cell in zip(names, cells, strict=True)}
    except csv.Error as error:
        raise DataError(
            f"the line is malformed ({error})", where=Where(path, table.line_num), mend="correct the quotes"
        ) from error


def _columns(names: list[str], where: Where) -> list[str]:
    for name in names:
        place = Where(where.path, where.line, name)
        if name not in COLUMNS:
            near = difflib.get_close_matches(name, COLUMNS, n=1)
            known = ", ".join(COLUMNS)
            mend = f"name it {near[0]!r}" if near else f"remove it; the known columns are {known}"
            raise DataError("the column is unknown", where=place, mend=mend)
        if names.count(name) > 1:
            raise DataError("the column comes twice", where=place, mend="remove one of them")
    for name in ("video", "sentence"):
        if name not in names:
            mend = f"the first line names the columns; add {name!r}"
            raise DataError("the column is missing", where=Where(where.path, where.line, name), mend=mend)
    if ("start" in names) != ("end" in names):
        mend = "give both start and end, or neither"
        raise DataError("of start and end one is missing", where=where, mend=mend)
    return names


def _cell(row: Mapping[str, str], name: str, place: Where) -> str:
    if not row[name]:
        raise DataError(f"the {name} is empty", where=place, mend=f"write the {name}, or remove the line")
    return row[name]


def _seconds(text: str, place: Where) -> float:
    match = _SECONDS.fullmatch(text)
    if match is None:
        raise DataError(f"{text!r} is not a time", where=place, mend="write seconds, 12.5, or 1:02:03.5")
    first, second, seconds = match.groups()
    hours, minutes = (first, second) if second is not None else (None, first)
    return int(hours or 0) * 3600 + int(minutes or 0) * 60 + float(seconds)


def _duration(
    row: Mapping[str, str], video_id: str, known: Mapping[str, float], stated: dict[str, float], place: Where
) -> float | None:
    text = row.get("duration", "")
    if not text:
        return known.get(video_id, stated.get(video_id))
    own = _seconds(text, place)
    if own <= 0:
        raise DataError("the duration is not above 0", where=place, mend="give the seconds of the video")
    before = known[video_id] if video_id in known else stated.setdefault(video_id, own)
    if not same_duration(own, before):
        what = f"the video {video_id!r} lasts {own} s here and {before} s elsewhere"
        raise DataError(what, where=place, mend="give the video one duration")
    return before


def _moments(
    row: Mapping[str, str], duration: float | None, rules: MomentRules, where: Where
) -> tuple[tuple[float, float], ...]:
    start, end = row.get("start", ""), row.get("end", "")
    if not start and not end:
        return ()
    places = [Where(where.path, where.line, name) for name in ("start", "end")]
    for cell, place in zip((start, end), places, strict=True):
        if not cell:
            raise DataError("the cell is empty", where=place, mend="give both start and end, or neither")
    moment = rules.check(_seconds(start, places[0]), _seconds(end, places[1]), duration, places[0])
    return () if moment is None else (moment,)
