"""What annotation tools export: moments that people marked in videos, each with a sentence.

Label Studio's JSON, a list of tasks; its times are pictures, counted from 1, or seconds:

    [{"data": {"video": "/data/…/beach.mp4", "fps": 25}, "annotations": [{"result": [{"id": "a", "type":
    "timelinelabels", "value": {"ranges": [{"start": 1, "end": 50}], "timelinelabels": ["a dog runs"]}}]}]}]

The label of a region is its sentence, unless a text belongs to the region (`textarea` with the same id). Predictions
and cancelled annotations are not read.

`labels.json` of FiftyOne's temporal detections, with times in seconds:

    {"classes": null, "labels": {"…/beach.mp4": [{"label": "a dog runs", "timestamps": [0.0, 2.0]}]}}

`dciml export` writes both forms, with the id of each video; else the name of its file is its id.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from dciml.datasets.records import (
    BadMoments,
    MomentRules,
    PastEnd,
    QueryFile,
    as_number,
    check_sentence,
    read_queries,
)
from dciml.errors import DataError, Where
from dciml.files import read_json, read_text
from dciml.types import Query

_UPLOADED = re.compile(r"/upload/(?:\d+/)?[0-9a-f]{8}-([^/]+)$")
_EXPORT_AGAIN = "export the project as JSON, not as JSON-MIN"


def read_annotations(
    path: str | Path,
    durations: Mapping[str, float] | None = None,
    past_end: PastEnd = "clip",
    bad_moments: BadMoments = "refuse",
) -> QueryFile:
    """Read what Label Studio or FiftyOne exported, or JSON lines of records; the content tells which.

    The moments of a video that have the same sentence are one query, with the id `<file's stem>_<number, from 1>`.

    Args:
        durations: seconds of each video; where it is silent, Label Studio's `data.duration` counts.
        past_end, bad_moments: as for `read_queries`.
    Raises:
        DataError: something is not as it must be; the message names file, place and mend.
    """
    path = Path(path)
    form = _form(read_text(path))
    if form is None:
        return read_queries(path, durations, past_end, bad_moments)
    marked = _Marked(path, MomentRules(past_end, bad_moments), dict(durations or {}))
    content = read_json(path)
    for one in (_label_studio if form is list else _fiftyone)(content, path):
        marked.add(one)
    if not marked.moments:
        raise DataError("it holds no marked moment", where=path, mend="mark some, and export it again")
    return marked.file()


def _form(text: str) -> type | None:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return None  # JSON lines, or damaged, which their reader tells
    if isinstance(content, list):
        return list
    return dict if isinstance(content, dict) and "labels" in content else None


@dataclass(frozen=True)
class _Moment:
    """A marked moment, in seconds; `duration` is of the video, where the file states it."""

    video_id: str
    sentence: str
    start: float
    end: float
    where: Where
    duration: float | None = None


@dataclass
class _Marked:
    """Gathers moments by video and sentence."""

    path: Path
    rules: MomentRules
    known: dict[str, float]
    stated: dict[str, float] = field(default_factory=dict)
    moments: dict[tuple[str, str], list[tuple[float, float]]] = field(default_factory=dict)

    def add(self, one: _Moment) -> None:
        if one.duration is not None and one.video_id not in self.known:
            self.stated.setdefault(one.video_id, one.duration)
        duration = self.known.get(one.video_id, self.stated.get(one.video_id))
        sentence = check_sentence(one.sentence, one.where)
        moments = self.moments.setdefault((one.video_id, sentence), [])
        moment = self.rules.check(one.start, one.end, duration, one.where)
        if moment is not None and moment not in moments:
            moments.append(moment)

    def file(self) -> QueryFile:
        queries = tuple(
            Query(f"{self.path.stem}_{number}", video_id, sentence, tuple(moments))
            for number, ((video_id, sentence), moments) in enumerate(self.moments.items(), start=1)
        )
        return QueryFile(queries, self.rules.num_clipped, self.rules.num_dropped, self.stated)


def _label_studio(tasks: Any, path: Path) -> Iterator[_Moment]:
    for number, task in enumerate(tasks):
        place = f"[{number}]"
        data = _object(_object(task, path, place).get("data"), path, f"{place}.data")
        video_id = _task_video(data, path, f"{place}.data")
        duration = data.get("duration")
        if duration is not None:
            duration = as_number(duration, Where(path, field=f"{place}.data.duration"))
            duration = duration if duration > 0 else None
        for at, annotation in enumerate(_list(task.get("annotations", []), path, f"{place}.annotations")):
            where = f"{place}.annotations[{at}]"
            if _object(annotation, path, where).get("was_cancelled"):
                continue
            regions = _list(annotation.get("result", []), path, f"{where}.result")
            for start, end, sentence, region in _regions(regions, data.get("fps"), path, f"{where}.result"):
                yield _Moment(video_id, sentence, start, end, Where(path, field=region), duration)


def _task_video(data: dict[str, Any], path: Path, place: str) -> str:
    if isinstance(data.get("video_id"), str) and data["video_id"]:
        return str(data["video_id"])
    address = data.get("video")
    if not isinstance(address, str) or not address:
        mend = "import tasks whose data have the address of the video under `video`"
        raise DataError("the task names no video", where=Where(path, field=f"{place}.video"), mend=mend)
    return _named_by(address)


def _named_by(address: str) -> str:
    """The name of the file that an address leads to.

    >>> _named_by("/data/upload/1/3f2a1b2c-beach.mp4"), _named_by("/data/local-files/?d=clips/a%20b.mp4")
    ('beach.mp4', 'a b.mp4')
    """
    parts = urlsplit(address)
    local = parse_qs(parts.query).get("d")
    if local:
        return local[0].rpartition("/")[2]
    uploaded = _UPLOADED.search(parts.path)
    return unquote(uploaded[1] if uploaded else parts.path.rpartition("/")[2]) or address


def _regions(results: list[Any], fps: Any, path: Path, place: str) -> Iterator[tuple[float, float, str, str]]:
    """Start and end in seconds, sentence and place of each region."""
    texts = {}
    for number, result in enumerate(results):
        value = _object(
            _object(result, path, f"{place}[{number}]").get("value", {}), path, f"{place}[{number}].value"
        )
        if result.get("type") == "textarea" and isinstance(value.get("text"), list):
            texts[result.get("id")] = " ".join(str(text) for text in value["text"])
    for number, result in enumerate(results):
        where, value = f"{place}[{number}]", result.get("value", {})
        sentence = texts.get(result.get("id")) or _label(value)
        if result.get("type") == "textarea" or not ({"ranges", "start"} & value.keys()):
            continue
        if sentence is None:
            mend = "give each region a label, or a text of its own (TextArea with perRegion)"
            raise DataError("the region has no sentence", where=Where(path, field=where), mend=mend)
        if "ranges" not in value:
            start, end = (
                as_number(value.get(name), Where(path, field=f"{where}.value.{name}"))
                for name in ("start", "end")
            )
            yield start, end, sentence, where
            continue
        for at, span in enumerate(_list(value["ranges"], path, f"{where}.value.ranges")):
            inner = f"{where}.value.ranges[{at}]"
            first, last = (
                as_number(_object(span, path, inner).get(name), Where(path, field=f"{inner}.{name}"))
                for name in ("start", "end")
            )
            rate = _rate(fps, path, place)
            yield max(first - 1, 0.0) / rate, last / rate, sentence, inner


def _label(value: dict[str, Any]) -> str | None:
    for name in ("timelinelabels", "labels"):
        if isinstance(value.get(name), list) and value[name]:
            return " ".join(str(label) for label in value[name])
    return None


def _rate(fps: Any, path: Path, place: str) -> float:
    where = Where(path, field=f"{place.partition('.')[0]}.data.fps")
    if fps is None:
        mend = 'add "fps", the pictures a second of the video, to the data of each task'
        raise DataError("the times are pictures, and the frame rate is not stated", where=where, mend=mend)
    rate = as_number(fps, where)
    if rate <= 0:
        raise DataError(f"{rate} is no frame rate", where=where, mend="give pictures a second, above 0")
    return rate


def _fiftyone(content: dict[str, Any], path: Path) -> Iterator[_Moment]:
    classes = content.get("classes")
    for name, detections in _object(content["labels"], path, "labels").items():
        for number, detection in enumerate(_list(detections or [], path, f"labels.{name}")):
            place = f"labels.{name}[{number}]"
            span = _object(detection, path, place).get("timestamps")
            where = Where(path, field=f"{place}.timestamps")
            if span is None:
                mend = "export it from FiftyOne with use_timestamps=True"
                raise DataError("there are no times in seconds", where=where, mend=mend)
            if not isinstance(span, list) or len(span) != 2:
                raise DataError(
                    f"{span!r} is not [start, end]", where=where, mend="give start and end in seconds"
                )
            start, end = as_number(span[0], where), as_number(span[1], where)
            sentence = _class_name(detection.get("label"), classes, Where(path, field=f"{place}.label"))
            own = detection.get("attributes")
            stated = own.get("video_id") if isinstance(own, dict) else None
            video_id = stated if isinstance(stated, str) and stated else re.split(r"[/\\]", name)[-1]
            yield _Moment(video_id, sentence, start, end, where)


def _class_name(label: Any, classes: Any, where: Where) -> str:
    if isinstance(label, int) and not isinstance(label, bool) and isinstance(classes, list):
        label = classes[label] if 0 <= label < len(classes) else None
    if not isinstance(label, str):
        mend = "give a sentence, or the number of one in `classes`"
        raise DataError("the label is no sentence", where=where, mend=mend)
    return label


def _object(value: Any, path: Path, place: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise DataError("this must be an object", where=Where(path, field=place), mend=_EXPORT_AGAIN)
    return value


def _list(value: Any, path: Path, place: str) -> list[Any]:
    if not isinstance(value, list):
        raise DataError("this must be a list", where=Where(path, field=place), mend=_EXPORT_AGAIN)
    return value
