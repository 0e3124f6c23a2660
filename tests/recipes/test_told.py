"""What people told of moments is kept whole, and only what can be is kept."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from dciml.errors import DataError
from dciml.locks import take
from dciml.recipes import told as recipe
from dciml.recipes.told import TOLD_FILE, TOLD_LOCK, pairs_of, read_told, take_back, tell
from dciml.types import TrainingPair


def test_what_is_told_is_kept_and_taken_back(tmp_path: Path) -> None:
    assert read_told(tmp_path) == []
    one = tell(tmp_path, "a b/ü.mp4", 1.0, 2.5, "  a dog\n runs ", 10.0)
    two = tell(tmp_path, "other", 0.0, 10.2, "Süßes", 10.0)
    assert (one.sentence, two.end_seconds) == ("a dog runs", 10.0)
    assert read_told(tmp_path) == [one, two]
    assert json.loads((tmp_path / TOLD_FILE).read_text().splitlines()[0])["video_id"] == "a b/ü.mp4"
    assert take_back(tmp_path, one.told_id) == one
    assert take_back(tmp_path, one.told_id) is None
    assert read_told(tmp_path) == [two]
    take_back(tmp_path, two.told_id)
    assert read_told(tmp_path) == []


@pytest.mark.parametrize(
    ("start", "end", "sentence", "words"),
    [
        (1.0, 2.0, "", "has no word"),
        (1.0, 2.0, "?!", "has no word"),
        (1.0, 2.0, "a\x00b", "control characters"),
        (1.0, 2.0, "a\x1b[31mb", "control characters"),
        (1.0, 2.0, "a \ud800 b", "control characters"),
        (1.0, 2.0, "long " * 101, "more than 500"),
        (float("nan"), 2.0, "a dog", "is not a number"),
        (1.0, float("inf"), "a dog", "is not a number"),
        (2.0, 2.0, "a dog", "cannot last from 2 to 2 s"),
        (-1.0, 2.0, "a dog", "cannot last from -1"),
        (11.0, 12.0, "a dog", "not inside of the video of 10 s"),
        (1.0, 11.0, "a dog", "not inside of the video of 10 s"),
    ],
)
def test_what_cannot_be_is_refused(
    tmp_path: Path, start: float, end: float, sentence: str, words: str
) -> None:
    with pytest.raises(DataError, match=words) as error:
        tell(tmp_path, "a", start, end, sentence, 10.0)
    assert error.value.mend
    assert read_told(tmp_path) == []


def test_the_same_is_kept_once_and_not_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tell(tmp_path, "a", 1.0, 2.0, "a dog")
    with pytest.raises(DataError, match="kept for this moment already"):
        tell(tmp_path, "a", 1.0, 2.0, " a  dog ")
    monkeypatch.setattr(recipe, "MAX_TOLD", 1)
    with pytest.raises(DataError, match="1 sentences are kept here, which is the most"):
        tell(tmp_path, "a", 1.0, 2.0, "a cat")


GOOD = {
    "told_id": "a",
    "video_id": "v",
    "start_seconds": 0,
    "end_seconds": 1,
    "sentence": "x",
    "written_unix": 0,
}


@pytest.mark.parametrize(
    "line",
    [
        "[]",
        '{"told_id": "a"}',
        *(
            json.dumps(GOOD | change)
            for change in (
                {"start_seconds": "0"},
                {"start_seconds": True},
                {"start_seconds": 1},
                {"start_seconds": float("nan")},
                {"told_id": "../a"},
                {"sentence": ""},
                {"more": 1},
            )
        ),
    ],
)
def test_a_damaged_line_is_named(tmp_path: Path, line: str) -> None:
    tell(tmp_path, "a", 1.0, 2.0, "a dog")
    with (tmp_path / TOLD_FILE).open("a") as file:
        file.write(line + "\n")
    with pytest.raises(DataError, match=rf"{TOLD_FILE}, line 2"):
        read_told(tmp_path)
    before = (tmp_path / TOLD_FILE).read_text()
    with pytest.raises(DataError, match="line 2"):
        tell(tmp_path, "a", 1.0, 2.0, "a cat")
    assert (tmp_path / TOLD_FILE).read_text() == before  # what cannot be read is not written over


def test_two_processes_lose_nothing(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from dciml.recipes.told import tell\n"
        "for n in range(15): tell(Path(sys.argv[1]), 'a', 0.0, 1.0, f'{sys.argv[2]} {n}')"
    )
    both = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path), name]) for name in ("one", "two")]
    assert [process.wait() for process in both] == [0, 0]
    assert {told.sentence for told in read_told(tmp_path)} == {
        f"{name} {n}" for name in ("one", "two") for n in range(15)
    }


def test_who_writes_for_long_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipe, "WAIT_SECONDS", 0.05)
    lock = take(tmp_path, "holding it", name=TOLD_LOCK)
    with pytest.raises(DataError, match="holding it"):
        tell(tmp_path, "a", 0.0, 1.0, "a dog")
    lock.close()


def test_training_sees_sentences_and_videos_alone(tmp_path: Path) -> None:
    one = tell(tmp_path, "a", 0.0, 1.0, "A dog")
    tell(tmp_path, "a", 5.0, 6.0, "a dog")
    three = tell(tmp_path, "b", 0.0, 1.0, "a dog")
    tell(tmp_path, "gone", 0.0, 1.0, "a dog")
    pairs = pairs_of(read_told(tmp_path), {"a", "b"})
    assert pairs == (
        TrainingPair(one.told_id, "a", "A dog"),
        TrainingPair(three.told_id, "b", "a dog"),
    )
