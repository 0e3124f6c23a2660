"""The counts that must come out of the released annotations, where they are at hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from dciml.datasets import published
from dciml.datasets.published import Counts, PublishedSet
from dciml.errors import DataError

ANNOTATIONS = Path(__file__).resolve().parents[2].parent / "shared/data/annotations"

RELEASED = [
    (published.ACTIVITYNET, "activitynet_captions", "train", 10_009, 37_421),
    (published.ACTIVITYNET, "activitynet_captions", "val_1", 4_917, 17_505),
    (published.ACTIVITYNET, "activitynet_captions", "val_2", 4_885, 17_031),
    (published.CHARADES_STA, "charades_sta", "train", 5_338, 12_408),
    (published.CHARADES_STA, "charades_sta", "test", 1_334, 3_720),
    (published.CPL, "cpl_charades", "train", 4_842, 10_602),
    (published.CPL, "cpl_charades", "test", 1_225, 3_158),
    (published.TACOS, "tacos", "train", 75, 9_790),
    (published.TACOS, "tacos", "val", 27, 4_436),
    (published.TACOS, "tacos", "test", 25, 4_001),
    (published.TVR, "tvr", "val", 2_179, 10_895),
    (published.DIDEMO, "didemo", "val", 1_094, 4_180),
    (published.DIDEMO, "didemo", "test", 1_037, 4_021),
    (published.QVHIGHLIGHTS, "qvhighlights", "train", 7_100, 7_218),
    (published.QVHIGHLIGHTS, "qvhighlights", "val", 1_519, 1_550),
    (published.QVHIGHLIGHTS, "qvhighlights", "test", 1_529, 1_542),
]


@pytest.mark.parametrize(
    ("data", "folder", "split", "videos", "sentences"),
    RELEASED,
    ids=lambda value: getattr(value, "name", value),
)
def test_released_annotations_have_the_published_counts(
    data: PublishedSet, folder: str, split: str, videos: int, sentences: int
) -> None:
    if not (ANNOTATIONS / folder).is_dir():
        pytest.skip(f"the annotations {folder} are not here")
    path = data.find(ANNOTATIONS / folder)[split]
    file = data.read(path, split, "clip", "drop")
    found = Counts(len(file.durations), len(file.queries))
    assert (found.videos, found.sentences) == (videos, sentences)
    expected = data.expected(split, path)
    assert expected is not None
    assert expected.agree(found)
    assert len({query.query_id for query in file.queries}) == sentences
    for query in file.queries:
        assert all(0 <= start < end <= file.durations[query.video_id] for start, end in query.moments)


def test_missing_folder_a_file_and_a_folder_of_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no such folder"):
        published.TACOS.find(tmp_path / "none")
    (tmp_path / "train.txt").write_text("x")
    with pytest.raises(DataError, match="this is a file, not a folder"):
        published.TACOS.find(tmp_path / "train.txt")
    with pytest.raises(DataError, match=r"none of the tacos files.*: train\.json, val\.json, test\.json"):
        published.TACOS.find(tmp_path)


def test_counts_agree_where_the_number_of_videos_is_not_published() -> None:
    assert Counts(None, 5).agree(Counts(3, 5))
    assert not Counts(None, 5).agree(Counts(3, 6))
    assert not Counts(2, 5).agree(Counts(3, 5))
    assert (str(Counts(1_234, 5)), str(Counts(None, 5))) == ("1,234 videos, 5 sentences", "5 sentences")
