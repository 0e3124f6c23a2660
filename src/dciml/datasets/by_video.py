"""The form that ActivityNet Captions and TACoS share: a JSON object of videos with lists of moments and sentences."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from dciml.datasets.fields import Row, as_number, check_sentence
from dciml.datasets.moments import BadMoments, MomentRules, PastEnd
from dciml.datasets.records import QueryFile
from dciml.errors import DataError, Where
from dciml.files import read_json
from dciml.types import Query

Clock = Callable[[Row, Where], tuple[float, float]]


def read_by_video(
    path: Path, id_prefix: str, clock: Clock, past_end: PastEnd, bad_moments: BadMoments
) -> QueryFile:
    """Read `{video: {"timestamps": [[start, end], …], "sentences": […], …}}`.

    Args:
        id_prefix: of the query ids, `<prefix>_<video>_<number, from 0>`.
        clock: tells from a video's entry how many seconds it lasts, and how many seconds a unit of its timestamps is.
        past_end, bad_moments: as for `read_queries`.
    Raises:
        DataError: not JSON, or a video's entry is not as above; the message names video and field.
    """
    content, rules = read_json(path), MomentRules(past_end, bad_moments)
    if not isinstance(content, dict) or not content:
        mend = "name a file of the release: {video: {timestamps, sentences, …}}"
        raise DataError("this is not an object of videos", where=path, mend=mend)
    queries: list[Query] = []
    durations: dict[str, float] = {}
    for video_id, entry in content.items():
        where = Where(path, field=video_id)
        timestamps, sentences = _lists(entry, where)
        durations[video_id], unit_seconds = clock(entry, where)
        for number, (span, sentence) in enumerate(zip(timestamps, sentences, strict=True)):
            moment_place = Where(path, field=f"{video_id}.timestamps[{number}]")
            start, end = (value * unit_seconds for value in read_span(span, moment_place))
            moment = rules.check(start, end, durations[video_id], moment_place)
            place = Where(path, field=f"{video_id}.sentences[{number}]")
            if not isinstance(sentence, str):
                raise DataError("this must be a string", where=place, mend="write a sentence")
            moments = () if moment is None else (moment,)
            query_id = f"{id_prefix}_{video_id}_{number}"
            queries.append(Query(query_id, video_id, check_sentence(sentence, place), moments))
    return QueryFile(tuple(queries), rules.num_clipped, rules.num_dropped, durations)


def read_span(value: Any, place: Where) -> tuple[float, float]:
    """A JSON value as [start, end]. Raises DataError: it is something else."""
    if not isinstance(value, list) or len(value) != 2:
        raise DataError(f"{value!r} is not [start, end]", where=place, mend="give start and end in seconds")
    return as_number(value[0], place), as_number(value[1], place)


def _lists(entry: Any, where: Where) -> tuple[list[Any], list[Any]]:
    if not isinstance(entry, dict):
        mend = "give timestamps, sentences and the length of the video"
        raise DataError("the video's entry is not an object", where=where, mend=mend)
    found = []
    for name in ("timestamps", "sentences"):
        value = entry.get(name)
        if not isinstance(value, list):
            what = "the field is missing" if value is None else "this must be a list"
            raise DataError(what, where=Where(where.path, field=f"{where.field}.{name}"), mend="give a list")
        found.append(value)
    timestamps, sentences = found
    if len(timestamps) != len(sentences):
        raise DataError(
            f"there are {len(timestamps)} timestamps and {len(sentences)} sentences",
            where=where,
            mend="give one [start, end] a sentence",
        )
    return timestamps, sentences
