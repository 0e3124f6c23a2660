"""The readers of TACoS, TVR, QVHighlights, DiDeMo and the CPL release, on small files of their form."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dciml.datasets.readers import read_cpl, read_didemo, read_qvhighlights, read_tacos, read_tvr
from dciml.datasets.records import QueryFile
from dciml.errors import DataError

Read = Callable[..., QueryFile]

TACOS = {
    "timestamps": [[30, 90], [60, 330]],
    "sentences": ["He cuts.", "She eats."],
    "fps": 30.0,
    "num_frames": 300,
}
TVR = {"vid_name": "v", "duration": 60.5, "ts": [1, 70.0], "desc": "A dog.", "type": "vt", "desc_id": 90200}
QVH = {
    "qid": 7,
    "query": "A dog.",
    "duration": 150,
    "vid": "v_0.0_150.0",
    "relevant_windows": [[0, 4], [10, 12]],
}
DIDEMO = {
    "annotation_id": 1,
    "video": "v.mov",
    "description": "A dog.",
    "num_segments": 6,
    "times": [[4, 5], [0, 0], [0, 0]],
}


def write(path: Path, *values: Any) -> Path:
    """JSON lines for .jsonl, else one JSON value."""
    lines = [json.dumps(value) for value in values]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_tacos_frames_become_seconds(tmp_path: Path) -> None:
    file = read_tacos(write(tmp_path / "t.json", {"s1.avi": TACOS}), "train")
    assert file.durations == {"s1.avi": 10.0}
    assert [query.query_id for query in file.queries] == ["tacos_train_s1.avi_0", "tacos_train_s1.avi_1"]
    assert [query.moments for query in file.queries] == [((1.0, 3.0),), ((2.0, 10.0),)]
    assert file.num_clipped == 1


def test_tvr_ids_are_those_of_its_scorer(tmp_path: Path) -> None:
    public = {key: value for key, value in TVR.items() if key != "ts"} | {"desc_id": 3}
    file = read_tvr(write(tmp_path / "t.jsonl", TVR, public), "val")
    assert [(query.query_id, query.moments) for query in file.queries] == [
        ("90200", ((1.0, 60.5),)),
        ("3", ()),
    ]
    assert (file.durations, file.num_clipped, file.lines["3"]) == ({"v": 60.5}, 1, 2)


def test_qvhighlights_windows_are_all_true(tmp_path: Path) -> None:
    hidden = {key: value for key, value in QVH.items() if key != "relevant_windows"} | {"qid": 8}
    file = read_qvhighlights(write(tmp_path / "q.jsonl", QVH, hidden), "val")
    assert file.queries[0].moments == ((0.0, 4.0), (10.0, 12.0))
    assert file.queries[1].moments == ()
    assert [query.query_id for query in file.queries] == ["qvhighlights_7", "qvhighlights_8"]


def test_didemo_chunks_of_all_annotators_become_moments_most_named_first(tmp_path: Path) -> None:
    path = write(tmp_path / "d.json", [DIDEMO])
    file = read_didemo(path, "val")
    assert file.queries[0].moments == ((0.0, 5.0), (20.0, 30.0))
    assert (file.durations, file.num_clipped) == ({"v.mov": 30.0}, 0)
    known = read_didemo(path, "val", durations={"v.mov": 27.4})
    assert known.queries[0].moments == ((0.0, 5.0), (20.0, 27.4))
    assert (known.durations, known.num_clipped) == ({"v.mov": 27.4}, 1)


def test_cpl_rows_become_queries(tmp_path: Path) -> None:
    rows = [["AO8RW", 33.67, [0.0, 6.9], "a person reads."], ["AO8RW", 33.67, [5, 4], "person sits."]]
    file = read_cpl(write(tmp_path / "train.json", rows), "train")
    assert [(query.query_id, query.moments) for query in file.queries] == [
        ("cpl_train_000000", ((0.0, 6.9),)),
        ("cpl_train_000001", ()),
    ]
    assert (file.durations, file.num_dropped_moments) == ({"AO8RW": 33.67}, 1)


@pytest.mark.parametrize(
    ("read", "value", "message"),
    [
        (read_tacos, {"v": TACOS | {"fps": 0}}, "field fps: 0.0 is not a positive number"),
        (
            read_tacos,
            {"v": {k: TACOS[k] for k in ("timestamps", "sentences", "fps")}},
            "field num_frames: .*missing",
        ),
        (
            read_tacos,
            {"v": TACOS | {"sentences": ["One."]}},
            "field v: there are 2 timestamps and 1 sentences",
        ),
        (read_tacos, {"v": TACOS | {"timestamps": [[1], [2, 3]]}}, r"field v\.timestamps\[0\]: \[1\] is not"),
        (read_tacos, [], "this is not an object of videos"),
        (read_tvr, TVR | {"desc_id": None}, "line 1, field desc_id: the field is missing"),
        (read_tvr, TVR | {"ts": [1, 2, 3]}, r"line 1, field ts: \[1, 2, 3\] is not \[start, end\]"),
        (read_tvr, TVR | {"ts": [1, "x"]}, "line 1, field ts: this must be a number"),
        (read_tvr, TVR | {"ts": [5, 5]}, "line 1, field ts: the moment ends at its start"),
        (read_tvr, TVR | {"desc": "..."}, "line 1, field desc: the sentence '...' has no word"),
        (read_tvr, TVR | {"duration": "long"}, "line 1, field duration: this must be a number"),
        (read_tvr, [1], "line 1: the line is not a JSON object"),
        (read_qvhighlights, QVH | {"vid": 3}, "line 1, field vid: this must be a string"),
        (
            read_qvhighlights,
            QVH | {"relevant_windows": 3},
            "line 1, field relevant_windows: this must be a list",
        ),
        (read_qvhighlights, QVH | {"relevant_windows": [3]}, "line 1, field relevant_windows: 3 is not"),
        (
            read_qvhighlights,
            QVH | {"relevant_windows": [[0, 151]]},
            "line 1, field relevant_windows: the moment ends",
        ),
        (read_didemo, {}, "this is not a list of annotations"),
        (read_didemo, [3], r"field \[0\]: the entry is not an object"),
        (read_didemo, [DIDEMO | {"annotation_id": "x"}], r"field \[0\]: the id 'x' is not a whole number"),
        (read_didemo, [{}], r"field \[0\]: the field annotation_id is missing"),
        (read_didemo, [DIDEMO, DIDEMO], r"field \[1\]: the id 'didemo_1' comes twice"),
        (read_didemo, [DIDEMO | {"times": 3}], r"field \[0\]\.times: this must be a list"),
        (read_didemo, [DIDEMO | {"times": [[1]]}], r"field \[0\]\.times: \[1\] is not"),
        (
            read_didemo,
            [DIDEMO | {"times": [[7, 7]]}],
            r"field \[0\]\.times: .* lies wholly outside the video",
        ),
        (read_cpl, {}, "this is not a list of queries"),
        (read_cpl, [["v", 3.0, [0, 1]]], r"field \[0\]: the entry has another form"),
        (
            read_cpl,
            [["v", -3.0, [0, 1], "a dog"]],
            r"field \[0\]: the duration -3.0 is not a positive number",
        ),
        (read_cpl, [[4, 3.0, [0, 1], "a dog"]], r"field \[0\]: video and sentence must be strings"),
        (read_cpl, [["v", 3.0, [0, 1], "…"]], r"field \[0\]: the sentence '…' has no word"),
    ],
)
def test_malformed_annotation_is_refused_at_its_place(
    tmp_path: Path, read: Read, value: Any, message: str
) -> None:
    name = "a.jsonl" if read in (read_tvr, read_qvhighlights) else "a.json"
    with pytest.raises(DataError, match=rf"a\.jsonl?, ?.*{message}|a\.json: {message}"):
        read(write(tmp_path / name, value), "test", "refuse", "refuse")


@pytest.mark.parametrize(("read", "row"), [(read_tvr, TVR), (read_qvhighlights, QVH)])
def test_query_id_twice_is_refused(tmp_path: Path, read: Read, row: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=r"a\.jsonl, line 2: the query id .* is already that of line 1"):
        read(write(tmp_path / "a.jsonl", row, row), "test")
