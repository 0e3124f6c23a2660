"""Captions as evidence: time-stamped text beside a video, on the same time grid as pictures.

Read are SubRip (.srt), WebVTT (.vtt) and JSON lines of {"start", "end", "text"}. Subtitle files of the wild are read as
players read them: with or without a byte order mark, in UTF-8, UTF-16 or an
encoding that their letters tell clearly, with any line ends, without index numbers, with tags, settings and overlapping
cues. What cannot be true is an error that names the line: a negative time, an end before its start, a timing line that
holds no times.
"""

from __future__ import annotations

import html
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from time import time_ns
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from dciml.errors import DataError, Where
from dciml.features.base import FloatRows, TextEncoder, num_rows
from dciml.features.encoders.text import NO_WORDS, create_text_encoder, sentence_vector
from dciml.features.pooling import l2_normalize
from dciml.features.vocabulary import tokenize
from dciml.inputs import MAX_CAPTION_BYTES, read_decoded
from dciml.names import refuse_lookalikes, same_name
from dciml.strict import parse_json

if TYPE_CHECKING:
    from dciml.media import RGBFrame, VideoInfo

SUFFIXES = (".jsonl", ".srt", ".vtt")
"""The forms that are read; of several beside one video the first counts."""

SETTLED_NS = 3_000_000_000
"""A folder that has not changed for so long keeps another time when it changes again."""

_TIME = r"(-?)(?:(\d{1,6}):)?(\d{1,2}):(\d{1,2})(?:[.,](\d{1,9}))?"
_TIMING = re.compile(rf"\s*{_TIME}\s*-->\s*{_TIME}(?:\s.*)?$")
_NOTE = re.compile(r"(NOTE|STYLE|REGION)(\s|$)")
_TAG = re.compile(r"</?[a-zA-Z][^<>]*>|<[\d:.]+>|\{\\[^{}]*\}")
_LANGUAGE = re.compile(r"[a-zA-Z]{2,3}(-[a-zA-Z0-9]{2,8})*$")


@dataclass(frozen=True, slots=True)
class Caption:
    """A text that holds from `start_seconds` to `end_seconds` of a video, 0 ≤ start ≤ end."""

    start_seconds: float
    end_seconds: float
    text: str


def find_captions(video: Path) -> Path | None:
    """The caption file of a video: VIDEO.srt, VIDEO.vtt or VIDEO.jsonl in its folder, or with a language: VIDEO.en.srt.

    A name without a language goes first, then English.

    Raises:
        DataError: there are only files of several other languages, so that none is the one to take.
    """
    by_language: dict[str, list[Path]] = {}
    for language, path in _captions_beside(video):
        by_language.setdefault(language, []).append(path)
    english = sorted(language for language in by_language if re.match(r"en(g|-|$)", language))
    order = [language for language in ("", *english) if language in by_language] or sorted(by_language)
    if not order:
        return None
    if not english and "" not in by_language and len(order) > 1:
        raise DataError(
            f"there are captions in several languages ({', '.join(order)})",
            where=video,
            mend=f"copy the one to use to {video.stem}.srt",
        )
    refuse_lookalikes((path.name for path in by_language[order[0]]), Where(video.parent))
    return min(by_language[order[0]], key=lambda path: (SUFFIXES.index(path.suffix.lower()), path.name))


def _captions_beside(video: Path) -> Sequence[tuple[str, Path]]:
    """The caption files of a video with their languages; a folder is listed once for all its videos.

    A listing counts until the folder changes. One that has just changed is listed each time: a second change might
    leave it the same time, on file systems that keep whole seconds.
    """
    changed_ns = video.parent.stat().st_mtime_ns
    is_settled = time_ns() - changed_ns > SETTLED_NS
    found = (_captions_in if is_settled else _captions_in.__wrapped__)(video.parent, changed_ns)
    return found.get(same_name(video.stem), ())


@lru_cache(maxsize=16)
def _captions_in(folder: Path, changed_ns: int) -> Mapping[str, Sequence[tuple[str, Path]]]:
    """The caption files of a folder as it was at a time, with their languages, by the stem of their video."""
    found: dict[str, list[tuple[str, Path]]] = {}
    with os.scandir(folder) as entries:
        for entry in entries:
            path = Path(entry.path)
            if path.suffix.lower() in SUFFIXES and entry.is_file():
                name = same_name(path.stem)
                found.setdefault(name, []).append(("", path))
                stem, _, language = name.rpartition(".")
                if stem and _LANGUAGE.match(language):
                    found.setdefault(stem, []).append((language.lower(), path))
    return found


def read_captions(path: Path) -> list[Caption]:
    """Read a caption file, in the order of time; captions without text are left out.

    Raises:
        DataError: missing, empty, no text file, or malformed; the message names the line.
    """
    text = _read(path)
    lines = re.split("\r\n|\r|\n", text)
    if path.suffix.lower() == ".jsonl":
        captions = [_json_caption(line, Where(path, n)) for n, line in enumerate(lines, 1) if line.strip()]
    else:
        captions = _subtitles(lines, path)
        if not captions and not text.startswith("WEBVTT"):  # which may hold none
            raise DataError("the file holds no caption", where=path, mend="check that it is SubRip or WebVTT")
    return sorted(
        (caption for caption in captions if caption.text), key=lambda c: (c.start_seconds, c.end_seconds)
    )


