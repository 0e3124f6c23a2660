"""A batch in parts gives what the whole batch gives, with its gradients, whatever the threads do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from threading import Barrier, current_thread

import pytest
import torch
from torch import Tensor, nn

from dciml.method.batch import Batch
from dciml.method.dropout import Dropout
from dciml.threads import set_num_shares
from dciml.training.parts import FEWEST_QUERIES, Part, in_parts, split

SENTENCES = (3, 7, 4, 2, 9, 8)


@dataclass(frozen=True)
class Inner:
    sums: Tensor
    counts: Tensor


@dataclass(frozen=True)
class Outer:
    inner: Inner
    videos: Tensor
    nothing: Tensor | None = None


class Model(nn.Module):
    """Something of each query and something of each video, with a layer that no output reads."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.words, self.frames, self.unread = nn.Linear(10, 3), nn.Linear(12, 2), nn.Linear(2, 2)
        self.dropout = Dropout(dropout)

    def forward(self, part: Part) -> Outer:
        queries, videos = part.batch.queries, part.batch.videos
        of_videos = (self.dropout(self.frames(videos.frames)) * videos.frame_mask[..., None]).sum(dim=1)
        of_words = (self.dropout(self.words(queries.words)) * queries.word_mask[..., None]).sum(dim=1)
        joined = torch.cat([of_words, of_videos[part.batch.video_of_query]], dim=1)
        return Outer(Inner(joined, queries.word_mask.sum(dim=1)), of_videos)


def whole(batch: Batch) -> Part:
    return Part(batch, slice(0, len(batch.video_of_query)))


@pytest.mark.parametrize(("most", "count"), [(1, 1), (2, 2), (4, 4), (8, 4), (3, 3)])
def test_split_gives_neighbouring_videos_with_their_own_sentences(
    batch_of: Callable[..., Batch], most: int, count: int
) -> None:
    batch = batch_of(SENTENCES)
    parts = split(batch, most)
    assert len(parts) == count
    ids = [video_id for part in parts for video_id in part.batch.videos.video_ids]
    assert tuple(ids) == batch.videos.video_ids
    for part in parts:
        asked = batch.queries.query_ids[part.queries]
        assert part.batch.queries.query_ids == asked
        own = [part.batch.videos.video_ids[i] for i in part.batch.video_of_query.tolist()]
        assert own == [batch.videos.video_ids[i] for i in batch.video_of_query[part.queries].tolist()]
        if count > 1:  # as long as its own longest sentence and video
            assert part.batch.queries.word_mask.any(dim=0).all()
            assert part.batch.videos.frame_mask.any(dim=0).all()
    if count > 1:
        words = [int(part.batch.queries.word_mask.sum()) for part in parts]
        assert max(words) <= sum(words) / count + 7 * max(SENTENCES) / 2  # half of the largest video off


def test_split_leaves_small_and_unsorted_batches_whole(batch_of: Callable[..., Batch]) -> None:
    small = batch_of((3,) * 5)
    assert 2 * FEWEST_QUERIES > 15
    assert len(split(small, 4)) == 1
    batch = batch_of(SENTENCES)
    (part,) = split(replace(batch, video_of_query=batch.video_of_query.flip(0)), 4)
    assert part.queries == slice(0, 33)


def test_a_video_without_a_sentence_and_one_with_nearly_all_are_kept(batch_of: Callable[..., Batch]) -> None:
    batch = batch_of((1, 0, 30, 0, 2, 0))
    parts = split(batch, 4)
    assert [v for part in parts for v in part.batch.videos.video_ids] == list(batch.videos.video_ids)
    assert sum(len(part.batch.video_of_query) for part in parts) == 33


@pytest.mark.parametrize("shares", [1, 2])
def test_parts_give_the_values_and_gradients_of_the_whole(
    batch_of: Callable[..., Batch], shares: int
) -> None:
    batch, model = batch_of(SENTENCES), Model()
    set_num_shares(shares)
    try:
        found = in_parts(model, split(batch, 4), model.parameters())
        expected = model(whole(batch))
        assert isinstance(found, Outer)
        assert found.nothing is None
        for a, b in zip(_all(found), _all(expected), strict=True):
            torch.testing.assert_close(a, b)
            assert a.requires_grad == b.requires_grad
        # Also: only some outputs enter the loss, and the graph may be asked twice.
        for read in ("sums", "both"):
            gradients = []
            for output in (found, expected):
                model.zero_grad()
                loss = output.inner.sums.square().sum()
                if read == "both":
                    loss = loss + output.videos.sin().sum()
                loss.backward(retain_graph=True)
                gradients.append([p.grad for p in model.parameters()])
            for a, b in zip(*gradients, strict=True):
                assert (a is None) == (b is None)
                if a is not None:
                    torch.testing.assert_close(a, b)
    finally:
        set_num_shares(None)


def _all(output: Outer) -> list[Tensor]:
    return [output.inner.sums, output.inner.counts, output.videos]


def test_dropout_does_not_depend_on_the_threads_but_on_the_seed(batch_of: Callable[..., Batch]) -> None:
    batch, model = batch_of(SENTENCES), Model(dropout=0.5)

    def run(shares: int, seed: int) -> list[Tensor]:
        set_num_shares(shares)
        try:
            torch.manual_seed(seed)
            output = in_parts(model, split(batch, 4), model.parameters())
            model.zero_grad()
            output.inner.sums.sum().backward()
            return [output.inner.sums.detach(), *(p.grad for p in model.parameters() if p.grad is not None)]
        finally:
            set_num_shares(None)

    first = run(1, 0)
    assert all(torch.equal(a, b) for shares in (2, 3) for a, b in zip(first, run(shares, 0), strict=True))
    assert not torch.equal(first[0], run(1, 1)[0])
    assert not torch.equal(first[0][0], first[0][-1])


def test_threads_take_over_gradient_mode_and_autocast(
    batch_of: Callable[..., Batch], two_shares: None
) -> None:
    parts, both = split(batch_of(SENTENCES), 2), Barrier(2, timeout=20)
    linear = nn.Linear(10, 3)

    def work(part: Part) -> Tensor:
        both.wait()  # nobody passes alone
        names.add(current_thread().name)
        return linear(part.batch.queries.words[:, 0])

    names: set[str] = set()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert in_parts(work, parts, linear.parameters()).dtype == torch.bfloat16
        with torch.no_grad():
            assert not in_parts(work, parts).requires_grad
    assert in_parts(work, parts, linear.parameters()).dtype == torch.float32
    assert len(names) == 2


def test_what_a_part_raises_reaches_the_caller(batch_of: Callable[..., Batch], two_shares: None) -> None:
    def work(part: Part) -> Tensor:
        raise ValueError(f"from {part.queries.start}")

    with pytest.raises(ValueError, match="from 0"):
        in_parts(work, split(batch_of(SENTENCES), 2), nn.Linear(1, 1).parameters())
