"""A table of one's own sentences."""

from __future__ import annotations

from pathlib import Path

import pytest

from dciml.datasets.csv_records import read_csv_queries
from dciml.errors import DataError


def table(path: Path, text: str) -> Path:
    path.write_bytes(text.encode())
    return path


def test_table_becomes_queries(tmp_path: Path) -> None:
    text = (
        "\ufeffVideo, Sentence,start,end\r\n"
        'kitchen.mp4,"he takes out milk, and drinks",18,0:25\r\n'
        "\r\n"
        "kitchen.mp4,Ein Hund läuft über die Straße,1:02:03.5,1:02:04\r\n"
        "garden.mp4,no time is known,,\r\n"
    )
    file = read_csv_queries(table(tmp_path / "mine.csv", text))
    assert [(query.query_id, query.video_id) for query in file.queries] == [
        ("mine_2", "kitchen.mp4"),
        ("mine_4", "kitchen.mp4"),
        ("mine_5", "garden.mp4"),
    ]
    assert [query.moments for query in file.queries] == [((18.0, 25.0),), ((3723.5, 3724.0),), ()]
    assert file.queries[0].sentence == "he takes out milk, and drinks"
    assert file.lines["mine_4"] == 4


@pytest.mark.parametrize("mark", [";", "\t"])
def test_semicolons_and_tabs_separate_too(tmp_path: Path, mark: str) -> None:
    text = f"sentence{mark}video{mark}duration{mark}query_id\na dog, it runs{mark}v{mark}12.5{mark}q7\n"
    file = read_csv_queries(table(tmp_path / "t.tsv", text))
    assert (file.queries[0].query_id, file.queries[0].sentence) == ("q7", "a dog, it runs")
    assert file.durations == {"v": 12.5}


def test_known_duration_clips_a_moment(tmp_path: Path) -> None:
    path = table(tmp_path / "t.csv", "video,sentence,start,end\nv,a dog,1,99\n")
    file = read_csv_queries(path, {"v": 10.0})
    assert (file.queries[0].moments, file.num_clipped) == (((1.0, 10.0),), 1)
    with pytest.raises(DataError, match=r"t\.csv, line 2, field start: the moment ends at 99.0 s, after"):
        read_csv_queries(path, {"v": 10.0}, past_end="refuse")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("video,text\nv,a dog\n", "line 1, field text: the column is unknown.*the known columns are video"),
        ("video,sentense\nv,a dog\n", "line 1, field sentense: the column is unknown.*name it 'sentence'"),
        ("sentence\na dog\n", "line 1, field video: the column is missing"),
        ("video,sentence,video\nv,a dog,w\n", "line 1, field video: the column comes twice"),
        ("video,sentence,start\nv,a dog,1\n", "line 1: of start and end one is missing"),
        ("video,sentence\nv,a dog,1\n", "line 2: the line has 3 cells, the header has 2.*in quotes"),
        ("video,sentence\n,a dog\n", "line 2, field video: the video is empty"),
        ("video,sentence\nv,\n", "line 2, field sentence: the sentence is empty"),
        ("video,sentence\nv,...\n", "line 2, field sentence: the sentence '...' has no word"),
        ("video,sentence,start,end\nv,a dog,1,\n", "line 2, field end: the cell is empty"),
        ("video,sentence,start,end\nv,a dog,x,2\n", "line 2, field start: 'x' is not a time"),
        ("video,sentence,start,end\nv,a dog,-1,2\n", "line 2, field start: '-1' is not a time"),
        ("video,sentence,start,end\nv,a dog,1,nan\n", "line 2, field end: 'nan' is not a time"),
        ("video,sentence,start,end\nv,a dog,3,2\n", "line 2, field start: the moment ends before its start"),
        ("video,sentence,duration\nv,a dog,0\n", "line 2, field duration: the duration is not above 0"),
        (
            "video,sentence,duration\nv,a,9\nv,b,30\n",
            "line 3, field duration: the video 'v' lasts 30.0 s here",
        ),
        (
            "video,sentence,query_id\nv,a,q\nv,b,q\n",
            "line 3, field query_id: the query id 'q' is already .* line 2",
        ),
        ('video,sentence\nv,"a dog\n', "line 2: the line is malformed"),
        ("video,sentence\n", "the table has no line below its header"),
        ("", "the file is empty"),
    ],
)
def test_bad_table_is_refused_at_line_and_column(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=rf"t\.csv.*{message}"):
        read_csv_queries(table(tmp_path / "t.csv", text))
