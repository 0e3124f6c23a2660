"""What people told of moments: a sentence for a part of a video, kept in the home, one JSON object a line.

HOME/told.jsonl   {"told_id", "video_id", "start_seconds", "end_seconds", "sentence", "written_unix"}

Teaching reads the sentences and whose they are (`pairs_of`); the times are for evaluation, and never reach training.
"""

from __future__ import annotations

import math
import re
import secrets
import unicodedata
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from time import monotonic, sleep, time
from typing import Any

from dciml.datasets import read_rows
from dciml.errors import DataError, Where
from dciml.features import tokenize
from dciml.files import write_json_lines
from dciml.locks import Lock, take
from dciml.types import Query, TrainingPair

TOLD_FILE = "told.jsonl"
TOLD_LOCK = ".told.lock"
MAX_SENTENCE_CHARS = 500
MAX_TOLD = 20_000
MAX_ID_CHARS = 1024
WAIT_SECONDS = 5.0
END_SLACK_SECONDS = 0.5
"""By which a moment may end after its video: players and catalogues round differently. It is kept up to the end."""
_FIELDS = ("told_id", "video_id", "start_seconds", "end_seconds", "sentence", "written_unix")
_TOLD_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


@dataclass(frozen=True, slots=True)
class Told:
    """A sentence that somebody wrote for a moment of a video. `written_unix`: when, in seconds since 1970, UTC."""

    told_id: str
    video_id: str
    start_seconds: float
    end_seconds: float
    sentence: str
    written_unix: float

    def pair(self) -> TrainingPair:
        """All of it that training may see."""
        return TrainingPair(self.told_id, self.video_id, self.sentence)

    def query(self) -> Query:
        """The same with the moment, for evaluation."""
        return Query(self.told_id, self.video_id, self.sentence, ((self.start_seconds, self.end_seconds),))


def checked_sentence(sentence: str) -> str:
    """A sentence as it is kept: in one line, its blanks joined, its accents in the composed form.

    Raises:
        DataError: no word, too long, or with characters that are none of a sentence.

    >>> checked_sentence("  a dog \\n runs ")
    'a dog runs'
    """
    if any(unicodedata.category(letter) in ("Cs", "Co", "Cn") for letter in sentence) or any(
        unicodedata.category(letter) == "Cc" and not letter.isspace() for letter in sentence
    ):
        raise DataError("the sentence has control characters", mend="write letters, digits and signs only")
    kept = " ".join(unicodedata.normalize("NFC", sentence).split())
    if len(kept) > MAX_SENTENCE_CHARS:
        what = f"the sentence has {len(kept)} characters, more than {MAX_SENTENCE_CHARS}"
        raise DataError(what, mend="say it in fewer words")
    if not tokenize(kept):
        raise DataError("the sentence has no word", mend="write at least one word")
    return kept


def checked_moment(
    start_seconds: float, end_seconds: float, duration_seconds: float | None
) -> tuple[float, float]:
    """A moment as it is kept, in seconds; its end is at most that of its video.

    Args:
        duration_seconds: of the video; None: not known.
    Raises:
        DataError: not finite, empty, or outside of the video.

    >>> checked_moment(2.0, 10.2, 10.0)
    (2.0, 10.0)
    """
    if not (math.isfinite(start_seconds) and math.isfinite(end_seconds)):
        raise DataError("a time of the moment is not a number", mend="give start and end in seconds")
    if start_seconds < 0 or end_seconds <= start_seconds:
        what = f"a moment cannot last from {start_seconds:g} to {end_seconds:g} s"
        raise DataError(what, mend="let it start at 0 or later, and end after its start")
    if duration_seconds is None:
        return start_seconds, end_seconds
    if start_seconds >= duration_seconds or end_seconds > duration_seconds + END_SLACK_SECONDS:
        moment = f"the moment ({start_seconds:g} to {end_seconds:g} s)"
        what = f"{moment} is not inside of the video of {duration_seconds:g} s"
        raise DataError(what, mend="choose a moment of the video")
    return start_seconds, min(end_seconds, duration_seconds)


