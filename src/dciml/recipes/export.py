"""Export: the best moments for a sentence → files of players, editing programs and annotation tools.

Players and editing programs count in pictures or milliseconds, annotation tools in pictures or seconds: every form gets
the times of the hits in its own unit, by the real frame rate of each video.
"""

from __future__ import annotations

import csv
import html
import io
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args
from urllib.parse import quote

from dciml.errors import ConfigError, DataError
from dciml.files import atomic_folder, refuse_taken, write_text
from dciml.index import CatalogueVideo
from dciml.media import VideoInfo, probe
from dciml.recipes.fcpxml import fcpxml
from dciml.recipes.moments import known_video, plain_line, safe_name, video_file
from dciml.recipes.timecode import Shot, edit_rate, real_rate
from dciml.search import Answer, Searcher, ShownHit
from dciml.types import SearchHit
from dciml.video_cut import refuse_existing

Format = Literal["csv", "json", "vtt", "edl", "fcpxml", "otio", "labelstudio", "fiftyone"]
FORMATS: tuple[Format, ...] = get_args(Format)
TIMED_BY_PICTURES: tuple[Format, ...] = ("edl", "fcpxml", "otio", "labelstudio")
"""These need the frame rate, and so the file, of each video."""
MOST_EVENTS = 999  # CMX3600 numbers its events with three digits
LOCAL_FILES = "/data/local-files/?d="
"""Where Label Studio serves files of its own machine, if it may."""


@dataclass(frozen=True)
class Found:
    """A moment as it is shown, with its video; `info` is of its file, where the form needs that."""

    shown: ShownHit
    video: CatalogueVideo
    info: VideoInfo | None = None

    @property
    def hit(self) -> SearchHit:
        """The moment by itself."""
        return self.shown.hit

    @property
    def file(self) -> Path | None:
        """The file of the video as the index knows it; it may be gone."""
        return None if self.video.media_path is None else Path(self.video.media_path)


@dataclass(frozen=True)
class Exported:
    """What was written: `path` is None on standard output; `text` is what goes there.

    `left_out` holds the moments whose video could not be read, each with why.
    """

    path: Path | None
    text: str | None
    num_moments: int
    left_out: tuple[tuple[SearchHit, str], ...]


def export_moments(
    searcher: Searcher,
    sentence: str,
    answer: Answer,
    form: Format,
    out: Path | None,
    media_url: str | None = None,
) -> Exported:
    """Write the hits of an answer in a form that another program reads; atomic, and never over a file.

    Args:
        searcher: gave the answer.
        form: csv, json; vtt (chapters of WebVTT); edl (CMX3600), fcpxml, otio (the moments one after another on a
            timeline); labelstudio (tasks with predictions); fiftyone (`labels.json` of temporal detections).
        out: a file, or for vtt a folder, where its name does not end with `.vtt`; None: standard output.
        media_url: for labelstudio: what an address of a video begins with, before the name of its file; else the
            address is that of a local file.
    Raises:
        ConfigError: a package that the form needs is missing.
        DataError: `out` is there already, or the moments do not fit the form.
    """
    refuse_taken_out(form, out)
    found, left_out = _looked_up(searcher, searcher.shown(answer).hits, form)
    if not found:
        (_, why), *_ = left_out
        raise DataError(f"no moment can be exported as {form} ({why.rstrip('.')})")
    if out is not None and _is_folder(form, out):
        with atomic_folder(out) as folder:
            for name, text in vtt_files(found, sentence).items():
                write_text(folder / name, text)
        return Exported(out, None, len(found), left_out)
    text = _text(found, sentence, answer, form, media_url)
    if out is None:
        return Exported(None, text, len(found), left_out)
    write_text(out, text)
    return Exported(out, None, len(found), left_out)


def refuse_taken_out(form: Format, out: Path | None) -> None:
    """Raises DataError where something is that an export would replace; may be asked before anything is searched."""
    if out is not None:
        (refuse_taken if _is_folder(form, out) else refuse_existing)(out)


