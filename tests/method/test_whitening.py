"""Whitening: what comes out, that the matrix may meet the weights instead of the rows, and that labels play no part."""

from __future__ import annotations

import torch
from torch import nn

from dciml.method.batch import Batch
from dciml.method.layers import Whitening
from dciml.method.retrieval import LocalScale

torch.manual_seed(0)
ROWS = torch.randn(500, 6) @ torch.randn(6, 6) * torch.tensor([9.0, 3.0, 1.0, 0.3, 0.1, 0.1]) + 4.0


def test_rows_come_out_centred_and_even_in_all_directions() -> None:
    whitening = Whitening(6)
    whitening.fit(ROWS, shrink=1e-9)
    out = (ROWS - whitening.mean) @ whitening.matrix
    torch.testing.assert_close(out.mean(dim=0), torch.zeros(6), atol=1e-3, rtol=0)
    torch.testing.assert_close(out.t() @ out / len(out), torch.eye(6) / 6, atol=2e-3, rtol=0)


def test_shrinking_keeps_directions_of_noise_small() -> None:
    flat = torch.cat([torch.randn(300, 3), 1e-6 * torch.randn(300, 3)], dim=1)
    whitening = Whitening(6)
    whitening.fit(flat, shrink=0.1)
    out = (flat - whitening.mean) @ whitening.matrix
    assert float(out[:, 3:].std()) < 1e-4 < float(out[:, :3].std())
    whitening.fit(torch.ones(4, 6))  # nothing varies: nothing is divided by 0
    assert torch.isfinite(whitening.matrix).all()


def test_a_layer_of_whitened_rows_is_the_layer_after_the_matrix() -> None:
    whitening, layer = Whitening(6), nn.Linear(6, 3)
    torch.testing.assert_close(whitening.through(layer, ROWS), layer(ROWS))  # nothing is fitted yet
    whitening.fit(ROWS)
    centred = ROWS - whitening.mean
    torch.testing.assert_close(whitening.through(layer, centred), layer(centred @ whitening.matrix))


def test_local_scale_reads_whitened_words_and_clips(batch: Batch) -> None:
    width, text_width = batch.videos.clips.shape[-1], batch.queries.words.shape[-1]
    local = LocalScale(video_width=width, text_width=text_width, width=5, dropout=0.0, whitened=True).eval()
    assert local.whiten_words is not None
    assert local.whiten_clips is not None
    words = batch.queries.words[batch.queries.word_mask]
    local.whiten_words.fit(words)
    local.whiten_clips.fit(batch.videos.clips.flatten(0, 1))
    nn.init.normal_(local.word_score.weight)

    clips = (batch.videos.clips - local.whiten_clips.mean) @ local.whiten_clips.matrix
    torch.testing.assert_close(local.encode_clips(batch.videos), local.video(clips))
    for place, vector in enumerate(local.encode_queries(batch.queries)):
        own = batch.queries.words[place][batch.queries.word_mask[place]]
        whitened = (own - local.whiten_words.mean) @ local.whiten_words.matrix
        pooled = local.word_score(whitened)[:, 0].softmax(dim=0) @ whitened
        torch.testing.assert_close(vector, local.text(pooled), atol=1e-5, rtol=1e-4)
    assert not {name for name, value in local.named_parameters() if "whiten" in name and value.requires_grad}
