"""Charades-STA as released: `charades_sta_{train,test}.txt`, and the Charades CSV files for the durations."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

from dciml.datasets.fields import check_sentence
from dciml.datasets.moments import BadMoments, MomentRules, PastEnd
from dciml.datasets.records import QueryFile
from dciml.errors import DataError, Where
from dciml.files import read_foreign_text
from dciml.types import Query

_FORM = "write the line as: VIDEO START END##SENTENCE"


def read_charades_durations(path: str | Path) -> dict[str, float]:
    """Seconds of each video from a Charades CSV (columns `id` and `length`).

    Raises:
        DataError: a column is missing, a length is not a positive number, or an id comes twice.
    """
    path = Path(path)
    rows = csv.DictReader(read_foreign_text(path).splitlines(), strict=True)
    for name in ("id", "length"):
        if name not in (rows.fieldnames or ()):
            raise DataError(
                "the column is missing", where=Where(path, 1, name), mend="name a Charades CSV file"
            )
    durations: dict[str, float] = {}
    try:
        for row in rows:
            place = Where(path, rows.line_num, "length")
            seconds = _number(row["length"], place)
            if seconds <= 0:
                raise DataError(
                    f"{seconds} is not a positive number", where=place, mend="give seconds, above 0"
                )
            if row["id"] in durations:
                where = Where(path, rows.line_num, "id")
                raise DataError(f"the video {row['id']!r} comes twice", where=where, mend="remove one line")
            durations[row["id"]] = seconds
    except csv.Error as error:
        raise DataError(
            f"the line is malformed ({error})", where=Where(path, rows.line_num), mend="correct it"
        ) from error
    return durations


def read_charades_sta(
    path: str | Path,
    split: str,
    durations: Mapping[str, float],
    past_end: PastEnd = "clip",
    bad_moments: BadMoments = "drop",
) -> QueryFile:
    """Read one Charades-STA file. A query's id is `charades_<split>_<line, six digits, from 0>`.

    Args:
        split: goes into the query ids.
        durations: seconds of each video, from `read_charades_durations`; moments often end a little after.
        past_end, bad_moments: as for `read_queries`; the released training file holds four moments that
            end before they start, so the default keeps those sentences without a moment.
    Raises:
        DataError: a malformed line, or a video without a duration.
    """
    path, rules = Path(path), MomentRules(past_end, bad_moments)
    queries: list[Query] = []
    used: dict[str, float] = {}
    lines: dict[str, int] = {}
    for number, line in enumerate(read_foreign_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        where = Where(path, number)
        video_id, start, end, sentence = _parts(line, where)
        if video_id not in durations:
            raise DataError(
                f"the duration of the video {video_id!r} is not known",
                where=where,
                mend="name the Charades CSV file that lists this video",
            )
        used[video_id] = durations[video_id]
        moment = rules.check(start, end, durations[video_id], where)
        moments = () if moment is None else (moment,)
        query = Query(f"charades_{split}_{number - 1:06d}", video_id, sentence, moments)
        queries.append(query)
        lines[query.query_id] = number
    return QueryFile(tuple(queries), rules.num_clipped, rules.num_dropped, used, lines)


def _parts(line: str, where: Where) -> tuple[str, float, float, str]:
    head, mark, sentence = line.partition("##")
    parts = head.split()
    if not mark or len(parts) != 3:
        raise DataError("the line is malformed", where=where, mend=_FORM)
    start = _number(parts[1], Where(where.path, where.line, "start"))
    end = _number(parts[2], Where(where.path, where.line, "end"))
    return parts[0], start, end, check_sentence(sentence, Where(where.path, where.line, "sentence"))


def _number(text: str | None, place: Where) -> float:
    try:
        return float(text or "")
    except ValueError as error:
        raise DataError(f"{text!r} is not a number", where=place, mend="give seconds") from error