def _is_folder(form: Format, out: Path) -> bool:
    return form == "vtt" and out.suffix.lower() != ".vtt"


def _looked_up(
    searcher: Searcher, hits: Sequence[ShownHit], form: Format
) -> tuple[list[Found], tuple[tuple[SearchHit, str], ...]]:
    found: list[Found] = []
    left_out: list[tuple[SearchHit, str]] = []
    infos: dict[str, VideoInfo] = {}
    for shown in hits:
        hit = shown.hit
        try:
            video = known_video(searcher, hit.video_id)
            if form in TIMED_BY_PICTURES and hit.video_id not in infos:
                infos[hit.video_id] = probe(video_file(video))
        except DataError as error:
            left_out.append((hit, str(error)))
            continue
        found.append(Found(shown, video, infos.get(hit.video_id)))
    return found, tuple(left_out)


def _text(found: Sequence[Found], sentence: str, answer: Answer, form: Format, media_url: str | None) -> str:
    writers: dict[Format, Callable[[], str]] = {
        "csv": lambda: csv_table(found, sentence),
        "json": lambda: json_answer(found, sentence, answer),
        "vtt": lambda: one_vtt(found, sentence),
        "edl": lambda: _otio_text(found, sentence, "cmx_3600"),
        "otio": lambda: _otio_text(found, sentence, "otio_json"),
        "fcpxml": lambda: fcpxml(_shots(found, sentence), plain_line(sentence)),
        "labelstudio": lambda: _dumped(label_studio_tasks(found, sentence, media_url)),
        "fiftyone": lambda: _dumped(fiftyone_labels(found, sentence)),
    }
    return writers[form]()


