"""ActivityNet Captions as released.

{video: {"duration": seconds, "timestamps": [[start, end], …], "sentences": […]}}
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dciml.datasets.fields import as_number, check_sentence, positive_field
from dciml.datasets.moments import BadMoments, MomentRules, PastEnd
from dciml.datasets.records import QueryFile
from dciml.errors import DataError, Where
from dciml.files import read_json
from dciml.types import Query


def read_activitynet(
    path: str | Path, split: str, past_end: PastEnd = "clip", bad_moments: BadMoments = "drop"
) -> QueryFile:
    """Read one ActivityNet Captions file. A query's id is `activitynet_<split>_<video>_<number, from 0>`.

    Args:
        split: goes into the query ids, since two files may annotate the same videos.
        past_end, bad_moments: as for `read_queries`; the released training file holds four moments that
            do not end after their start, so the default keeps those sentences without a moment.
    Raises:
        DataError: not JSON, or a video's entry is not as above; the message names video and field.
    """
    path, rules = Path(path), MomentRules(past_end, bad_moments)
    content = read_json(path)
    if not isinstance(content, dict) or not content:
        raise DataError(
            "this is not an object of videos", where=path, mend="name an ActivityNet Captions file"
        )
    queries: list[Query] = []
    durations: dict[str, float] = {}
    for video_id, entry in content.items():
        where = Where(path, field=video_id)
        timestamps, sentences = _lists(entry, where)
        durations[video_id] = positive_field(entry, "duration", where)
        for number, (span, sentence) in enumerate(zip(timestamps, sentences, strict=True)):
            moment_place = Where(path, field=f"{video_id}.timestamps[{number}]")
            moment = rules.check(*_span(span, moment_place), durations[video_id], moment_place)
            place = Where(path, field=f"{video_id}.sentences[{number}]")
            if not isinstance(sentence, str):
                raise DataError("this must be a string", where=place, mend="write a sentence")
            moments = () if moment is None else (moment,)
            query_id = f"activitynet_{split}_{video_id}_{number}"
            queries.append(Query(query_id, video_id, check_sentence(sentence, place), moments))
    return QueryFile(tuple(queries), rules.num_clipped, rules.num_dropped, durations)


def _lists(entry: Any, where: Where) -> tuple[list[Any], list[Any]]:
    if not isinstance(entry, dict):
        raise DataError(
            "the video's entry is not an object", where=where, mend="give duration, timestamps, sentences"
        )
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


def _span(value: Any, place: Where) -> tuple[float, float]:
    if not isinstance(value, list) or len(value) != 2:
        raise DataError(f"{value!r} is not [start, end]", where=place, mend="give start and end in seconds")
    return as_number(value[0], place), as_number(value[1], place)
