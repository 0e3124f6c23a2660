from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from dciml.method.batch import Batch
from dciml.method.fast import Packing
from dciml.method.grounding import GroundingBranch
from dciml.method.outputs import Proposals


def make_grounding(dropout: float = 0.0) -> GroundingBranch:
    torch.manual_seed(0)
    return GroundingBranch(
        video_width=12,
        static_width=8,
        vocabulary_size=20,
        hidden=16,
        heads=2,
        layers=2,
        num_proposals=4,
        num_positions=6,
        dropout=dropout,
    ).eval()


@pytest.fixture
def grounding() -> GroundingBranch:
    return make_grounding()


def logits(grounding: GroundingBranch, batch: Batch) -> torch.Tensor:
    """(queries, words, vocabulary); 0 where a sentence has no word."""
    sampled = grounding.sampled_frames(batch.videos)
    even = torch.zeros(len(batch.video_of_query), sampled.shape[1])
    memory = grounding.encode_under(sampled, batch.video_of_query, even)
    every = torch.arange(len(even))
    rows = grounding.vocabulary_head(grounding.reconstruct(batch.queries, memory, every))
    return Packing.of(batch.queries.word_mask).pad(rows)


def test_reconstruction_cannot_see_the_word_it_predicts(grounding: GroundingBranch, batch: Batch) -> None:
    """Change word i (its features and its id): logits at i and before stay, those after it may move."""
    batch = replace(
        batch, queries=replace(batch.queries, hidden_words=torch.zeros_like(batch.queries.word_mask))
    )
    before = logits(grounding, batch)
    moved_later = False
    for i in range(batch.queries.word_ids.shape[1]):
        static, ids = batch.queries.static_words.clone(), batch.queries.word_ids.clone()
        static[:, i] = F.normalize(torch.randn(len(ids), 8), dim=-1)
        ids[:, i] = (ids[:, i] + 5) % 20
        changed = replace(batch, queries=replace(batch.queries, static_words=static, word_ids=ids))
        after = logits(grounding, changed)
        torch.testing.assert_close(after[:, : i + 1], before[:, : i + 1])
        moved_later |= not torch.allclose(after[:, i + 1 :], before[:, i + 1 :])
    assert moved_later


def test_hidden_word_does_not_reach_later_positions(grounding: GroundingBranch, batch: Batch) -> None:
    hidden = torch.zeros_like(batch.queries.word_mask)
    hidden[:, 1] = True
    batch = replace(batch, queries=replace(batch.queries, hidden_words=hidden))
    static = batch.queries.static_words.clone()
    static[:, 1] = 1.0
    changed = replace(batch, queries=replace(batch.queries, static_words=static))
    torch.testing.assert_close(logits(grounding, changed), logits(grounding, batch))


def test_grounding_never_reads_contextual_words(grounding: GroundingBranch, batch: Batch) -> None:
    other = replace(batch, queries=replace(batch.queries, words=torch.full_like(batch.queries.words, 9.0)))
    assert torch.equal(grounding.select(batch).nll, grounding.select(other).nll)


