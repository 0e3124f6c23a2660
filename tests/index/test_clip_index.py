from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from dciml.errors import DataError, ModelError
from dciml.index import ClipIndex, embedded
from dciml.index.catalogue import Catalogue

CLIPS, WIDTH = 4, 5
Vectors = NDArray[np.float32]


def make_index(folder: Path) -> ClipIndex:
    return ClipIndex.create(
        folder / "index",
        num_clips=CLIPS,
        width=WIDTH,
        fingerprint="abc",
        model_folder=folder / "model",
        store_path=folder / "store",
    )


def random_vectors(num_videos: int, seed: int = 0) -> Vectors:
    # Small whole numbers: inner products are exact, and many scores tie.
    return np.random.default_rng(seed).integers(-2, 3, (num_videos, CLIPS, WIDTH)).astype(np.float32)


def slow_search(
    vectors: dict[str, Vectors], query: Vectors, num_videos: int, within: Sequence[str] | None = None
) -> list[tuple[str, float]]:
    scored = []
    for video_id in vectors if within is None else set(within):
        scored.append((video_id, max(float(sum(query * clip)) for clip in vectors[video_id])))
    return sorted(scored, key=lambda pair: (-pair[1], pair[0]))[:num_videos]


def as_pairs(index: ClipIndex, query: Vectors, num_videos: int, within: Sequence[str] | None = None) -> list:
    return [(m.video_id, m.score) for m in index.search(query[None], num_videos, within)[0]]


