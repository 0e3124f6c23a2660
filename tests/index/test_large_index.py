"""An index that is large by its own settings: codes find the candidates, scores stay exact."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from dciml.errors import DataError, ModelError
from dciml.index import ClipIndex, IndexOptions

CLIPS, WIDTH = 4, 24
Vectors = NDArray[np.float32]
LARGE = IndexOptions(exact_videos=60, code_bytes=6)


def alike_clips(num_videos: int, seed: int = 0) -> Vectors:
    """Videos whose clips are alike, with most of the energy in a few directions, as a model's are."""
    generator = np.random.default_rng(seed)
    scale = 1 / np.sqrt(1 + np.arange(WIDTH))
    means = generator.normal(size=(num_videos, 1, WIDTH)) * scale
    return (means + 0.6 * generator.normal(size=(num_videos, CLIPS, WIDTH)) * scale + 0.5).astype(np.float32)


def make_index(folder: Path, options: IndexOptions = LARGE) -> ClipIndex:
    return ClipIndex.create(
        folder / "index",
        num_clips=CLIPS,
        width=WIDTH,
        fingerprint="abc",
        model_folder=folder / "model",
        store_path=folder / "store",
        options=options,
    )


def fill(index: ClipIndex, vectors: Vectors, portions: int = 1) -> None:
    for part in np.array_split(np.arange(len(vectors)), portions):
        index.add([f"v{n}" for n in part], vectors[part], np.ones(len(part)))


def names(index: ClipIndex, query: Vectors, k: int, within: list[str] | None = None) -> list[str]:
    return [match.video_id for match in index.search(query[None], k, within)[0]]


def best(vectors: dict[str, Vectors], query: Vectors, k: int) -> list[str]:
    return sorted(vectors, key=lambda name: -float((vectors[name] @ query).max()))[:k]


def is_large(index: ClipIndex) -> bool:
    return bool(list(index.path.glob("*.codes")))


QUERIES = np.random.default_rng(99).normal(size=(12, WIDTH)).astype(np.float32)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_codes_find_the_best_videos_and_scores_are_exact(tmp_path: Path, dtype: str) -> None:
    options = IndexOptions(dtype=dtype, exact_videos=60, code_bytes=6)  # type: ignore[arg-type]
    index, vectors = make_index(tmp_path, options), alike_clips(700)
    fill(index, vectors, portions=3)
    assert is_large(index)
    stored = vectors.astype(dtype).astype(np.float32)
    for opened in (index, ClipIndex.open(index.path)):
        found = 0
        for query, matches in zip(QUERIES, opened.search(QUERIES, 20), strict=True):
            expected = best({f"v{n}": row for n, row in enumerate(stored)}, query, 20)
            found += len({match.video_id for match in matches} & set(expected))
            assert [match.score for match in matches] == sorted((m.score for m in matches), reverse=True)
            for match in matches:
                clips = stored[int(match.video_id[1:])] @ query
                np.testing.assert_allclose(match.clip_scores, clips, rtol=1e-4, atol=1e-5)
                assert match.score == match.clip_scores.max()
        assert found >= 0.99 * 20 * len(QUERIES)


def test_few_candidates_miss_videos(tmp_path: Path) -> None:
    # Otherwise the test above would not show that the codes are what finds them.
    options = IndexOptions(exact_videos=60, code_bytes=1, candidate_vectors=1)
    index, vectors = make_index(tmp_path, options), alike_clips(700)
    fill(index, vectors)
    all_of = {f"v{n}": row for n, row in enumerate(vectors)}
    found = [len(set(names(index, query, 20)) & set(best(all_of, query, 20))) for query in QUERIES]
    assert sum(found) < 0.9 * 20 * len(QUERIES)


def test_small_index_and_large_requests_are_exact(tmp_path: Path) -> None:
    index, vectors = make_index(tmp_path), alike_clips(200)
    fill(index, vectors[:60])
    assert not is_large(index)
    fill_more = [f"v{n}" for n in range(60, 200)]
    index.add(fill_more, vectors[60:], np.ones(140))
    assert is_large(index)
    all_of = {f"v{n}": row for n, row in enumerate(vectors)}
    for query in QUERIES:
        assert names(index, query, 150) == best(all_of, query, 150)


@pytest.mark.parametrize("share", [0.02, 0.2, 0.6, 0.95])
def test_filters_hold_when_large(tmp_path: Path, share: float) -> None:
    index, vectors = make_index(tmp_path), alike_clips(600)
    fill(index, vectors)
    chosen = np.flatnonzero(np.random.default_rng(3).random(600) < share)
    within = {f"v{n}": vectors[n] for n in chosen}
    found = 0
    for query in QUERIES:
        got = names(index, query, 10, list(within))
        assert set(got) <= set(within)
        assert len(got) == min(10, len(within))
        found += len(set(got) & set(best(within, query, 10)))
    assert found >= 0.98 * len(QUERIES) * min(10, len(within))


