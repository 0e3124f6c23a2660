from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from dciml.method.batch import Batch, VideoBatch
from dciml.method.retrieval import RetrievalBranch, score_matrix


@pytest.fixture
def retrieval() -> RetrievalBranch:
    torch.manual_seed(0)
    branch = RetrievalBranch(
        video_width=12, text_width=10, hidden=16, heads=2, num_clips=8, max_frames=40, dropout=0.1
    )
    return branch.eval()


def test_score_is_the_weighted_sum_of_both_scales(retrieval: RetrievalBranch, batch: Batch) -> None:
    output = retrieval(batch)
    score = score_matrix(output.query, retrieval.fused_clips(retrieval.encode_videos(batch.videos)))
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
