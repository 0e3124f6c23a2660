"""Annotation files as their authors released them, a reader a data set; each gives a `QueryFile`.

ActivityNet Captions, a JSON object of videos:

    {video: {"duration": seconds, "timestamps": [[start, end], …], "sentences": […]}}

TACoS as used for grounding, in the form of 2D-TAN; times are frame numbers:

    {video: {"timestamps": [[first frame, last frame], …], "sentences": […], "fps": 29.4, "num_frames": 12438}}

DiDeMo, a JSON list; moments are runs of five-second chunks, and several annotators each name one.

    {"annotation_id": 1, "video": "….m4v", "description": "…", "num_segments": 6, "times": [[4, 4], [0, 1], …]}

`[0, 1]` is chunks 0 to 1, both whole: 0 s to 10 s.

QVHighlights, one JSON object a line; a sentence has one window or several.

    {"qid": 2579, "query": "…", "duration": 150, "vid": "NUsG9BgSes0_210.0_360.0", "relevant_windows": [[82, 150]], …}

Saliency scores are not used. The released test file has no windows; a later one has.

TVR, one JSON object a line:

    {"vid_name": "friends_s01e03_seg02_clip_19", "duration": 61.46, "ts": [16.48, 33.87], "desc": "…", "desc_id": 90200}

The public test file has no `ts`. Subtitles and `type` are not used.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dciml.datasets.records import (
    BadMoments,
    MomentRules,
    PastEnd,
    QueryFile,
    Row,
    as_number,
    check_sentence,
    positive_field,
    read_rows,
    text_field,
)
from dciml.errors import DataError, Where
from dciml.files import read_foreign_text, read_json
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
    return read_by_video(Path(path), f"activitynet_{split}", _activitynet_clock, past_end, bad_moments)


def _activitynet_clock(entry: Row, where: Where) -> tuple[float, float]:
    return positive_field(entry, "duration", where), 1.0


def read_tacos(
    path: str | Path, split: str, past_end: PastEnd = "clip", bad_moments: BadMoments = "drop"
) -> QueryFile:
    """Read one TACoS file; frames become seconds. A query's id is `tacos_<split>_<video>_<number, from 0>`.

    Raises:
        DataError: not JSON, or a video's entry is not as above; the message names video and field.
    """
    return read_by_video(Path(path), f"tacos_{split}", _tacos_clock, past_end, bad_moments)


def _tacos_clock(entry: Row, where: Where) -> tuple[float, float]:
    frame_seconds = 1 / positive_field(entry, "fps", where)
    return positive_field(entry, "num_frames", where) * frame_seconds, frame_seconds


_CHARADES_FORM = "write the line as: VIDEO START END##SENTENCE"


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
        raise DataError("the line is malformed", where=where, mend=_CHARADES_FORM)
    start = _number(parts[1], Where(where.path, where.line, "start"))
    end = _number(parts[2], Where(where.path, where.line, "end"))
    return parts[0], start, end, check_sentence(sentence, Where(where.path, where.line, "sentence"))


def _number(text: str | None, place: Where) -> float:
    try:
        return float(text or "")
    except ValueError as error:
        raise DataError(f"{text!r} is not a number", where=place, mend="give seconds") from error


_CPL_FORM = "write [video, duration, [start, end], sentence]"


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
        raise DataError("this is not a list of queries", where=path, mend=_CPL_FORM)
    queries: list[Query] = []
    durations: dict[str, float] = {}
    for number, entry in enumerate(entries):
        place = Where(path, field=f"[{number}]")
        if not isinstance(entry, list) or len(entry) != 4:
            raise DataError("the entry has another form", where=place, mend=_CPL_FORM)
        video_id, seconds, span, sentence = entry
        if not (isinstance(video_id, str) and video_id.strip() and isinstance(sentence, str)):
            raise DataError("video and sentence must be strings", where=place, mend=_CPL_FORM)
        seconds = as_number(seconds, place)
        if seconds <= 0:
            raise DataError(f"the duration {seconds} is not a positive number", where=place, mend=_CPL_FORM)
        duration = durations.setdefault(video_id, seconds)
        moment = rules.check(*read_span(span, place), duration, place)
        query_id = f"cpl_{split}_{number:06d}"
        moments = () if moment is None else (moment,)
        queries.append(Query(query_id, video_id, check_sentence(sentence, place), moments))
    return QueryFile(tuple(queries), rules.num_clipped, rules.num_dropped, durations)


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


@dataclass(frozen=True)
class Line:
    """One line of a file: its number, from 1, and its fields."""

    number: int
    row: Row


@dataclass
class LineReader:
    """Collects the queries of a JSON-lines file."""

    path: Path
    past_end: PastEnd
    bad_moments: BadMoments
    _rules: MomentRules = field(init=False)
    _queries: list[Query] = field(default_factory=list, init=False)
    _durations: dict[str, float] = field(default_factory=dict, init=False)
    _lines: dict[str, int] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self._rules = MomentRules(self.past_end, self.bad_moments)

    def lines(self, required: Sequence[str]) -> Iterator[Line]:
        """The lines, each with these fields. Raises DataError: one is missing, or a line is malformed."""
        for number, row in read_rows(self.path):
            for name in required:
                if row.get(name) is None:
                    place = Where(self.path, number, name)
                    raise DataError("the field is missing", where=place, mend=f"add {name!r} to the line")
            yield Line(number, row)

    def add(
        self, line: Line, query_id: str, names: tuple[str, str], spans: Sequence[Any], spans_name: str
    ) -> None:
        """Take the query of a line.

        Args:
            names: the fields of the video and of the sentence.
            spans: values that must be [start, end], each a true moment.
            spans_name: their field.
        Raises:
            DataError: a field is not as it must be, or the id was there before.
        """
        where = Where(self.path, line.number)
        if query_id in self._lines:
            raise DataError(
                f"the query id {query_id!r} is already that of line {self._lines[query_id]}",
                where=where,
                mend="give each query an id of its own",
            )
        video_id = text_field(line.row, names[0], where)
        sentence = check_sentence(
            text_field(line.row, names[1], where), Where(self.path, line.number, names[1])
        )
        duration = self._durations.setdefault(video_id, positive_field(line.row, "duration", where))
        place = Where(self.path, line.number, spans_name)
        checked = (self._rules.check(*read_span(span, place), duration, place) for span in spans)
        moments = tuple(moment for moment in checked if moment is not None)
        self._queries.append(Query(query_id, video_id, sentence, moments))
        self._lines[query_id] = line.number

    def result(self) -> QueryFile:
        """All queries, with the counts of what was clipped and dropped."""
        rules = self._rules
        return QueryFile(
            tuple(self._queries), rules.num_clipped, rules.num_dropped, self._durations, self._lines
        )


def read_qvhighlights(
    path: str | Path, split: str, past_end: PastEnd = "clip", bad_moments: BadMoments = "drop"
) -> QueryFile:
    """Read one QVHighlights file; each window is a true moment. A query's id is `qvhighlights_<qid>`.

    Raises:
        DataError: a line is not as above; the message names line and field.
    """
    reader = LineReader(Path(path), past_end, bad_moments)
    for line in reader.lines(("qid", "query", "duration", "vid")):
        windows = line.row.get("relevant_windows", [])
        if not isinstance(windows, list):
            place = Where(reader.path, line.number, "relevant_windows")
            raise DataError("this must be a list of windows", where=place, mend="write [[start, end], …]")
        reader.add(line, f"qvhighlights_{line.row['qid']}", ("vid", "query"), windows, "relevant_windows")
    return reader.result()


def read_tvr(
    path: str | Path, split: str, past_end: PastEnd = "clip", bad_moments: BadMoments = "drop"
) -> QueryFile:
    """Read one TVR file. A query's id is its `desc_id`, as TVR's own scorer wants it; `split` is not used.

    Raises:
        DataError: a line is not as above; the message names line and field.
    """
    reader = LineReader(Path(path), past_end, bad_moments)
    for line in reader.lines(("vid_name", "duration", "desc", "desc_id")):
        spans = [line.row["ts"]] if line.row.get("ts") is not None else []
        reader.add(line, str(line.row["desc_id"]), ("vid_name", "desc"), spans, "ts")
    return reader.result()
