"""What is said in videos, recognised by Whisper, as text with seconds: of the form of captions beside a video.

FOLDER/NAME.PLACE.STATE.jsonl   what is said in a video; PLACE tells where it lies, STATE its size and time
FOLDER/NAME.PLACE.STATE.part    what has been recognised of it so far

A video without sound, or with sound that cannot be decoded, gets a file without text that says so in its field `note`.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from dciml.errors import DataError
from dciml.features.encoders.captions import Caption
from dciml.files import read_json, write_json, write_json_lines
from dciml.video_sound import SAMPLES_A_SECOND, Samples, pieces_of_sound

SPEECH_MODEL = "base"
MODEL_GIGABYTES = {
    "tiny": 0.08,
    "base": 0.15,
    "small": 0.5,
    "medium": 1.5,
    "turbo": 1.6,
    "large-v3": 3.1,
}
"""Of the usual models, what is fetched."""
NO_SPEECH: dict[str, object] = {"start": 0.0, "end": 0.0, "text": ""}
"""The line of a video in which nobody speaks; files of captions may not be empty."""

OnPart = Callable[[float], None]
"""Is told how far something is, from 0 to 1."""


@dataclass(frozen=True)
class Speech:
    """What is recognised of speech, kept in a folder, and the model that recognises it.

    Attributes:
        folder: where it is kept; moves with the videos, if these lie beside it.
        model: the name of a usual one, a hub name in the local cache or a folder; None: what was recognised before is
            read, and nothing new is recognised.
        device: cpu, cuda or cuda:N.
    """

    folder: Path
    model: str | None = None
    device: str = "cpu"

    def check(self) -> None:
        """Raises DataError: the package or the model is not here."""
        if self.model is not None:
            speech_model(self.model)

    def found(self, video: Path) -> Path | None:
        """What was recognised of a video as it is now; None: nothing yet."""
        file = self._file_of(video)
        return file if file.is_file() else None

    def recognise(self, video: Path, on_part: OnPart | None = None) -> Path:
        """Recognise what is said in a video, unless that is known already, from where an earlier call was ended.

        Raises:
            DataError: the package or the model is not here.
            OSError: the folder cannot be written.
        """
        file = self._file_of(video)
        if file.is_file() or self.model is None:
            return file
        self.folder.mkdir(parents=True, exist_ok=True)
        transcribe = _loaded(str(speech_model(self.model)), self.device)
        partial = file.with_suffix(".part")
        done_seconds, lines = _read_partial(partial)
        try:
            for start, samples in pieces_of_sound(video, done_seconds):
                lines += [_line(caption) for caption in transcribe(start, samples, on_part)]
                done_seconds = start + len(samples) / SAMPLES_A_SECOND
                write_json(partial, {"done_seconds": done_seconds, "lines": lines})
        except DataError as error:
            lines = lines or [{**NO_SPEECH, "note": f"{video.name}: {error.what}"}]
        write_json_lines(file, lines or [NO_SPEECH])
        self._remove_others(file)
        return file

    def notes(self) -> list[str]:
        """The videos whose sound could not be used, each with why."""
        notes = []
        for file in sorted(self.folder.glob("*.jsonl")):
            with file.open(encoding="utf-8") as lines:
                first = lines.readline()
            if '"note"' in first:
                notes.append(str(json.loads(first)["note"]))
        return notes

    def _file_of(self, video: Path) -> Path:
        state = video.stat()
        return self.folder / f"{self._name_of(video)}.{_short(f'{state.st_size} {state.st_mtime_ns}')}.jsonl"

    def _name_of(self, video: Path) -> str:
        place = os.path.relpath(os.path.abspath(video), os.path.abspath(self.folder))
        return f"{video.stem[:60]}.{_short(place)}"

    def _remove_others(self, file: Path) -> None:
        """What was recognised of the video as it was before."""
        name = file.name.rsplit(".", 2)[0]
        for other in self.folder.iterdir():
            if other.name.rsplit(".", 2)[0] == name and other != file:
                other.unlink(missing_ok=True)


def _num_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _short(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:12]


def _line(caption: Caption) -> dict[str, object]:
    start, end = round(caption.start_seconds, 3), round(caption.end_seconds, 3)
    return {"start": start, "end": max(end, start), "text": caption.text}


def _read_partial(file: Path) -> tuple[float, list[dict[str, object]]]:
    """Up to where a video has been recognised, and what."""
    try:
        content = read_json(file)
        return float(content["done_seconds"]), list(content["lines"])
    except (DataError, KeyError, TypeError, ValueError):  # there is none, or it is damaged
        return 0.0, []


def speech_model(name_or_folder: str) -> Path:
    """Where a model of Whisper lies that faster-whisper reads: a folder, or in the local cache.

    Raises:
        DataError: faster-whisper is not installed, there is no such model, or it is not here.
    """
    folder = Path(name_or_folder).expanduser()
    if not folder.is_dir():
        folder = _cached(name_or_folder)
    missing = [
        name for name in ("model.bin", "config.json", "tokenizer.json") if not (folder / name).is_file()
    ]
    if missing:
        raise DataError(
            f"this is no model of faster-whisper: it has no {missing[0]}",
            where=folder,
            mend="convert it with ct2-transformers-converter --copy_files tokenizer.json preprocessor_config.json",
        )
    return folder.resolve()


def _cached(name: str) -> Path:
    download = _faster_whisper().utils.download_model
    try:
        return Path(download(name, local_files_only=True))
    except ValueError as error:
        mend = f"name one of {', '.join(MODEL_GIGABYTES)}, a model of the hub, or a folder"
        raise DataError(f"there is no speech model {name!r}", mend=mend) from error
    except OSError as error:
        raise DataError(
            f"the speech model {name!r} is not in the local cache", mend="call again with --yes to fetch it"
        ) from error


def fetch_speech_model(name: str) -> None:
    """Fetch a model once into the local cache. Raises DataError: no such model, or the hub cannot be reached."""
    try:
        _faster_whisper().utils.download_model(name)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        mend = "look at the network, or name a local folder with --speech-model"
        raise DataError(f"the speech model {name!r} cannot be fetched ({reason})", mend=mend) from error


def _faster_whisper() -> Any:
    try:
        import faster_whisper.utils
    except ImportError as error:
        mend = "pip install 'dciml[speech]'"
        raise DataError("the package faster-whisper is not installed", mend=mend) from error
    return faster_whisper


@lru_cache(maxsize=1)
def _loaded(folder: str, device: str) -> Callable[[float, Samples, OnPart | None], list[Caption]]:
    """What recognises a piece of sound that begins at a time."""
    kind, _, number = device.partition(":")
    try:
        model = _faster_whisper().WhisperModel(
            folder,
            device=kind,
            device_index=int(number or 0),
            compute_type="int8" if kind == "cpu" else "default",
            cpu_threads=_num_cores(),
        )
    except (RuntimeError, ValueError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        mend = "name another with --speech-model, or look at --device"
        raise DataError(f"the speech model cannot be loaded ({reason})", where=folder, mend=mend) from error

    def recognise(start_seconds: float, samples: Samples, on_part: OnPart | None) -> list[Caption]:
        length = len(samples) / SAMPLES_A_SECOND
        # Without what was said before as a hint: with it, a mistake goes on and on.
        segments, _ = model.transcribe(samples, vad_filter=True, condition_on_previous_text=False)
        found = []
        for segment in segments:
            if on_part is not None:
                on_part(min(segment.end / length, 1.0) if length else 1.0)
            start, end = max(segment.start, 0.0), min(segment.end, length)
            if start < length and segment.text.strip():
                text = " ".join(segment.text.split())
                found.append(Caption(start_seconds + start, start_seconds + max(start, end), text))
        return found

    return recognise
