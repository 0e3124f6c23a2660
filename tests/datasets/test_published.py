"""The readers of Charades-STA and ActivityNet Captions, on small files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dciml.datasets.readers import read_activitynet, read_charades_durations, read_charades_sta
from dciml.errors import DataError

CSV = 'id,scene,length\nAAAAA,Bedroom,30.5\nBBBBB,"Hall, big",12\n'


def text(path: Path, content: str) -> Path:
    path.write_text(content)
    return path


def test_charades_lines_become_queries(tmp_path: Path) -> None:
    durations = read_charades_durations(text(tmp_path / "c.csv", CSV))
    assert durations == {"AAAAA": 30.5, "BBBBB": 12.0}
    lines = "AAAAA 1.5 31.0##a person opens a door.\nBBBBB 8.0 7.0##person sits.\n"
    file = read_charades_sta(text(tmp_path / "t.txt", lines), "test", durations)
    assert [query.query_id for query in file.queries] == ["charades_test_000000", "charades_test_000001"]
    assert [query.moments for query in file.queries] == [((1.5, 30.5),), ()]
    assert (file.num_clipped, file.num_dropped_moments) == (1, 1)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("AAAAA 1 2 a person", "line 2: the line is malformed"),
        ("AAAAA 1##a person", "line 2: the line is malformed"),
        ("AAAAA x 2##a person", "line 2, field start: 'x' is not a number"),
        ("AAAAA 1 nan##a person", "line 2: the moment .* is not finite"),
        ("CCCCC 1 2##a person", "line 2: the duration of the video 'CCCCC' is not known"),
        ("AAAAA 1 2## ", "line 2, field sentence: the sentence is empty"),
        ("AAAAA 1 2##...", "line 2, field sentence: the sentence '...' has no word"),
        ("AAAAA 3 2##a person", "line 2: the moment ends before its start"),
        ("AAAAA 1 99##a person", "line 2: the moment ends at 99.0 s, after"),
    ],
)
def test_bad_charades_line_is_refused(tmp_path: Path, line: str, message: str) -> None:
    path = text(tmp_path / "t.txt", f"BBBBB 0 1##a person\n{line}\n")
    with pytest.raises(DataError, match=rf"t\.txt, {message}"):
        read_charades_sta(path, "test", {"AAAAA": 30.5, "BBBBB": 9.0}, "refuse", "refuse")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("id,scene\nA,B\n", "field length: the column is missing"),
        ("id,length\nA,x\n", "line 2, field length: 'x' is not a number"),
        ("id,length\nA,0\n", "line 2, field length: 0.0 is not a positive number"),
        ("id,length\nA\n", "line 2, field length: None is not a number"),
        ("id,length\nA,1\nA,2\n", "line 3, field id: the video 'A' comes twice"),
    ],
)
def test_bad_charades_csv_is_refused(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_charades_durations(text(tmp_path / "c.csv", content))


def test_activitynet_entries_become_queries(tmp_path: Path) -> None:
    content = {
        "v_a": {
            "duration": 20,
            "timestamps": [[0, 5], [4, 21], [9, 9]],
            "sentences": ["One.", " Two.", "Three."],
        }
    }
    file = read_activitynet(text(tmp_path / "a.json", json.dumps(content)), "train")
    assert [query.query_id for query in file.queries] == [f"activitynet_train_v_a_{i}" for i in range(3)]
    assert [query.moments for query in file.queries] == [((0, 5),), ((4, 20),), ()]
    assert file.queries[1].sentence == "Two."
    assert file.durations == {"v_a": 20.0}
    assert (file.num_clipped, file.num_dropped_moments) == (1, 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"duration": None}, "field duration: this must be a number"),
        ({"duration": -1}, "field duration: -1.0 is not a positive number"),
        ({"timestamps": None}, r"field v\.timestamps: the field is missing"),
        ({"sentences": "x"}, r"field v\.sentences: this must be a list"),
        ({"sentences": []}, "field v: there are 1 timestamps and 0 sentences"),
        ({"sentences": [3]}, r"field v\.sentences\[0\]: this must be a string"),
        ({"sentences": ["  "]}, r"field v\.sentences\[0\]: the sentence is empty"),
        ({"timestamps": [[1]]}, r"field v\.timestamps\[0\]: \[1\] is not"),
        ({"timestamps": [[1, float("nan")]]}, r"timestamps\[0\]\[1\]: the number is NaN"),
        ({"timestamps": [[3, 2]]}, r"field v\.timestamps\[0\]: the moment ends before its start"),
    ],
)
def test_bad_activitynet_entry_is_refused(tmp_path: Path, change: dict[str, object], message: str) -> None:
    entry = {"duration": 10, "timestamps": [[0, 5]], "sentences": ["A dog."]} | change
    path = text(tmp_path / "a.json", json.dumps({"v": entry}))
    with pytest.raises(DataError, match=message):
        read_activitynet(path, "train", bad_moments="refuse")


@pytest.mark.parametrize("content", ["[]", "{}", '{"v": 3}', '{"v": '])
def test_file_of_another_form_is_refused(tmp_path: Path, content: str) -> None:
    with pytest.raises(DataError, match=r"a\.json"):
        read_activitynet(text(tmp_path / "a.json", content), "train")
