"""Batches of random numbers in the shapes of the field's data sets, and the published sizes of the model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from dciml.config import RunConfig, parse_config
from dciml.method import DualBranch
from dciml.method.batch import Batch, QueryBatch, VideoBatch
from dciml.model_folder import MODEL_FORMAT, ModelCard, build_dual


@dataclass(frozen=True)
class Shape:
    """Sizes of a batch; `sentence_words` are mean and standard deviation of the words of a sentence."""

    videos: int
    queries: int
    frames: tuple[int, int]  # fewest and most rows of a video
    video_width: int
    text_width: int
    sentence_words: tuple[float, float]
    max_words: int
    vocabulary: int
    proposals: int


SHAPES = {
    # sentences a video and words a sentence as in the annotations; most videos are longer than 128 rows
    "activitynet": Shape(16, 59, (128, 128), 1024, 1024, (13.5, 6.3), 30, 8000, 10),
    "charades": Shape(16, 37, (32, 64), 1024, 1024, (6.2, 1.9), 30, 1111, 8),
    "tvr": Shape(16, 80, (40, 64), 3072, 768, (13.4, 5.0), 30, 8000, 10),
    "tiny": Shape(4, 10, (4, 8), 8, 8, (4.0, 1.0), 6, 20, 2),
}
"""TVR's numbers are those of its paper; there are no features or sentences of it here. `tiny` is for tests."""


def make_config(shape: Shape, **training: Any) -> RunConfig:
    """Published sizes (METHOD §6), all pathways on."""
    return parse_config(
        {
            "name": "benchmark",
            "data": {"folder": "none"},
            "text": {"max_words": shape.max_words},
            "grounding": {"num_proposals": shape.proposals},
            "mutual": {"from_epoch": 0},
            "training": training,
        },
        "benchmark",
    )


def make_model(shape: Shape, config: RunConfig, seed: int = 0) -> DualBranch:
    """Fresh weights."""
    torch.manual_seed(seed)
    card = ModelCard(
        kind="dciml",
        format_version=MODEL_FORMAT,
        video_width=shape.video_width,
        text_width=shape.text_width,
        static_width=300,
        vocabulary_size=shape.vocabulary,
        store_encoder="random",
        text_encoder="random",
    )
    return build_dual(config, card)


def make_batch(shape: Shape, seed: int = 0, num_clips: int = 32) -> Batch:
    """Unit rows of random direction; sentences of random words, a third of them hidden."""
    generator = torch.Generator().manual_seed(seed)

    def between(low: int, high: int, count: int) -> torch.Tensor:
        return torch.randint(low, high + 1, (count,), generator=generator)

    def unit(*size: int) -> torch.Tensor:
        return torch.nn.functional.normalize(torch.randn(*size, generator=generator), dim=-1)

    num_frames = between(*shape.frames, shape.videos)
    mean, deviation = shape.sentence_words
    drawn = mean + deviation * torch.randn(shape.queries, generator=generator)
    num_words = drawn.round().long().clamp(3, shape.max_words)
    frame_mask = torch.arange(int(num_frames.max())) < num_frames[:, None]
    word_mask = torch.arange(int(num_words.max())) < num_words[:, None]
    hidden = (torch.rand(word_mask.shape, generator=generator) < 1 / 3) & word_mask
    videos = VideoBatch(
        tuple(f"v{i}" for i in range(shape.videos)),
        unit(shape.videos, num_clips, shape.video_width),
        ((torch.arange(num_clips) + 0.5) / num_clips).repeat(shape.videos, 1),
        unit(*frame_mask.shape, shape.video_width) * frame_mask[..., None],
        frame_mask,
    )
    queries = QueryBatch(
        tuple(f"q{i}" for i in range(shape.queries)),
        unit(*word_mask.shape, shape.text_width) * word_mask[..., None],
        unit(*word_mask.shape, 300) * word_mask[..., None],
        word_mask,
        torch.randint(1, shape.vocabulary, word_mask.shape, generator=generator) * word_mask,
        hidden,
    )
    owner = torch.arange(shape.queries) * shape.videos // shape.queries
    return Batch(videos, queries, owner)
