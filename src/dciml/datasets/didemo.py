"""DiDeMo as released: a JSON list; moments are runs of five-second chunks, and several annotators each name one.

    {"annotation_id": 1, "video": "….m4v", "description": "…", "num_segments": 6, "times": [[4, 4], [0, 1], …]}

`[0, 1]` is chunks 0 to 1, both whole: 0 s to 10 s.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dciml.datasets.by_video import read_span
from dciml.datasets.fields import Row, check_sentence, positive_field, text_field
from dciml.datasets.moments import BadMoments, MomentRules, PastEnd
from dciml.datasets.records import QueryFile
from dciml.errors import DataError, Where
from dciml.files import read_json
from dciml.types import Query

CHUNK_SECONDS = 5.0


def read_didemo(
    path: str | Path,
    split: str,
    past_end: PastEnd = "clip",
    bad_moments: BadMoments = "drop",
    durations: Mapping[str, float] | None = None,
) -> QueryFile:
    """Read one DiDeMo file. A query's id is `didemo_<annotation_id>`; `split` is not used.

    The different moments that annotators named are all true moments, those named most often first; the best one
    counts in evaluation.

    Args:
        past_end, bad_moments: as for `read_queries`.
        durations: seconds of each video, if they are known; the release only says how many chunks a video has, so
            without them the last chunk counts as whole.
    Raises:
        DataError: an entry is not as above; the message names entry and field.
    """
    path, rules = Path(path), MomentRules(past_end, bad_moments)
    entries = read_json(path)
    if not isinstance(entries, list) or not entries:
        raise DataError("this is not a list of annotations", where=path, mend="name a file of the release")
    queries: dict[str, Query] = {}
    used: dict[str, float] = {}
    for number, entry in enumerate(entries):
        where = Where(path, field=f"[{number}]")
        if not isinstance(entry, dict):
            raise DataError("the entry is not an object", where=where, mend="name a file of the release")
        query_id = f"didemo_{_annotation_id(entry, where)}"
        if query_id in queries:
            raise DataError(f"the id {query_id!r} comes twice", where=where, mend="remove one of the entries")
        video_id = text_field(entry, "video", where)
        chunks = positive_field(entry, "num_segments", where)
        used[video_id] = (durations or {}).get(video_id, chunks * CHUNK_SECONDS)
        sentence = check_sentence(text_field(entry, "description", where), where)
        moments = _moments(entry, number, used[video_id], rules, path)
        queries[query_id] = Query(query_id, video_id, sentence, moments)
    return QueryFile(tuple(queries.values()), rules.num_clipped, rules.num_dropped, used)


def _annotation_id(entry: Row, where: Where) -> int:
    value = entry.get("annotation_id")
    if isinstance(value, bool) or not isinstance(value, int):
        what = (
            "the field annotation_id is missing"
            if value is None
            else f"the id {value!r} is not a whole number"
        )
        raise DataError(what, where=where, mend="name a file of the release")
    return value


def _moments(
    entry: Row, number: int, duration: float, rules: MomentRules, path: Path
) -> tuple[tuple[float, float], ...]:
    times: Any = entry.get("times", [])
    place = Where(path, field=f"[{number}].times")
    if not isinstance(times, list):
        raise DataError(
            "this must be a list of [first chunk, last chunk]", where=place, mend="write [[4, 4], …]"
        )
    votes: dict[tuple[float, float], int] = {}
    for pair in times:
        first, last = read_span(pair, place)
        votes[first, last] = votes.get((first, last), 0) + 1
    found = []
    for first, last in sorted(
        votes, key=lambda pair: -votes[pair]
    ):  # stable: ties stay as they stand in the file
        moment = rules.check(first * CHUNK_SECONDS, (last + 1) * CHUNK_SECONDS, duration, place)
        if moment is not None:
            found.append(moment)
    return tuple(dict.fromkeys(found))