def test_padding_changes_nothing(grounding: GroundingBranch, batch: Batch) -> None:
    q, v = batch.queries, batch.videos
    padded = replace(
        batch,
        videos=replace(
            v, frames=F.pad(v.frames, (0, 0, 0, 5), value=3.0), frame_mask=F.pad(v.frame_mask, (0, 5))
        ),
        queries=replace(
            q,
            words=F.pad(q.words, (0, 0, 0, 2), value=3.0),
            static_words=F.pad(q.static_words, (0, 0, 0, 2), value=3.0),
            word_mask=F.pad(q.word_mask, (0, 2)),
            word_ids=F.pad(q.word_ids, (0, 2), value=3),
            hidden_words=F.pad(q.hidden_words, (0, 2)),
        ),
    )
    plain, wide = grounding.select(batch), grounding.select(padded)
    torch.testing.assert_close(plain.proposals.centers, wide.proposals.centers, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(plain.nll, wide.nll, atol=1e-5, rtol=1e-5)


def test_query_reads_its_own_video(grounding: GroundingBranch, batch: Batch) -> None:
    """Another video's rows change only the results of that video's sentences."""
    frames = batch.videos.frames.clone()
    frames[1] = torch.randn_like(frames[1])
    changed = grounding.select(replace(batch, videos=replace(batch.videos, frames=frames)))
    plain = grounding.select(batch)
    own = batch.video_of_query == 1
    assert torch.equal(plain.nll[~own], changed.nll[~own])
    assert not torch.allclose(plain.nll[own], changed.nll[own])


def test_order_of_queries_changes_nothing(grounding: GroundingBranch, batch: Batch) -> None:
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    q = batch.queries
    shuffled = replace(
        batch,
        queries=replace(
            q,
            words=q.words[order],
            static_words=q.static_words[order],
            word_mask=q.word_mask[order],
            word_ids=q.word_ids[order],
            hidden_words=q.hidden_words[order],
        ),
        video_of_query=batch.video_of_query[order],
    )
    torch.testing.assert_close(grounding.select(shuffled).nll, grounding.select(batch).nll[order])


def test_negatives_lie_beside_the_proposal(grounding: GroundingBranch) -> None:
    best = Proposals(torch.tensor([[0.5]]), torch.tensor([[0.2]]))
    left, right = grounding.negative_log_weights(best, 1.0)
    # Room of 0.4 on either side: centres at 0.2 and 0.8, σ = 0.2 / 4.5.
    t = torch.linspace(0, 1, 6)
    torch.testing.assert_close(left[0], -0.5 * ((t - 0.2) / (0.2 / 4.5)) ** 2, atol=1e-3, rtol=1e-4)
    torch.testing.assert_close(right[0], left[0].flip(0), atol=1e-3, rtol=1e-4)


def test_selection_leaves_training_mode_and_dropout_alone(batch: Batch) -> None:
    grounding = make_grounding(dropout=0.5)
    grounding.train()
    first, second = grounding.select(batch), grounding.select(batch)
    assert grounding.training
    assert torch.equal(first.nll, second.nll)


def test_sampled_frames_use_only_valid_rows(
    grounding: GroundingBranch, batch_of: Callable[..., Batch]
) -> None:
    batch = batch_of((1, 1, 1, 1))
    counts, frames = batch.videos.frame_mask.sum(dim=1), torch.zeros_like(batch.videos.frames)
    frames[..., 0] = torch.arange(frames.shape[1])
    with torch.no_grad():  # the first of the projected numbers is the place
        grounding.frame_project.weight.zero_()[0, 0] = 1
        grounding.frame_project.bias.zero_()
    sampled = grounding.sampled_frames(replace(batch.videos, frames=frames))[..., 0]
    assert (sampled[:, 0] == 0).all()
    assert (sampled[:, -1] == counts - 1).all()


def test_reconstruction_does_not_know_when_its_frames_are(grounding: GroundingBranch, batch: Batch) -> None:
    """All frames alike: no proposal can be better than another, or its place would tell of the sentence."""
    frames = batch.videos.frames[:, :1].expand_as(batch.videos.frames)
    alike = replace(batch, videos=replace(batch.videos, frames=frames * batch.videos.frame_mask[..., None]))
    nll = grounding.select(alike).nll
    torch.testing.assert_close(nll, nll[:, :1].expand_as(nll))
    different = grounding.select(batch).nll
    assert not torch.allclose(different, different[:, :1].expand_as(different))


def test_a_sentence_asked_of_several_videos_is_answered_as_if_alone(
    grounding: GroundingBranch, batch_of: Callable[..., Batch]
) -> None:
    """Its words are encoded once (`QueryBatch.distinct`)."""
    batch = batch_of((1, 1, 1))
    again = torch.tensor([1, 0, 1])
    asked = replace(batch, queries=batch.queries.at(again))
    distinct, reads = asked.queries.distinct()
    assert distinct.query_ids == ("q1", "q0")
    assert reads is not None
    assert reads.tolist() == [0, 1, 0]
    renamed = replace(asked, queries=replace(asked.queries, query_ids=("a", "b", "c")))
    assert renamed.queries.distinct()[1] is None
    torch.testing.assert_close(grounding.select(asked).nll, grounding.select(renamed).nll)