def csv_table(found: Sequence[Found], sentence: str) -> str:
    """A table with a line a moment; times in seconds."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    headings = [
        "rank",
        "video",
        "sentence",
        "start",
        "end",
        "score",
        "confidence",
        "moment_confidence",
        "file",
        "title",
    ]
    table.writerow(headings)
    for one in found:
        hit = one.hit
        times = [hit.start_seconds, hit.end_seconds]
        sure = [hit.confidence, hit.moment_confidence]
        table.writerow(
            [hit.rank, hit.video_id, sentence, *times, hit.score, *sure, one.file, one.video.title]
        )
    return text.getvalue()


def json_answer(found: Sequence[Found], sentence: str, answer: Answer) -> str:
    """The answer as `dciml search --json` prints it, with the file and the title of each moment."""
    hits = [
        {
            **asdict(one.hit),
            "video_rank": one.shown.video_rank,
            "far_below": one.shown.is_far_below,
            "file": None if one.file is None else str(one.file),
            "title": one.video.title,
        }
        for one in found
    ]
    stated = {"sentence": sentence, "found": answer.found, "confidence": answer.confidence, "hits": hits}
    return _dumped(stated)


def file_names(found: Sequence[Found]) -> dict[str, str]:
    """What to call the file of each video, by id: its own name; where two are called alike, what tells them apart."""
    videos = {one.hit.video_id: one for one in found}
    own = {video_id: video_id if one.file is None else one.file.name for video_id, one in videos.items()}
    alike = Counter(name.casefold() for name in own.values())
    return {
        video_id: name
        if alike[name.casefold()] == 1
        else videos[video_id].video.title.removesuffix(Path(name).suffix) + Path(name).suffix
        for video_id, name in own.items()
    }


def one_vtt(found: Sequence[Found], sentence: str) -> str:
    """Chapters of one video.

    Raises:
        DataError: the moments are in several videos.
    """
    files = vtt_files(found, sentence)
    if len(files) > 1:
        mend = "name a folder with --out, which gets a file a video, or one video with --video"
        raise DataError(f"the moments are in {len(files)} videos, and a .vtt file is for one", mend=mend)
    return next(iter(files.values()))


def vtt_files(found: Sequence[Found], sentence: str) -> dict[str, str]:
    """WebVTT by the name of its file, which is that of the video: a chapter a moment, in the order of time."""
    by_video: dict[str, list[Found]] = {}
    for one in found:
        by_video.setdefault(one.hit.video_id, []).append(one)
    files: dict[str, str] = {}
    names = file_names(found)
    for video_id, own in by_video.items():
        stem = safe_name(names[video_id].removesuffix("" if own[0].file is None else own[0].file.suffix))
        name, number = f"{stem}.vtt", 2
        while name.casefold() in {other.casefold() for other in files}:
            name, number = f"{stem}_{number}.vtt", number + 1
        ordered = sorted(own, key=lambda one: (one.hit.start_seconds, one.hit.end_seconds))
        files[name] = "WEBVTT\n\n" + "\n".join(_cue(one.hit, sentence) for one in ordered)
    return files


def _cue(hit: SearchHit, sentence: str) -> str:
    times = " --> ".join(_vtt_time(seconds) for seconds in (hit.start_seconds, hit.end_seconds))
    return f"{hit.rank}\n{times}\n{html.escape(plain_line(sentence), quote=False)}\n"


def _vtt_time(seconds: float) -> str:
    whole, thousandths = divmod(round(seconds * 1000), 1000)
    minutes, rest = divmod(whole, 60)
    return f"{minutes // 60:02}:{minutes % 60:02}:{rest:02}.{thousandths:03}"


def _shots(found: Sequence[Found], sentence: str) -> list[Shot]:
    shots, names = [], file_names(found)
    for one in found:
        if one.info is not None:
            sure = "" if one.hit.moment_confidence is None else f", {one.hit.moment_confidence:.0%} sure"
            note = f"{plain_line(sentence)} (rank {one.hit.rank}, score {one.hit.score:.3f}{sure})"
            name = names[one.hit.video_id]
            shots.append(Shot(one.info, one.hit.start_seconds, one.hit.end_seconds, note, name))
    return shots


def _otio_text(found: Sequence[Found], sentence: str, adapter: str) -> str:
    """A timeline in a form of OpenTimelineIO. Raises ConfigError: it or the adapter is not installed."""
    try:
        import opentimelineio as otio
    except ImportError as error:
        raise _missing("opentimelineio") from error
    if adapter not in otio.adapters.available_adapter_names():
        raise _missing("otio-cmx3600-adapter")
    if adapter == "cmx_3600" and len(found) > MOST_EVENTS:
        raise DataError(f"an EDL holds {MOST_EVENTS} moments, not {len(found)}", mend="ask for less with -k")
    timeline = _timeline(otio, _shots(found, sentence), plain_line(sentence), is_edl=adapter == "cmx_3600")
    text: str = otio.adapters.write_to_string(timeline, adapter)
    return text if text.endswith("\n") else text + "\n"


def _missing(package: str) -> ConfigError:
    return ConfigError(f"this format needs the package {package}. To mend it: pip install 'dciml[export]'.")


def _timeline(otio: Any, shots: Sequence[Shot], title: str, *, is_edl: bool) -> Any:
    """The moments one after another; an EDL has one rate, which is that of the first."""
    timeline, track = otio.schema.Timeline(name=title), otio.schema.Track(name="moments", kind="Video")
    timeline.tracks.append(track)
    reels: dict[Path, str] = {}
    for shot in shots:
        own = edit_rate(shots[0].info.average_fps) if is_edl else real_rate(shot.info.average_fps)
        rate = float(own)
        first, count = shot.pictures(own)
        whole = otio.opentime.TimeRange(
            otio.opentime.RationalTime(0, rate),
            otio.opentime.RationalTime(math.ceil(shot.info.duration_seconds * own - 1e-6), rate),
        )
        span = otio.opentime.TimeRange(
            otio.opentime.RationalTime(first, rate), otio.opentime.RationalTime(count, rate)
        )
        media = otio.schema.ExternalReference(shot.url, available_range=whole)
        clip = otio.schema.Clip(plain_line(shot.called), media, span)
        reel = reels.setdefault(shot.info.path, _reel(shot.info.path, set(reels.values())))
        clip.metadata["cmx_3600"] = {"reel": reel, "comments": [f"COMMENT: {shot.note}"]}
        clip.metadata["dciml"] = {
            "note": shot.note, "start_seconds": shot.start_seconds, "end_seconds": shot.end_seconds
        }  # fmt: skip
        track.append(clip)
    return timeline


def _reel(path: Path, taken: set[str]) -> str:
    """The name of a tape, as an EDL calls the source: eight letters and digits, another one for each file."""
    stem = re.sub(r"[^A-Za-z0-9]", "", path.stem).upper() or "REEL"
    name, number = stem[:8], 2
    while name in taken:
        name, number = f"{stem[: 8 - len(str(number))]}{number}", number + 1
    return name


def label_studio_tasks(
    found: Sequence[Found], sentence: str, media_url: str | None = None
) -> list[dict[str, Any]]:
    """Label Studio's tasks, one a video, its moments as predictions of `TimelineLabels`.

    Ranges are the numbers of the first and the last picture, from 1; `data.fps` is the rate for the `Video` tag.
    """
    tasks: dict[str, dict[str, Any]] = {}
    for one in found:
        if one.info is None:
            continue
        rate, name = real_rate(one.info.average_fps), one.info.path.name
        address = LOCAL_FILES + quote(str(one.info.path.resolve()).lstrip("/"), errors="replace")
        task = tasks.setdefault(
            one.hit.video_id,
            {
                "data": {
                    "video": address if media_url is None else media_url + quote(name, errors="replace"),
                    "video_id": one.hit.video_id,
                    "fps": float(rate),
                    "duration": one.info.duration_seconds,
                    "sentence": sentence,
                },
                "predictions": [{"model_version": "dciml", "score": one.hit.score, "result": []}],
            },
        )
        first, count = Shot(one.info, one.hit.start_seconds, one.hit.end_seconds, "").pictures(rate)
        task["predictions"][0]["result"].append(
            {
                "id": f"moment{one.hit.rank}",
                "from_name": "moments",
                "to_name": "video",
                "type": "timelinelabels",
                "score": one.hit.score,
                "value": {
                    "ranges": [{"start": first + 1, "end": first + count}],
                    "timelinelabels": [sentence],
                },
            }
        )
    return list(tasks.values())


def label_studio_setup(sentence: str) -> str:
    """The labelling interface that the tasks are made for."""
    return (
        '<View><Video name="video" value="$video" frameRate="$fps"/>'
        '<TimelineLabels name="moments" toName="video">'
        f'<Label value="{html.escape(plain_line(sentence))}"/></TimelineLabels></View>'
    )


def fiftyone_labels(found: Sequence[Found], sentence: str) -> dict[str, Any]:
    """`labels.json` of FiftyOne's `FiftyOneTemporalDetectionDataset`, times in seconds.

    Videos are named by the absolute path of their file, so that FiftyOne needs no other; else by their id.
    """
    labels: dict[str, list[dict[str, Any]]] = {}
    for one in found:
        hit = one.hit
        name = hit.video_id if one.file is None else str(one.file.absolute())
        detection: dict[str, Any] = {
            "label": sentence, "timestamps": [hit.start_seconds, hit.end_seconds]
        }  # fmt: skip
        if hit.moment_confidence is not None:
            detection["confidence"] = hit.moment_confidence
        detection["attributes"] = {"video_id": hit.video_id, "rank": hit.rank, "score": hit.score}
        labels.setdefault(name, []).append(detection)
    return {"classes": None, "labels": labels}


def _dumped(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
