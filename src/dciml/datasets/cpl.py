"""The form of the CPL release: a JSON list of [video, duration, [start, end], sentence]."""

from __future__ import annotations

from pathlib import Path

from dciml.datasets.by_video import read_span
from dciml.datasets.fields import as_number, check_sentence
from dciml.datasets.moments import BadMoments, MomentRules, PastEnd
from dciml.datasets.records import QueryFile
from dciml.errors import DataError, Where
from dciml.files import read_json
from dciml.types import Query

_FORM = "write [video, duration, [start, end], sentence]"


def read_cpl(
    path: str | Path, split: str, past_end: PastEnd = "clip", bad_moments: BadMoments = "drop"
) -> QueryFile:
    """Read one file of the release. A query's id is `cpl_<split>_<place, six digits, from 0>`.

    Raises:
        DataError: not JSON, or an entry is of another form; the message names its place, from 0.
    """
    path, rules = Path(path), MomentRules(past_end, bad_moments)
    entries = read_json(path)
    if not isinstance(entries, list) or not entries:
        raise DataError("this is not a list of queries", where=path, mend=_FORM)
    queries: list[Query] = []
    durations: dict[str, float] = {}
    for number, entry in enumerate(entries):
        place = Where(path, field=f"[{number}]")
        if not isinstance(entry, list) or len(entry) != 4:
            raise DataError("the entry has another form", where=place, mend=_FORM)
        video_id, seconds, span, sentence = entry
        if not (isinstance(video_id, str) and video_id.strip() and isinstance(sentence, str)):
            raise DataError("video and sentence must be strings", where=place, mend=_FORM)
        seconds = as_number(seconds, place)
        if seconds <= 0:
            raise DataError(f"the duration {seconds} is not a positive number", where=place, mend=_FORM)
        duration = durations.setdefault(video_id, seconds)
        moment = rules.check(*read_span(span, place), duration, place)
        query_id = f"cpl_{split}_{number:06d}"
        moments = () if moment is None else (moment,)
        queries.append(Query(query_id, video_id, check_sentence(sentence, place), moments))
    return QueryFile(tuple(queries), rules.num_clipped, rules.num_dropped, durations)
