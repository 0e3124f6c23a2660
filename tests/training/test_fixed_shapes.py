"""Fixed shapes: the same losses as without, few sizes in an epoch, and one graph for each thing a branch is asked."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from plain_step import plain_terms
from small_step import SIDES, compare_terms, fast_terms, in_double, make_step

from dciml.config import RunConfig
from dciml.method.batch import Batch, BatchSizes
from dciml.method.fast import Packing, Sequences, fixed_shapes, shapes_are_fixed
from dciml.recipes import train as recipe

Unchecked = Callable[[], AbstractContextManager[None]]
MakeConfig = Callable[..., RunConfig]
SIZES = BatchSizes(num_clips=8, max_frames=16, max_words=9)
SENTENCES = (3, 7, 4, 2, 9, 8)


@pytest.mark.parametrize("side", list(SIDES))
def test_every_term_and_gradient_equals_the_plain_path(
    batch_of: Callable[..., Batch], side: str, shapes_unchecked: Unchecked
) -> None:
    """In float32 and in buckets, with copies behind the sentences, against float64 without either."""
    batch = batch_of(SENTENCES)
    fast, plain = (make_step(2, dtype) for dtype in (torch.float32, torch.float64))
    padded = batch.in_buckets(SIZES)
    assert len(padded.queries.words) == 48
    assert padded.num_sentences == 33
    with shapes_unchecked():
        with fixed_shapes():
            values = fast_terms(fast, padded, side)
        compare_terms(fast, values, plain, plain_terms(plain, in_double(batch), side), side)


def test_with_anchors_too_every_term_is_the_same(batch_of: Callable[..., Batch]) -> None:
    batch = batch_of((2, 1, 3, 1))
    rng = torch.Generator().manual_seed(0)
    anchors = 0.3 + 0.4 * torch.rand(7, 4, 3, generator=rng)  # wide: each holds some of the six positions
    batch = replace(batch, queries=replace(batch.queries, anchors=anchors))
    for side in SIDES:
        packs, keeps = (make_step(2, torch.float32, anchored=True) for _ in range(2))  # both draw the same
        expected = fast_terms(packs, batch, side)
        with fixed_shapes():
            values = fast_terms(keeps, batch.in_buckets(SIZES), side)
        for term in SIDES[side]:
            torch.testing.assert_close(values[term], expected[term], atol=1e-5, rtol=1e-4, msg=term)


def test_padding_in_a_batch_is_where_it_says(batch_of: Callable[..., Batch]) -> None:
    batch = batch_of((2, 1, 3))
    padded = batch.in_buckets(BatchSizes(num_clips=8, max_frames=128, max_words=30))
    assert padded.videos.frames.shape[:2] == padded.videos.frame_mask.shape == (3, 32)
    assert padded.queries.words.shape[:2] == padded.queries.hidden_words.shape == (16, 8)
    assert padded.queries.query_ids == batch.queries.query_ids
    assert torch.equal(padded.videos.frame_mask.sum(dim=1), batch.videos.frame_mask.sum(dim=1))
    assert torch.equal(padded.queries.word_mask[:6].sum(dim=1), batch.queries.word_mask.sum(dim=1))
    for name in ("words", "static_words", "word_mask", "word_ids"):
        rows = getattr(padded.queries, name)
        assert torch.equal(rows[6:], rows[5:6].expand_as(rows[6:])), name
    assert padded.video_of_query.tolist() == [0, 0, 1, 2, 2, 2] + 10 * [2]
    full = batch_of((2,)).in_buckets(SIZES)
    assert full.videos.frames.shape[1] == 16  # never more than the model reads


def test_packing_that_keeps_padding_reads_the_same_rows() -> None:
    mask = torch.tensor([[True, True, False], [True, False, False], [True, True, True]])
    rows = torch.arange(9.0).reshape(3, 3, 1)
    packed = Sequences.of(rows, mask)
    with fixed_shapes():
        assert shapes_are_fixed()
        kept = Sequences.of(rows, mask)
    assert not shapes_are_fixed()
    assert len(packed.rows) == 6
    assert len(kept.rows) == 9
    again = torch.tensor([2, 0, 0])
    for left, right in ((packed, kept), (packed.read_by(again), kept.read_by(again))):
        assert torch.equal(left.last().rows, right.last().rows)
        assert torch.equal(left.bias, right.bias)
        real = left.packing.mask(rows.device)
        assert torch.equal(real, right.packing.mask(rows.device))
        assert torch.equal(left.pad(left.rows)[real], right.pad(right.rows)[real])
    assert kept.packing.only_real(torch.ones(9)).tolist() == mask.flatten().float().tolist()
    assert Packing.of(mask).only_real(torch.ones(6)).tolist() == 6 * [1.0]


def losses_of(
    config: RunConfig, out: Path, patch: pytest.MonkeyPatch
) -> tuple[list[dict[str, float]], list[Any]]:
    """Of a run, with the sizes of its batches."""
    found, sizes, real = [], [], recipe.training_step

    def noted(step: Any, batch: Batch, optimizers: Any) -> dict[str, float]:
        sizes.append((*batch.videos.frames.shape[:2], *batch.queries.words.shape[:2]))
        found.append(real(step, batch, optimizers))
        return found[-1]

    with patch.context() as patched:
        patched.setattr(recipe, "training_step", noted)
        recipe.train(config, out, quiet=True)
    return found, sizes


@pytest.mark.parametrize("grounding_queries", [None, 5])
def test_a_run_has_the_same_losses(
    tiny_config: MakeConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    grounding_queries: int | None,
    shapes_unchecked: Unchecked,
) -> None:
    base = tiny_config().model_dump(exclude_defaults=True)

    def run(name: str, **training: Any) -> tuple[list[dict[str, float]], list[Any]]:
        config = tiny_config(
            retrieval={**base["retrieval"], "dropout": 0.0},
            grounding={**base["grounding"], "dropout": 0.0},
            training={"grounding_queries": grounding_queries, **training},
        )
        with shapes_unchecked():
            return losses_of(config, tmp_path / name, monkeypatch)

    (expected, _), (found, sizes) = run("plain"), run("fixed", fixed_shapes=True)
    assert len(found) == len(expected) == 6
    for number, (left, right) in enumerate(zip(found, expected, strict=True)):
        assert left == pytest.approx(right, rel=1e-4, abs=1e-4), f"step {number}"
    assert set(sizes) == {(8, 16, 16, 8), (6, 16, 16, 8)}  # the last batch of an epoch has fewer videos


def lengths(rng: np.random.Generator, batch_of: Callable[..., Batch]) -> Iterator[Batch]:
    """Batches of 4 videos as uneven as those of a corpus."""
    for _ in range(60):
        batch = batch_of(tuple(rng.integers(1, 8, 4).tolist()), max_frames=int(rng.integers(40, 128)))
        words = int(rng.integers(4, 8))
        queries, cut = batch.queries, slice(0, words)
        yield replace(
            batch,
            queries=replace(
                queries,
                words=queries.words[:, cut],
                static_words=queries.static_words[:, cut],
                word_mask=queries.word_mask[:, cut],
                word_ids=queries.word_ids[:, cut],
                hidden_words=queries.hidden_words[:, cut],
            ),
        )


def test_an_epoch_has_few_sizes(batch_of: Callable[..., Batch]) -> None:
    def size(batch: Batch) -> tuple[int, ...]:
        return (*batch.videos.frames.shape[:2], *batch.queries.words.shape[:2])

    batches = list(lengths(np.random.default_rng(0), batch_of))
    sizes = BatchSizes(num_clips=8, max_frames=128, max_words=30)
    before, after = (
        {size(batch) for batch in some} for some in (batches, [b.in_buckets(sizes) for b in batches])
    )
    assert len(before) > 50
    assert len(after) <= 3 * 1 * 2  # frames 64, 96, 128; words 8; sentences 16, 32


ONE_GRAPH = """
import torch
from conftest import make_batch
from dciml.method.batch import BatchSizes
from dciml.method.fast import fixed_shapes
from small_step import make_step

