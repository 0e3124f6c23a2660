"""Records: every way in which a line can be wrong is named with file, line, field and mend."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

import pytest

from dciml.datasets.records import read_pairs, read_queries, same_duration, write_queries
from dciml.errors import DataError
from dciml.types import Query, TrainingPair

GOOD = {"query_id": "q1", "video_id": "v1", "sentence": "A dog runs.", "duration": 10, "moments": [[1, 4.5]]}


def write(path: Path, *rows: object) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def test_records_survive_writing_and_reading(tmp_path: Path) -> None:
    queries = (
        Query("q1", "v1", "A dog «runs».", ((0.1, 2.5), (3.0, 4.0))),
        Query("q2", "v2", "no moments here"),
    )
    write_queries(tmp_path / "a.jsonl", queries, {"v1": 4.0})
    file = read_queries(tmp_path / "a.jsonl")
    assert file.queries == queries
    assert file.durations == {"v1": 4.0}
    assert (file.num_clipped, file.num_dropped_moments) == (0, 0)
    assert read_pairs(tmp_path / "a.jsonl") == tuple(query.pair() for query in queries)


def test_blank_lines_and_blanks_around_a_sentence_do_not_matter(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", GOOD | {"sentence": "  A dog. "}, "", GOOD | {"query_id": "q2"})
    assert [query.sentence for query in read_queries(path).queries] == ["A dog.", "A dog runs."]


BAD_LINES = [
    ("{half a line", r"a\.jsonl, line 2: the line is malformed"),
    ("[1]", "line 2: the line is not a JSON object"),
    ({"video_id": "v", "sentence": "a dog"}, "line 2, field query_id: the field is missing"),
    ({"query_id": "q", "sentence": "a dog"}, "line 2, field video_id: the field is missing"),
    ({"query_id": "q", "video_id": "v"}, "line 2, field sentence: the field is missing"),
    (GOOD | {"query_id": 7}, "line 2, field query_id: this must be a string, not a number"),
    (GOOD | {"query_id": ""}, "line 2, field query_id: the query_id is empty"),
    (GOOD | {"query_id": "q2", "sentence": None}, "line 2, field sentence: this must be a string, not null"),
    (GOOD | {"query_id": "q2", "sentence": "  "}, "line 2, field sentence: the sentence is empty"),
    (GOOD | {"query_id": "q2", "sentence": "?! …_"}, "line 2, field sentence: the sentence '.*' has no word"),
    (GOOD, "line 2, field query_id: the query id 'q1' is already that of line 1"),
    (GOOD | {"query_id": "q2", "moment": []}, "line 2, field moment: the field is unknown.*write 'moments'"),
]
BAD_MOMENTS = [
    ({"moments": "x"}, "field moments: this must be a list"),
    ({"moments": [[1]]}, r"field moments: \[1\] is not \[start, end\]"),
    ({"moments": [[1, "2"]]}, "field moments: this must be a number, not a string"),
    ({"moments": [[True, 2]]}, "field moments: this must be a number, not true or false"),
    ({"moments": [[float("nan"), 2]]}, r"field moments\[0\]\[0\]: the number is NaN"),
    ({"moments": [[1, float("inf")]]}, r"field moments\[0\]\[1\]: the number is Infinity"),
    ({"moments": [[-1, 2]]}, "field moments: the moment starts before the video"),
    ({"moments": [[4, 2]]}, "field moments: the moment ends before its start"),
    ({"moments": [[4, 4]]}, "field moments: the moment ends at its start"),
    ({"moments": [[11, 12]]}, "field moments: the moment .* lies wholly outside the video"),
    ({"moments": [[10, 12]]}, "field moments: the moment .* lies wholly outside the video"),
    ({"duration": "x"}, "field duration: this must be a number"),
    ({"duration": float("nan")}, "field duration: the number is NaN"),
    ({"duration": 0}, "field duration: 0.0 is not a positive number"),
    ({"duration": 50}, "field duration: the video 'v1' lasts 50.0 s here and 10.0 s elsewhere"),
]


@pytest.mark.parametrize(("line", "message"), BAD_LINES)
def test_bad_line_is_refused_for_training_and_evaluation(tmp_path: Path, line: object, message: str) -> None:
    path = write(tmp_path / "a.jsonl", GOOD, line)
    for read in (read_queries, read_pairs):
        with pytest.raises(DataError, match=message) as caught:
            read(path)
        assert "To mend it: " in str(caught.value)


@pytest.mark.parametrize(("change", "message"), BAD_MOMENTS)
def test_bad_moment_is_refused_by_read_queries(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    path = write(tmp_path / "a.jsonl", GOOD, GOOD | {"query_id": "q2"} | change)
    with pytest.raises(DataError, match=rf"a\.jsonl, line 2, {message}.*To mend it: "):
        read_queries(path)


@pytest.mark.parametrize("change", [c for c, message in BAD_MOMENTS if "number is" not in message])
def test_read_pairs_does_not_look_at_moments(tmp_path: Path, change: dict[str, object]) -> None:
    path = write(tmp_path / "a.jsonl", GOOD | change)
    assert read_pairs(path) == (TrainingPair("q1", "v1", "A dog runs."),)
    assert {field.name for field in fields(TrainingPair)} == {"query_id", "video_id", "sentence"}


@pytest.mark.parametrize("read", [read_queries, read_pairs])
def test_missing_empty_and_foreign_files_are_refused(tmp_path: Path, read: object) -> None:
    assert callable(read)
    with pytest.raises(DataError, match=r"none\.jsonl: there is no such file"):
        read(tmp_path / "none.jsonl")
    with pytest.raises(DataError, match=r"empty\.jsonl: the file is empty"):
        read(write(tmp_path / "empty.jsonl", ""))
    with pytest.raises(DataError, match="folder"):
        read(tmp_path)
    (tmp_path / "latin.jsonl").write_bytes(b'{"sentence": "\xff"}')
    with pytest.raises(DataError, match="not UTF-8"):
        read(tmp_path / "latin.jsonl")


def test_end_after_the_video_is_clipped_and_counted_or_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", GOOD | {"moments": [[1, 12], [2, 10], [3, 11]]})
    file = read_queries(path)
    assert file.queries[0].moments == ((1, 10), (2, 10), (3, 10))
    assert file.num_clipped == 2
    with pytest.raises(DataError, match=r"line 1, field moments: the moment ends at 12\.0 s, after the end"):
        read_queries(path, past_end="refuse")


def test_given_durations_count_before_the_lines_own(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", GOOD | {"moments": [[1, 12]]})
    file = read_queries(path, {"v1": 9.5})
    assert file.queries[0].moments == ((1, 9.5),)
    assert file.durations == {}


def test_impossible_moments_are_dropped_and_counted_on_request(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", GOOD | {"moments": [[4, 2], [1, 2], [11, 12]]})
    file = read_queries(path, bad_moments="drop")
    assert file.queries[0].moments == ((1, 2),)
    assert file.num_dropped_moments == 2


def test_same_duration_allows_what_tools_differ_by() -> None:
    assert same_duration(30.0, 30.9)
    assert same_duration(1000.0, 1015.0)
    assert not same_duration(30.0, 32.0)