def _read(path: Path) -> str:
    text = read_decoded(path, MAX_CAPTION_BYTES)
    if not text.strip():
        raise DataError("the file is empty", where=path, mend="write its captions, or remove it")
    return text


def _subtitles(lines: list[str], path: Path) -> list[Caption]:
    is_vtt = path.suffix.lower() == ".vtt"
    lines = _without_notes(lines) if is_vtt else lines
    timings = [number for number, line in enumerate(lines) if "-->" in line]
    captions = []
    for place, number in enumerate(timings):
        following = timings[place + 1] if place + 1 < len(timings) else None
        start, end = _times(lines[number], Where(path, number + 1))
        body = lines[number + 1 : following]
        if following is not None and body and body[-1].strip().isdecimal():
            body = body[:-1]  # the number of the next one
        if is_vtt:  # an empty line ends the cue; what comes then is a name
            body = _until_empty(body)
        elif following is None:  # who made the file may have signed it
            body = _until_empty([line.strip() for line in body])
        captions.append(Caption(start, end, _plain(" ".join(body))))
    return captions


def _without_notes(lines: list[str]) -> list[str]:
    """WebVTT with empty lines in the place of comments, styles and regions, which end at an empty line."""
    kept: list[str] = []
    is_note = False
    for number, line in enumerate(lines):
        begins = number == 0 or not lines[number - 1]
        is_note = bool(line) and (is_note or (begins and _NOTE.match(line) is not None))
        kept.append("" if is_note else line)
    return kept


def _until_empty(body: list[str]) -> list[str]:
    return body[: next((row for row, line in enumerate(body) if not line), len(body))]


def _times(line: str, where: Where) -> tuple[float, float]:
    match = _TIMING.match(line)
    if match is None:
        mend = "write it as 00:00:01,000 --> 00:00:02,500"
        raise DataError(f"this is not a timing line: {line.strip()[:60]!r}", where=where, mend=mend)
    parts = match.groups()
    times = [_seconds(parts[:5], where), _seconds(parts[5:], where)]
    return _checked(times[0], times[1], where)


def _seconds(parts: tuple[str | None, ...], where: Where) -> float:
    sign, hours, minutes, seconds, fraction = parts
    if int(minutes or 0) > 59 or int(seconds or 0) > 59:
        raise DataError(
            f"a time has {minutes} minutes and {seconds} seconds", where=where, mend="correct the time"
        )
    value = int(hours or 0) * 3600 + int(minutes or 0) * 60 + float(f"{seconds}.{fraction or 0}")
    return -value if sign else value


def _checked(start: float, end: float, where: Where) -> tuple[float, float]:
    if not (math.isfinite(start) and math.isfinite(end)):
        raise DataError(f"a time is not finite ({start}, {end})", where=where, mend="give seconds")
    if start < 0 or end < 0:
        what = f"a time is negative ({start:g} s to {end:g} s)"
        raise DataError(what, where=where, mend="count from the start of the video")
    if end < start:
        what = f"the caption ends before it starts ({start:g} s to {end:g} s)"
        raise DataError(what, where=where, mend="exchange or correct the times")
    return start, end


def _json_caption(line: str, where: Where) -> Caption:
    row = parse_json(line, where, allow_broken_text=True)
    if not isinstance(row, dict):
        mend = 'write {"start": 1.0, "end": 2.5, "text": "…"}'
        raise DataError("this is not a JSON object", where=where, mend=mend)
    start, end = (_json_number(row, name, where) for name in ("start", "end"))
    text = row.get("text")
    if not isinstance(text, str):
        place = Where(where.path, where.line, "text")
        raise DataError("missing, or not a text", where=place, mend="write the caption as a string")
    return Caption(*_checked(start, end, where), _plain(text))


def _json_number(row: dict[str, Any], name: str, where: Where) -> float:
    value = row.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        place = Where(where.path, where.line, name)
        raise DataError("missing, or not a number", where=place, mend="give the time in seconds")
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _plain(text: str) -> str:
    """Without tags and entities, on one line; halves of characters, which JSON can hold, become question marks."""
    whole = text.encode(errors="replace").decode()
    return " ".join(html.unescape(_TAG.sub("", whole)).split())


_MAX_WORDS = 256  # captions are longer than queries; no word of theirs is to be lost


class RecognisedSpeech(Protocol):
    """What is recognised of the speech of videos (`encoders/speech.py`); pickles."""

    @property
    def model(self) -> str | None:
        """What recognises it; None: nothing new is recognised."""

    def found(self, video: Path) -> Path | None:
        """The file of captions of a video, where there is one already."""

    def recognise(self, video: Path, on_part: Callable[[float], None] | None = None) -> Path:
        """Make that file."""