graphs = []

def noted(graph, _):
    graphs.append(graph)
    return graph

model, sizes = make_step(2, torch.float32).model, BatchSizes(num_clips=8, max_frames=16, max_words=9)
select, ground, retrieve = (
    torch.compile(work, backend=noted, fullgraph=True, dynamic=False)
    for work in (model.grounding.select, model.grounding.forward, model.retrieval.forward)
)
with fixed_shapes():
    for seed, sentences in enumerate([(3, 7, 4, 2, 9, 8), (5, 5, 6, 7, 7, 4), (9, 9, 9, 9, 9, 3)]):
        batch = make_batch(sentences, seed=seed).in_buckets(sizes)
        plain = model.grounding(batch, model.grounding.select(batch).best_index, 1.0)
        compiled = ground(batch, select(batch).best_index, 1.0)
        torch.testing.assert_close(compiled.nll.best, plain.nll.best)
        torch.testing.assert_close(retrieve(batch).query, model.retrieval(batch).query)
print(len(graphs))
"""


@pytest.mark.slow
def test_what_a_branch_is_asked_is_one_graph() -> None:
    """What torch.compile and CUDA graphs want: nothing breaks a graph, and the next batch needs none anew."""
    tests = Path(__file__).parents[1]
    paths = [str(tests), str(tests / "oracle"), *filter(None, sys.path)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}  # a process without checks of shapes
    ended = subprocess.run(
        [sys.executable, "-c", ONE_GRAPH], env=environment, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert int(ended.stdout) == 3
