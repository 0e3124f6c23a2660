from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from dciml.method.batch import Batch, VideoBatch
from dciml.method.retrieval import LocalScale, RetrievalBranch, score_matrix


@pytest.fixture
def retrieval() -> RetrievalBranch:
    torch.manual_seed(0)
    branch = RetrievalBranch(
        video_width=12, text_width=10, hidden=16, heads=2, num_clips=8, max_frames=40, dropout=0.1
    )
    return branch.eval()


def test_score_is_the_weighted_sum_of_both_scales(retrieval: RetrievalBranch, batch: Batch) -> None:
    output = retrieval(batch)
    score = score_matrix(
        F.normalize(output.query, dim=-1), retrieval.fused_clips(retrieval.encode_videos(batch.videos))
    )
    for i, q in enumerate(output.query):
        for v in range(len(output.clips)):
            clip = max(F.cosine_similarity(q, c, dim=0) for c in output.clips[v])
            expected = 0.7 * clip + 0.3 * F.cosine_similarity(q, output.frames[v], dim=0)
            assert score[i, v].item() == pytest.approx(expected.item(), abs=1e-5)


def test_padding_changes_nothing(retrieval: RetrievalBranch, batch: Batch) -> None:
    q = batch.queries
    padded = replace(
        batch,
        videos=replace(
            batch.videos,
            frames=F.pad(batch.videos.frames, (0, 0, 0, 9), value=7.0),
            frame_mask=F.pad(batch.videos.frame_mask, (0, 9)),
        ),
        queries=replace(
            q,
            words=F.pad(q.words, (0, 0, 0, 4), value=7.0),
            static_words=F.pad(q.static_words, (0, 0, 0, 4), value=7.0),
            word_mask=F.pad(q.word_mask, (0, 4)),
            word_ids=F.pad(q.word_ids, (0, 4), value=7),
            hidden_words=F.pad(q.hidden_words, (0, 4)),
        ),
    )
    plain, wide = retrieval(batch), retrieval(padded)
    torch.testing.assert_close(plain.query, wide.query, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(plain.frames, wide.frames, atol=1e-5, rtol=1e-5)


def test_batch_mates_and_order_change_nothing(retrieval: RetrievalBranch, batch: Batch) -> None:
    together = retrieval.encode_videos(batch.videos)
    for i in (2, 0, 1):
        rows = slice(i, i + 1)
        videos = batch.videos
        alone = VideoBatch(
            videos.video_ids[rows],
            videos.clips[rows],
            videos.clip_centers[rows],
            videos.frames[rows],
            videos.frame_mask[rows],
        )
        one = retrieval.encode_videos(alone)
        torch.testing.assert_close(one.clips[0], together.clips[i], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(one.frames[0], together.frames[i], atol=1e-5, rtol=1e-5)


def test_windows_can_be_switched_off(batch_of: Callable[..., Batch]) -> None:
    def clips(widths: tuple[float | None, ...]) -> torch.Tensor:
        torch.manual_seed(0)
        branch = RetrievalBranch(
            video_width=12,
            text_width=10,
            hidden=16,
            heads=2,
            num_clips=8,
            gaussian_widths=widths,
            num_blocks=1,
        )
        return branch.eval().encode_videos(batch_of().videos).clips

    assert not torch.allclose(clips((None, None)), clips((None, 0.5)))
    # A window as wide as thousands of videos is no window.
    torch.testing.assert_close(clips((None, None)), clips((None, 1e5)))


def with_local(*, shared: bool = False, weight: float = 0.6) -> RetrievalBranch:
    torch.manual_seed(0)
    width = 12 if shared else 6
    local = LocalScale(video_width=12, text_width=10, width=width, dropout=0.1, shared=shared)
    branch = RetrievalBranch(
        video_width=12, text_width=10, hidden=16, heads=2, num_clips=8, max_frames=40, dropout=0.1,
        local=local, local_weight=weight,
    )  # fmt: skip
    return branch.eval()


@pytest.mark.parametrize("weight", [0.0, 0.6, 1.0])
def test_score_with_a_local_scale_is_the_weighted_sum_of_all_three(batch: Batch, weight: float) -> None:
    branch = with_local(weight=weight)
    output, queries = branch(batch), branch.encode_queries(batch.queries)
    assert output.local is not None
    score = score_matrix(
        branch.search_vectors(queries), branch.fused_clips(branch.encode_videos(batch.videos))
    )
    for i, (q, own) in enumerate(zip(output.query, output.local.query, strict=True)):
        for v in range(len(output.clips)):
            frame = F.cosine_similarity(q, output.frames[v], dim=0)
            each = [
                weight * F.cosine_similarity(own, by_itself, dim=0)
                + (1 - weight) * (0.7 * F.cosine_similarity(q, clip, dim=0) + 0.3 * frame)
                for by_itself, clip in zip(output.local.clips[v], output.clips[v], strict=True)
            ]
            assert score[i, v].item() == pytest.approx(max(each).item(), abs=1e-5)


def test_local_scale_knows_nothing_of_neighbours(batch: Batch) -> None:
    scale = with_local().local
    assert scale is not None
    changed = batch.videos.clips.clone()
    changed[:, 3] = -changed[:, 3]
    before, after = (scale.encode_clips(v) for v in (batch.videos, replace(batch.videos, clips=changed)))
    same = (before == after).all(dim=-1)
    assert not same[:, 3].any()
    assert same[:, [0, 1, 2, 4, 5, 6, 7]].all()


def test_shared_local_scale_starts_as_the_untrained_cosine(batch: Batch) -> None:
    sentences = F.normalize(torch.randn(len(batch.queries.query_ids), 12), dim=-1)
    batch = replace(batch, queries=replace(batch.queries, sentences=sentences))
    branch = with_local(shared=True, weight=1.0)
    vectors = branch.search_vectors(branch.encode_queries(batch.queries))
    score = score_matrix(vectors, branch.fused_clips(branch.encode_videos(batch.videos)))
    cosine = torch.einsum("qd,vcd->qvc", sentences, F.normalize(batch.videos.clips, dim=-1)).amax(dim=-1)
    torch.testing.assert_close(score, cosine)
    branch.train()
    output = branch(batch)
    assert output.local is not None
    output.local.query.sum().backward()
    output.local.clips.sum().backward()
    for layer in (branch.local.text, branch.local.video):  # a residual at 0 must still learn
        assert layer.weight.grad.abs().sum() > 0


def test_padding_of_words_has_no_say_in_the_local_scale(batch: Batch) -> None:
    scale = with_local().local
    assert scale is not None
    torch.nn.init.normal_(scale.word_score.weight)
    noise = torch.where(batch.queries.word_mask[..., None], batch.queries.words, torch.tensor(9.0))
    expected = scale.encode_queries(batch.queries)
    torch.testing.assert_close(scale.encode_queries(replace(batch.queries, words=noise)), expected)