@settings(deadline=None, max_examples=8)
@given(seed=st.integers(0, 10_000), num_videos=st.integers(1, 30), data=st.data())
def test_search_equals_slow_definition_with_ties(
    tmp_path_factory: pytest.TempPathFactory, seed: int, num_videos: int, data: st.DataObject
) -> None:
    rng = np.random.default_rng(seed)
    ids = [f"v{number}" for number in rng.permutation(num_videos)]
    vectors = random_vectors(num_videos, seed)
    index = make_index(tmp_path_factory.mktemp("ties"))
    index.add(ids, vectors, np.ones(num_videos))
    by_id = dict(zip(ids, vectors, strict=True))
    within = data.draw(st.lists(st.sampled_from(ids), min_size=1))
    for query in rng.integers(-2, 3, (8, WIDTH)).astype(np.float32):
        for k in (1, num_videos // 2 + 1, 40):
            assert as_pairs(index, query, k) == slow_search(by_id, query, k)
            assert as_pairs(index, query, k, within) == slow_search(by_id, query, k, within)


def test_search_gives_all_clip_scores_and_duration(tmp_path: Path) -> None:
    index, vectors = make_index(tmp_path), random_vectors(3)
    index.add(["a", "b", "c"], vectors, [1.0, 2.0, 3.0])
    query = np.arange(WIDTH, dtype=np.float32)
    for match in index.search(query[None], 3)[0]:
        place = "abc".index(match.video_id)
        np.testing.assert_array_equal(match.clip_scores, vectors[place] @ query)
        assert match.duration_seconds == place + 1.0


def test_search_in_blocks_equals_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = make_index(tmp_path)
    index.add([f"v{i}" for i in range(9)], random_vectors(9), np.ones(9))
    queries = np.random.default_rng(1).integers(-2, 3, (7, WIDTH)).astype(np.float32)
    alone = [as_pairs(index, query, 4) for query in queries]
    monkeypatch.setattr("dciml.index.state.BLOCK_SCORES", 2 * 9 * CLIPS)
    monkeypatch.setattr("dciml.index.state.BLOCK_PAIRS", 3)
    assert [[(m.video_id, m.score) for m in row] for row in index.search(queries, 4)] == alone
    ids = [f"v{i}" for i in range(7)]
    expected = np.einsum("nd,nsd->ns", queries, random_vectors(9)[:7])
    np.testing.assert_array_equal(index.pair_scores(queries, ids), expected)


def test_add_and_remove_keep_the_others_and_survive_reopening(tmp_path: Path) -> None:
    index, vectors = make_index(tmp_path), random_vectors(6)
    index.add(["a", "b", "c"], vectors[:3], [1, 2, 3])
    index.add(["d", "e"], vectors[3:5], [4, 5])
    index.remove(["b", "d", "b"])
    index.add(["b"], vectors[5:], [6])
    expected = {"a": vectors[0], "c": vectors[2], "e": vectors[4], "b": vectors[5]}
    query = np.array([1, -1, 2, 0, 1], dtype=np.float32)
    for opened in (index, ClipIndex.open(index.path)):
        assert opened.video_ids == ("a", "c", "e", "b")
        assert opened.durations_seconds.tolist() == [1, 3, 5, 6]
        assert as_pairs(opened, query, 10) == slow_search(expected, query, 10)
    assert sorted(file.name for file in index.path.iterdir()) == [
        "catalogue.sqlite",
        *(f"segment-{n}.vectors" for n in (1, 2, 3)),
    ]


def test_removed_keys_are_never_used_again(tmp_path: Path) -> None:
    index = make_index(tmp_path)
    index.add(["a", "b"], random_vectors(2), [1, 1])
    index.remove(["b"])
    index.add(["b"], random_vectors(1), [1])
    assert Catalogue(index.path / "catalogue.sqlite").read().keys.tolist() == [1, 3]


def test_empty_index_can_be_opened_and_searched(tmp_path: Path) -> None:
    make_index(tmp_path)
    index = ClipIndex.open(tmp_path / "index")
    assert len(index) == 0
    assert index.search(np.zeros((2, WIDTH)), 5) == [[], []]


@pytest.mark.parametrize(
    ("ids", "durations", "said"),
    [
        (["a", "a"], [1, 1], "in the index already"),
        (["old", "b"], [1, 1], "'old' is in the index already"),
        (["b", "c"], [1, 0], "'c' has a vector or a duration"),
        (["b", "c"], [np.nan, 1], "'b' has a vector or a duration"),
    ],
)
def test_add_refuses_and_changes_nothing(
    tmp_path: Path, ids: list[str], durations: list[float], said: str
) -> None:
    index = make_index(tmp_path)
    index.add(["old"], random_vectors(1), [1])
    with pytest.raises(DataError, match=said):
        index.add(ids, random_vectors(2), durations)
    assert ClipIndex.open(index.path).video_ids == index.video_ids == ("old",)


def test_add_refuses_vectors_that_are_not_finite(tmp_path: Path) -> None:
    vectors = random_vectors(2)
    vectors[1, 0, 0] = np.inf
    with pytest.raises(DataError, match="'b' has a vector"):
        make_index(tmp_path).add(["a", "b"], vectors, [1, 1])


def test_wrong_shapes_are_refused(tmp_path: Path) -> None:
    index = make_index(tmp_path)
    with pytest.raises(ValueError, match="must have the shape"):
        index.add(["a"], random_vectors(2), [1])
    with pytest.raises(ValueError, match="must have the shape"):
        index.search(np.zeros((1, WIDTH + 1)), 1)
    with pytest.raises(ValueError, match="not finite"):
        index.search(np.full((1, WIDTH), np.nan), 1)


def test_unknown_video_is_named_with_the_nearest(tmp_path: Path) -> None:
    index = make_index(tmp_path)
    index.add(["kitchen"], random_vectors(1), [1])
    with pytest.raises(DataError, match=r"'kitchn'.*did you mean 'kitchen'"):
        index.remove(["kitchn"])
    with pytest.raises(DataError, match="does not hold the video 'zzz'"):
        index.search(np.zeros((1, WIDTH)), 1, restrict_to=["zzz"])


def fail_while_writing(monkeypatch: pytest.MonkeyPatch) -> None:
    def write(file: Path, *_: object) -> list[int]:
        file.with_name(f".{file.name}.half").write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(embedded, "write_segment", write)


def fail_after_writing(monkeypatch: pytest.MonkeyPatch) -> None:
    def settle(*_: object, **__: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(embedded.EmbeddedVectors, "settle", settle)


@pytest.mark.parametrize("break_it", [fail_while_writing, fail_after_writing])
def test_failed_change_leaves_the_last_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, break_it: Callable[[pytest.MonkeyPatch], None]
) -> None:
    index, vectors = make_index(tmp_path), random_vectors(3)
    index.add(["a", "b"], vectors[:2], [1, 2])
    with monkeypatch.context() as patch:
        break_it(patch)
        with pytest.raises(OSError, match="disk full"):
            index.add(["c"], vectors[2:], [3])
        with pytest.raises(OSError, match="disk full"):
            index.add(["a"], vectors[2:], [3], replaces=["a"])
    query = np.ones(WIDTH, dtype=np.float32)
    expected = slow_search({"a": vectors[0], "b": vectors[1]}, query, 5)
    for opened in (index, ClipIndex.open(index.path)):
        assert as_pairs(opened, query, 5) == expected
    index.add(["c"], vectors[2:], [3])
    assert ClipIndex.open(index.path).video_ids == ("a", "b", "c")
    assert len(list(index.path.iterdir())) == 3  # what the failures left behind is gone


def test_second_writer_is_refused(tmp_path: Path) -> None:
    first = make_index(tmp_path)
    second = ClipIndex.open(first.path)
    first.add(["a"], random_vectors(1), [1])
    with pytest.raises(DataError, match="another process changed the index"):
        second.add(["b"], random_vectors(1), [1])
    second.add(["b"], random_vectors(1), [1])  # it has read the new state
    assert ClipIndex.open(first.path).video_ids == ("a", "b")


def test_busy_index_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dciml.index.tables.LOCK_SECONDS", 0.05)
    index = make_index(tmp_path)
    other = sqlite3.connect(index.path / "catalogue.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(DataError, match="the index is in use"):
        index.add(["a"], random_vectors(1), [1])
    other.close()


def test_open_waits_for_a_commit_of_another_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = make_index(tmp_path)
    index.add(["a"], random_vectors(1), [1])
    read, changed = Catalogue.read, []

    def read_then_change(catalogue: Catalogue) -> object:
        contents = read(catalogue)
        if not changed:
            changed.append(True)
            index.add(["b"], random_vectors(1), [1])
        return contents

    monkeypatch.setattr(Catalogue, "read", read_then_change)
    assert ClipIndex.open(index.path).video_ids == ("a", "b")


def test_other_model_is_refused_with_the_way_out(tmp_path: Path) -> None:
    index = make_index(tmp_path)
    index.check_fingerprint("abc")
    with pytest.raises(ModelError, match=r"built with another model .*model.*dciml index MODEL"):
        index.check_fingerprint("xyz")


def test_create_refuses_a_folder_in_use(tmp_path: Path) -> None:
    make_index(tmp_path)
    with pytest.raises(DataError, match="something here already"):
        make_index(tmp_path)


def test_open_says_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        ClipIndex.open(tmp_path / "nothing")
    with pytest.raises(DataError, match="not an index"):
        ClipIndex.open(tmp_path)
    index = make_index(tmp_path)
    index.add(["a", "b"], random_vectors(2), [1, 1])
    file = index.path / "segment-1.vectors"
    file.write_bytes(b"damaged")
    with pytest.raises(ModelError, match="vectors file is damaged"):
        ClipIndex.open(index.path)
    file.unlink()
    with pytest.raises(ModelError, match="vectors file is missing"):
        ClipIndex.open(index.path)
    file.write_bytes(bytes(2 * CLIPS * WIDTH * 4))
    with sqlite3.connect(index.path / "catalogue.sqlite") as connection:
        connection.execute("UPDATE videos SET segment_row = 2 WHERE video_id = 'b'")
    connection.close()
    with pytest.raises(ModelError, match="do not fit together"):
        ClipIndex.open(index.path)
    (index.path / "catalogue.sqlite").write_bytes(b"not a database, but long enough to look like one" * 50)
    with pytest.raises(ModelError, match="not a usable index"):
        ClipIndex.open(index.path)


@pytest.mark.parametrize("change", ["SELECT 1", "CREATE TABLE of_later (a)"])
def test_other_format_version_is_refused(tmp_path: Path, change: str) -> None:
    index = make_index(tmp_path)
    with closing(sqlite3.connect(index.path / "catalogue.sqlite")) as connection, connection:
        connection.execute("UPDATE meta SET value = '5' WHERE name = 'format_version'")
        connection.execute(change)
    with pytest.raises(ModelError, match="format version 5, this program reads version 4"):
        ClipIndex.open(index.path)


def test_references_follow_a_move_and_name_the_option_when_lost(tmp_path: Path) -> None:
    project = tmp_path / "project"
    (project / "model").mkdir(parents=True)
    (project / "store").mkdir()
    make_index(project)
    moved = tmp_path / "elsewhere"
    project.rename(moved)
    index = ClipIndex.open(moved / "index")
    assert (index.model_folder(), index.store_path()) == (moved / "model", moved / "store")
    index.path.rename(tmp_path / "a")
    index = ClipIndex.open(tmp_path / "a")
    with pytest.raises(ModelError, match=r"model folder of this index is gone.*--model FOLDER"):
        index.model_folder()
    with pytest.raises(ModelError, match=r"feature store folder of this index is gone.*--features FOLDER"):
        index.store_path()


def test_index_alone_can_be_moved(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    make_index(tmp_path)
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "index").rename(tmp_path / "deep" / "er" / "index")
    assert ClipIndex.open(tmp_path / "deep" / "er" / "index").model_folder() == tmp_path / "model"


def test_each_video_knows_its_store(tmp_path: Path) -> None:
    for name in ("store", "other"):
        (tmp_path / name).mkdir()
    index = make_index(tmp_path)
    index.add(["a"], random_vectors(1), [1])
    index.add(["b"], random_vectors(1), [1], tmp_path / "other")
    index.add(["c"], random_vectors(1), [1], tmp_path / "store")
    stores = [index.store_path(video_id).name for video_id in "abc"]
    assert stores == ["store", "other", "store"]