def read_told(home: Path) -> list[Told]:
    """All that was told, in the order of time.

    Raises:
        DataError: a line is damaged; the message names it.
    """
    file = home / TOLD_FILE
    try:
        if not file.stat().st_size:
            return []
    except FileNotFoundError:
        return []
    found = [_told(row, Where(file, number)) for number, row in read_rows(file)]
    if len({told.told_id for told in found}) < len(found):
        raise DataError("two lines have the same told_id", where=file, mend="remove one of them")
    return found


def tell(
    home: Path,
    video_id: str,
    start_seconds: float,
    end_seconds: float,
    sentence: str,
    duration_seconds: float | None = None,
) -> Told:
    """Keep a sentence for a moment; it is on disk on return.

    Args:
        home: the home's folder.
        duration_seconds: of the video; None: not known.
    Raises:
        DataError: the sentence or the moment cannot be; the same is kept already; there is no room for more; another
            process is writing.
    """
    kept = checked_sentence(sentence)
    start, end = checked_moment(start_seconds, end_seconds, duration_seconds)
    with _changing(home):
        before = read_told(home)
        if len(before) >= MAX_TOLD:
            what = f"{MAX_TOLD} sentences are kept here, which is the most"
            raise DataError(what, where=home / TOLD_FILE, mend="take some back")
        for told in before:
            if (told.video_id, told.start_seconds, told.end_seconds, told.sentence) == (
                video_id,
                start,
                end,
                kept,
            ):
                raise DataError("this sentence is kept for this moment already", mend="write another one")
        new = Told(secrets.token_urlsafe(9), video_id, start, end, kept, round(time(), 3))
        _write(home, [*before, new])
    return new


def take_back(home: Path, told_id: str) -> Told | None:
    """Forget what was told. Returns: what it was; None: there is nothing of this id.

    Raises:
        DataError: the file is damaged, or another process is writing.
    """
    with _changing(home):
        before = read_told(home)
        gone = next((told for told in before if told.told_id == told_id), None)
        if gone is not None:
            _write(home, [told for told in before if told is not gone])
    return gone


def pairs_of(told: Sequence[Told], video_ids: Collection[str]) -> tuple[TrainingPair, ...]:
    """What training may see of what was told of these videos: sentences and whose they are, each once."""
    distinct = {(each.video_id, each.sentence.casefold()): each for each in reversed(told)}
    first = {each.told_id for each in distinct.values()}
    return tuple(each.pair() for each in told if each.told_id in first and each.video_id in video_ids)


def _write(home: Path, told: Sequence[Told]) -> None:
    write_json_lines(home / TOLD_FILE, (asdict(each) for each in told))


@contextmanager
def _changing(home: Path) -> Iterator[None]:
    """Let nobody else change the file meanwhile; who holds it writes for a moment only, so it is waited for."""
    lock, end = _taken(home), monotonic() + WAIT_SECONDS
    while lock is None:
        sleep(0.02)
        lock = _taken(home, may_wait=monotonic() < end)
    try:
        yield
    finally:
        lock.close()


def _taken(home: Path, *, may_wait: bool = True) -> Lock | None:
    try:
        return take(home, "keeping a sentence", name=TOLD_LOCK)
    except DataError as error:
        if may_wait and isinstance(error.__cause__, BlockingIOError):
            return None
        raise


def _told(row: dict[str, Any], where: Where) -> Told:
    mend = "correct or remove the line"
    if set(row) != set(_FIELDS):
        raise DataError("this line does not hold what was told of a moment", where=where, mend=mend)
    texts, numbers = [row["told_id"], row["video_id"], row["sentence"]], [row[name] for name in _FIELDS[2:4]]
    numbers.append(row["written_unix"])
    if not all(isinstance(text, str) and text for text in texts) or not all(
        isinstance(number, int | float) and not isinstance(number, bool) and math.isfinite(number)
        for number in numbers
    ):
        raise DataError("a field has a value that cannot be", where=where, mend=mend)
    if not _TOLD_ID.fullmatch(texts[0]) or len(texts[1]) > MAX_ID_CHARS:
        raise DataError("an id cannot be", where=where, mend=mend)
    try:
        sentence, (start, end) = checked_sentence(texts[2]), checked_moment(numbers[0], numbers[1], None)
    except DataError as error:
        raise DataError(error.what, where=where, mend=mend) from error
    return Told(texts[0], texts[1], start, end, sentence, numbers[2])