class CaptionEncoder:
    """A `FrameEncoder` that looks at no picture: a row is the mean of the captions that overlap it, of length 1.

    A caption's vector is the text encoder's own sentence vector, or the mean of its words' vectors where it has none.
    A row without a caption is zero: it is evidence of nothing, its cosine with everything is 0.

    Args:
        text_encoder: as `create_text_encoder` reads it; `words` knows captions by the letters of their words.
        rows_per_second: > 0.
        device: where the text encoder runs.
        required: a video without a caption file is an error; else its rows are zero.
        speech: of videos without a caption file, what is recognised of their speech is read instead.
        lenient: captions that cannot be read are left out, and `trouble_beside` tells why; else they are an error.
    Raises:
        ConfigError: there is no such text encoder.
        DataError: its package or model is missing.
    """

    frames_per_second = 0.0

    def __init__(
        self,
        text_encoder: str,
        rows_per_second: float = 2.0,
        device: str = "cpu",
        required: bool = True,
        speech: RecognisedSpeech | None = None,
        lenient: bool = False,
    ) -> None:
        if not rows_per_second > 0:
            raise ValueError(f"rows_per_second must be positive, not {rows_per_second}")
        self.rows_per_second, self._spec, self._device = rows_per_second, text_encoder, device
        self._required, self._speech, self._lenient = required, speech, lenient
        self._loaded: TextEncoder | None = None
        self.name = f"text:{self._encoder().name}"
        self.width = self._vectors(["word"]).shape[1]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_loaded": None}  # each process loads its own

    def picture_size(self, width: int, height: int) -> tuple[int, int]:
        """As the video is; no picture is looked at."""
        return width, height

    def files_beside(self, path: Path) -> tuple[Path, ...]:
        """The captions that it would read for a video, or what was recognised of its speech."""
        found = self._text_of(path)
        return () if found is None else (found,)

    def trouble_beside(self, path: Path) -> DataError | None:
        """Why the captions beside a video are left out; None: they can be read, or there are none."""
        try:
            captions = find_captions(path)
            if captions is not None:
                read_captions(captions)
        except DataError as error:
            return error
        except OSError:  # the folder is gone
            return None
        return None

    def is_prepared(self, path: Path) -> bool:
        """Whether there is nothing to recognise any more."""
        return self._speech is None or self._speech.model is None or self._text_of(path) is not None

    def prepare(self, path: Path, on_part: Callable[[float], None]) -> None:
        """Recognise what is said in a video, unless there are captions or it is known already.

        Raises:
            DataError: the model of speech is not here.
        """
        if self._speech is not None and not self.is_prepared(path):
            self._speech.recognise(path, on_part)

    def _text_of(self, path: Path) -> Path | None:
        return self._captions_of(path) or (None if self._speech is None else self._speech.found(path))

    def _captions_of(self, path: Path) -> Path | None:
        if not self._lenient:
            return find_captions(path)
        try:
            captions = find_captions(path)
        except DataError:
            return None
        return captions if captions is not None and os.access(captions, os.R_OK) else None

    def begin(self, info: VideoInfo) -> CaptionRows:
        """Read the captions of a video.

        Raises:
            DataError: there are none and they are required, or they cannot be read.
        """
        path = self._text_of(info.path)
        if path is None and self._required:
            names = ", ".join(info.path.with_suffix(suffix).name for suffix in SUFFIXES)
            what = f"there are no captions beside the video ({names}, also with a language such as .en.srt)"
            raise DataError(what, where=info.path, mend="put them there, or add an encoder of pictures")
        count = num_rows(info.duration_seconds, self.rows_per_second)
        return CaptionRows(self.rows_of([] if path is None else self._read(path), count))

    def _read(self, path: Path) -> list[Caption]:
        try:
            return read_captions(path)
        except DataError:
            if not self._lenient:
                raise
            return []

    def rows_of(self, captions: Sequence[Caption], count: int) -> FloatRows:
        """The rows (count, width) of captions; those after the last row are left out."""
        rows = np.zeros((count, self.width), dtype=np.float32)
        spoken = [caption for caption in captions if tokenize(caption.text)]
        if spoken:
            for caption, vector in zip(spoken, self._vectors([c.text for c in spoken]), strict=True):
                first = int(caption.start_seconds * self.rows_per_second + 1e-6)
                end = int(np.ceil(caption.end_seconds * self.rows_per_second - 1e-6))
                rows[first : max(end, first + 1)] += vector
        return l2_normalize(rows)  # the length of a sum is that of a mean

    def _vectors(self, texts: Sequence[str]) -> FloatRows:
        return np.stack([sentence_vector(encoded) for encoded in self._encoder().encode(texts)])

    def _encoder(self) -> TextEncoder:
        if self._loaded is None:
            self._loaded = create_text_encoder(self._spec, NO_WORDS, _MAX_WORDS, self._device)
        return self._loaded


class CaptionRows:
    """Rows that are made already."""

    def __init__(self, rows: FloatRows) -> None:
        self._rows = rows

    def add(self, seconds: float, picture: RGBFrame) -> None:
        """Nothing: no picture is asked for."""

    def finish(self) -> FloatRows:
        """The rows, (T, width)."""
        return self._rows
