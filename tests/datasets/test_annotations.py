"""Exports of annotation tools: what is read of them, and that a fault is named with its place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dciml.datasets.annotations import read_annotations
from dciml.errors import DataError
from dciml.features.store import FeatureStoreWriter, StoreManifest
from dciml.recipes.prepare import ImportOptions, prepare_records


def region(start: int, end: int, label: str = "a dog runs", name: str = "r1") -> dict[str, Any]:
    value = {"ranges": [{"start": start, "end": end}], "timelinelabels": [label]}
    return {"id": name, "type": "timelinelabels", "from_name": "moments", "to_name": "video", "value": value}


def task(*results: dict[str, Any], **data: Any) -> dict[str, Any]:
    stated = {"video": "/data/upload/1/3f2a1b2c-beach%20day.mp4", "fps": 25, **data}
    return {"id": 1, "data": stated, "annotations": [{"id": 1, "result": list(results)}]}


def write(path: Path, content: Any) -> Path:
    path.write_text(json.dumps(content))
    return path


def test_pictures_count_from_one_and_the_last_one_belongs_to_the_moment(tmp_path: Path) -> None:
    (query,) = read_annotations(write(tmp_path / "p.json", [task(region(26, 50))])).queries
    assert (query.query_id, query.video_id, query.sentence) == ("p_1", "beach day.mp4", "a dog runs")
    assert query.moments == ((1.0, 2.0),)


def test_moments_of_one_sentence_are_one_query_and_doubles_count_once(tmp_path: Path) -> None:
    tasks = [
        task(region(26, 50), region(101, 125), region(1, 25, "a cat")),
        task(region(26, 50), duration=30),
    ]
    file = read_annotations(write(tmp_path / "p.json", tasks))
    assert [(query.sentence, query.moments) for query in file.queries] == [
        ("a dog runs", ((1.0, 2.0), (4.0, 5.0))),
        ("a cat", ((0.0, 1.0),)),
    ]
    assert file.durations == {"beach day.mp4": 30.0}


def test_a_text_of_a_region_is_its_sentence_and_seconds_are_taken_as_they_are(tmp_path: Path) -> None:
    text = {"id": "r1", "type": "textarea", "value": {"text": ["a dog", "jumps"], "ranges": []}}
    seconds = {"id": "r2", "type": "labels", "value": {"start": 2.5, "end": 4, "labels": ["a cat sleeps"]}}
    cancelled = {"was_cancelled": True, "result": [region(1, 2, "nothing")]}
    one = task(region(26, 50, "moment"), text, seconds)
    one["annotations"].append(cancelled)
    one["predictions"] = [{"result": [region(1, 99, "guessed")]}]
    queries = read_annotations(write(tmp_path / "p.json", [one])).queries
    assert [(query.sentence, query.moments) for query in queries] == [
        ("a dog jumps", ((1.0, 2.0),)),
        ("a cat sleeps", ((2.5, 4.0),)),
    ]


def test_temporal_detections_of_fiftyone(tmp_path: Path) -> None:
    labels = {
        "classes": ["a cat", "a dog"],
        "labels": {
            "/videos/beach.mp4": [
                {"label": 1, "timestamps": [0.5, 2.0], "confidence": 0.9},
                {"label": "a wave", "timestamps": [3, 4], "attributes": {"video_id": "trip/beach"}},
            ],
            "empty.mp4": None,
        },
    }
    queries = read_annotations(write(tmp_path / "labels.json", labels)).queries
    assert [(query.video_id, query.sentence, query.moments) for query in queries] == [
        ("beach.mp4", "a dog", ((0.5, 2.0),)),
        ("trip/beach", "a wave", ((3.0, 4.0),)),
    ]


def test_json_lines_are_records_whatever_their_name(tmp_path: Path) -> None:
    row = {"query_id": "q", "video_id": "v", "sentence": "a dog"}
    for rows in ([row], [row, {**row, "query_id": "r"}]):
        (tmp_path / "mine.json").write_text("\n".join(map(json.dumps, rows)))
        assert len(read_annotations(tmp_path / "mine.json").queries) == len(rows)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([], "no marked moment"),
        ([task()], "no marked moment"),
        ([{"video": "a.mp4", "moments": []}], r"\[0\].data: this must be an object.*not as JSON-MIN"),
        ([task(region(1, 2), fps=None)], r"\[0\].data.fps: .*frame rate is not stated"),
        ([task(region(1, 2), fps=0)], "no frame rate"),
        ([task(region(1, 2), video="")], r"data.video: the task names no video"),
        ([task(region(1, 2, ""))], "sentence is empty"),
        ([task(region(50, 2))], r"result\[0\].value.ranges\[0\]: the moment ends before its start"),
        ([task({**region(1, 2), "value": {"ranges": [{"start": 1, "end": 2}]}})], "no sentence"),
        ([task({**region(1, 2), "value": {"ranges": {}, "timelinelabels": ["a"]}})], "must be a list"),
        ([task({**region(1, 2), "value": []})], "must be an object"),
        ([task(region(1, "two"))], "must be a number"),
        ({"classes": None, "labels": {"a": [{"label": "a", "support": [1, 2]}]}}, "use_timestamps=True"),
        ({"classes": ["a"], "labels": {"a": [{"label": 3, "timestamps": [1, 2]}]}}, "no sentence"),
        ({"classes": None, "labels": {"a": [{"label": "a", "timestamps": [1]}]}}, "not .start, end."),
        ({"classes": None, "labels": {"a": {}, "b": 3}}, "must be a list"),
        ({"classes": None, "labels": []}, "must be an object"),
    ],
)
def test_a_fault_is_named_with_its_place(tmp_path: Path, content: Any, said: str) -> None:
    with pytest.raises(DataError, match=said):
        read_annotations(write(tmp_path / "p.json", content))


def test_import_records_takes_an_export(tmp_path: Path) -> None:
    with FeatureStoreWriter(tmp_path / "store", StoreManifest("rows", 4, 1.0)) as writer:
        writer.append("beach day", np.ones((10, 4)), 10.0)
    file = write(tmp_path / "p.json", [task(region(26, 500))])
    out = prepare_records({"test": file}, tmp_path / "store", tmp_path / "data", "mine", ImportOptions())
    (query,) = out.folder.queries("test")
    assert (query.video_id, query.moments) == ("beach day", ((1.0, 10.0),))
    assert out.splits["test"].clipped_moments == 1
