"""Captions of the PRVR releases, and the moments that other annotations give them."""

from __future__ import annotations

from pathlib import Path

import pytest

from dciml.datasets.prvr import Annotated, read_prvr_captions
from dciml.datasets.records import QueryFile
from dciml.errors import DataError
from dciml.types import Query

ANNOTATED = QueryFile(
    (
        Query("1", "v", " A dog runs!", ((0.0, 2.0),)),
        Query("2", "v", "a cat sits", ((2.0, 3.0),)),
        Query("3", "v", "A dog runs.", ((5.0, 6.0),)),
    ),
    durations={"v": 9.0, "unused": 3.0},
)


def test_captions_keep_their_ids_and_find_their_moments_by_video_and_words(tmp_path: Path) -> None:
    path = tmp_path / "xtrain.caption.txt"
    path.write_text("v#enc#0 a dog runs.\n\nv#enc#1 a dog runs.\nv#enc#2 a dog runs\nw#enc#0 a cat sits\n")
    file = read_prvr_captions(path, Annotated.of([ANNOTATED]))
    assert [(query.query_id, query.video_id) for query in file.queries][-1] == ("w#enc#0", "w")
    # The same sentence describes two moments; a third caption of it gets the last.
    assert [query.moments for query in file.queries] == [((0.0, 2.0),), ((5.0, 6.0),), ((5.0, 6.0),), ()]
    assert (file.durations, file.lines["v#enc#1"]) == ({"v": 9.0}, 3)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("v a dog", "line 2: the line is malformed.*VIDEO#enc#NUMBER CAPTION"),
        ("#enc#0 a dog", "line 2: the line is malformed"),
        ("v#enc#0 a dog", "line 2: the caption id 'v#enc#0' is already that of line 1"),
        ("v#enc#1", "line 2, field caption: the sentence is empty"),
        ("v#enc#1 ...", "line 2, field caption: the sentence '...' has no word"),
    ],
)
def test_malformed_caption_is_refused(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "c.txt"
    path.write_text(f"v#enc#0 a dog\n{line}\n")
    with pytest.raises(DataError, match=rf"c\.txt, {message}"):
        read_prvr_captions(path)