def test_filter_far_from_the_query_still_fills_the_answer(tmp_path: Path) -> None:
    index, vectors = make_index(tmp_path), alike_clips(600)
    query = QUERIES[0]
    scores = (vectors @ query).max(axis=1)
    worst = np.argsort(scores)[:100]
    fill(index, vectors)
    within = {f"v{n}": vectors[n] for n in worst}
    assert set(names(index, query, 10, list(within))) == set(best(within, query, 10))


def test_removed_and_replaced_videos_when_large(tmp_path: Path) -> None:
    index, vectors = make_index(tmp_path), alike_clips(300)
    fill(index, vectors, portions=2)
    query = QUERIES[0]
    first = names(index, query, 3)
    index.remove(first[:1])
    strong = np.tile(query, (1, CLIPS, 1))
    index.add(["new"], 3 * strong, [1.0])
    index.add([first[1]], 2 * strong, [1.0], replaces=[first[1]])
    for opened in (index, ClipIndex.open(index.path)):
        assert names(opened, query, 3) == ["new", first[1], first[2]]
    index.compact()
    for opened in (index, ClipIndex.open(index.path)):
        assert names(opened, query, 3) == ["new", first[1], first[2]]
        assert opened.verify() == []


def test_growth_writes_what_is_added_and_joins_small_segments(tmp_path: Path) -> None:
    index, vectors = make_index(tmp_path), alike_clips(120)
    fill(index, vectors[:100])
    (first,) = index.path.glob("*.vectors")
    inode = first.stat().st_ino
    for n in range(100, 107):
        index.add([f"v{n}"], vectors[n : n + 1], [1.0])
    assert first.stat().st_ino == inode
    assert len(list(index.path.glob("*.vectors"))) == 8
    index.add(["v107"], vectors[107:108], [1.0])
    assert len(list(index.path.glob("*.vectors"))) == 1
    assert index.verify() == []
    assert index.video_ids == tuple(f"v{n}" for n in range(108))
    sums = index.pair_scores(np.ones((108, WIDTH)), index.video_ids)
    np.testing.assert_allclose(sums, vectors[:108].sum(axis=2), rtol=1e-4, atol=1e-5)


def test_compact_learns_anew_after_growth_and_forgets_codes_after_shrinking(tmp_path: Path) -> None:
    index, vectors = make_index(tmp_path), alike_clips(400)
    fill(index, vectors[:80])
    assert [file.name for file in index.path.glob("coder-*")] == ["coder-1.npz"]
    index.add([f"w{n}" for n in range(320)], vectors[80:], np.ones(320))
    assert [file.name for file in index.path.glob("coder-*")] == ["coder-1.npz"]
    index.compact()
    assert [file.name for file in index.path.glob("coder-*")] == ["coder-2.npz"]
    index.remove([*(f"w{n}" for n in range(320)), *(f"v{n}" for n in range(40))])
    assert is_large(index)
    index.compact()
    assert not is_large(index)
    assert index.video_ids == tuple(f"v{n}" for n in range(40, 80))
    assert sum(file.stat().st_size for file in index.path.glob("*.vectors")) == 40 * CLIPS * WIDTH * 4


def test_damaged_codes_are_named(tmp_path: Path) -> None:
    index = make_index(tmp_path)
    fill(index, alike_clips(100))
    (codes,) = index.path.glob("*.codes")
    content = bytearray(codes.read_bytes())
    content[5] ^= 255
    codes.write_bytes(content)
    assert index.verify() == ["segment 1: its codes do not match their checksum"]
    codes.write_bytes(content[:-1])
    with pytest.raises(ModelError, match="file of codes is damaged"):
        ClipIndex.open(index.path)
    codes.unlink()
    with pytest.raises(ModelError, match="file of codes is missing"):
        ClipIndex.open(index.path)
    codes.write_bytes(content)
    (index.path / "coder-1.npz").write_bytes(b"no arrays")
    with pytest.raises(ModelError, match="coder file is damaged"):
        ClipIndex.open(index.path)


def test_numbers_too_large_for_float16_are_refused(tmp_path: Path) -> None:
    index = make_index(tmp_path, IndexOptions(dtype="float16"))
    with pytest.raises(DataError, match="'v0' has a vector"):
        fill(index, 1e6 * alike_clips(1))
