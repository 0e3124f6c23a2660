"""Whitening: what comes out, and that all scales look at it."""

from __future__ import annotations

from dataclasses import replace

import torch

from dciml.method.batch import Batch
from dciml.method.layers import Whitening
from dciml.method.retrieval import LocalScale, RetrievalBranch

torch.manual_seed(0)
ROWS = torch.randn(500, 6) @ torch.randn(6, 6) * torch.tensor([9.0, 3.0, 1.0, 0.3, 0.1, 0.1]) + 4.0


def test_rows_come_out_centred_and_even_in_all_directions() -> None:
    whitening = Whitening(6)
    whitening.fit(ROWS, shrink=1e-9)
    out = whitening(ROWS)
    torch.testing.assert_close(out.mean(dim=0), torch.zeros(6), atol=1e-3, rtol=0)
    torch.testing.assert_close(out.t() @ out / len(out), torch.eye(6), atol=1e-2, rtol=0)


def test_shrinking_keeps_directions_of_noise_small() -> None:
    flat = torch.cat([torch.randn(300, 3), 1e-6 * torch.randn(300, 3)], dim=1)
    whitening = Whitening(6)
    whitening.fit(flat, shrink=0.1)
    out = whitening(flat)
    assert float(out[:, 3:].std()) < 1e-3 < float(out[:, :3].std())
    whitening.fit(torch.ones(4, 6))  # nothing varies: nothing is divided by 0
    assert torch.isfinite(whitening.matrix).all()


def test_before_the_fit_rows_stay_as_they_are() -> None:
    assert torch.equal(Whitening(6)(ROWS), ROWS)


def test_all_scales_look_at_whitened_rows(batch: Batch) -> None:
    width, text_width = batch.videos.clips.shape[-1], batch.queries.words.shape[-1]
    sizes = {"video_width": width, "text_width": text_width}
    branches = []
    for whitened in (True, False):
        torch.manual_seed(0)
        local = LocalScale(**sizes, width=5)
        branches.append(
            RetrievalBranch(**sizes, hidden=8, heads=2, num_blocks=1, local=local, whitened=whitened).eval()
        )
    whitening, plain = branches
    assert whitening.whiten is not None
    whitening.whiten.fit(batch.videos.clips.flatten(0, 1))
    clips = (batch.videos.clips - whitening.whiten.mean) @ whitening.whiten.matrix
    frames = (batch.videos.frames - whitening.whiten.mean) @ whitening.whiten.matrix
    by_hand = replace(
        batch.videos,
        clips=clips / clips.norm(dim=-1, keepdim=True),
        frames=frames / frames.norm(dim=-1, keepdim=True),
    )
    found, expected = whitening.encode_videos(batch.videos), plain.encode_videos(by_hand)
    torch.testing.assert_close(found.clips, expected.clips)
    torch.testing.assert_close(found.frames, expected.frames)
    torch.testing.assert_close(found.local_clips, expected.local_clips)
    torch.testing.assert_close(whitening.encode_clips(batch.videos), expected.clips)
    torch.testing.assert_close(whitening.encode_local_clips(batch.videos), expected.local_clips)
    assert not [
        name for name, value in whitening.named_parameters() if "whiten" in name and value.requires_grad
    ]
