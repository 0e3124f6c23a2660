"""A batch in parts, each of which one CPU thread computes alone: forward, and backward too.

Threads that share every operation wait for each other after each; threads that take parts do not. Parts are also
padded to their own longest sentence and video only. The split is of the batch alone and each part draws its dropout
from its own generator, so the result does not depend on how many threads there are, or which comes first.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from dciml.method.batch import Batch, QueryBatch, VideoBatch
from dciml.method.dropout import drawing_from
from dciml.threads import share_out

FEWEST_QUERIES = 8
"""A part with fewer sentences is not worth its own operations."""

Output = TypeVar("Output")


@dataclass(frozen=True)
class Part:
    """Neighbouring videos of a batch with all their sentences.

    Attributes:
        batch: these alone, without padding that none of them needs.
        queries: where the sentences stand in the whole batch.
    """

    batch: Batch
    queries: slice


def split(batch: Batch, most: int) -> tuple[Part, ...]:
    """The batch in at most so many parts (halved until each has enough sentences), about alike in words.

    One part: on a GPU, or where the sentences do not stand in the order of their videos.
    """
    whole, count = (Part(batch, slice(0, len(batch.video_of_query))),), most
    while count > 1 and count * FEWEST_QUERIES > len(batch.video_of_query):
        count //= 2
    if count < 2 or batch.video_of_query.device.type != "cpu":  # before a GPU would be waited for
        return whole
    owner = batch.video_of_query.tolist()
    if owner != sorted(owner):
        return whole
    words = np.zeros(len(batch.videos.video_ids))
    np.add.at(words, owner, batch.queries.word_mask.sum(dim=1).numpy())
    before = np.concatenate([[0.0], np.cumsum(words)])  # words before each video
    nearest = np.abs(before[:, None] - before[-1] * np.linspace(0, 1, count + 1)).argmin(axis=0).tolist()
    inner = {video for video in nearest if 0 < before[video] < before[-1]}  # words on either side
    return tuple(
        _part(batch, slice(*videos), slice(*(bisect_left(owner, video) for video in videos)))
        for videos in pairwise([0, *sorted(inner), len(words)])
    )


def _part(batch: Batch, videos: slice, queries: slice) -> Part:
    own, asked = batch.videos, batch.queries
    frames, words = _needed(own.frame_mask[videos]), _needed(asked.word_mask[queries])
    return Part(
        Batch(
            VideoBatch(
                own.video_ids[videos],
                own.clips[videos],
                own.frames[videos, :frames],
                own.frame_mask[videos, :frames],
            ),
            QueryBatch(
                asked.query_ids[queries],
                asked.words[queries, :words],
                asked.static_words[queries, :words],
                asked.word_mask[queries, :words],
                asked.word_ids[queries, :words],
                asked.hidden_words[queries, :words],
            ),
            batch.video_of_query[queries] - videos.start,
        ),
        queries,
    )


def _needed(mask: Tensor) -> int:
    return int(mask.sum(dim=1).max())


def in_parts(
    work: Callable[[Part], Output], parts: Sequence[Part], parameters: Iterable[nn.Parameter] = ()
) -> Output:
    """What `work` gives of the whole batch, each part by one thread.

    Args:
        work: gives a tensor, or a dataclass of tensors (or None), with one row for each query or video of the part.
        parameters: all that the gradient of `work` is asked for; where gradients are on.
    Returns: the parts' rows, one part after the other.
    """
    if len(parts) == 1:
        return work(parts[0])
    if not torch.is_grad_enabled():
        outputs = _each(work, parts)
        return _like(outputs[0], _joined([_tensors(output) for output in outputs]))
    outputs = []
    joined = _InParts.apply(partial(_run, work, parts, outputs), *parameters)  # type: ignore[no-untyped-call]
    return _like(outputs[0], joined)


def _run(work: Callable[[Part], Output], parts: Sequence[Part], outputs: list[Output]) -> list[list[Tensor]]:
    with torch.enable_grad():
        outputs += _each(work, parts)
    return [_tensors(output) for output in outputs]


def _each(work: Callable[[Part], Output], parts: Sequence[Part]) -> list[Output]:
    """`work` of each part, in threads that take over gradient mode and autocast of this one."""
    gradients, kind = torch.is_grad_enabled(), torch.get_autocast_dtype("cpu")
    autocast = partial(torch.autocast, "cpu", dtype=kind, enabled=torch.is_autocast_enabled("cpu"))
    seeds = torch.randint(2**62, (len(parts),)).tolist()

    def run(seeded: tuple[Part, int]) -> Output:
        generator = torch.Generator().manual_seed(seeded[1])
        with torch.set_grad_enabled(gradients), autocast(), drawing_from(generator):
            return work(seeded[0])

    return share_out(run, list(zip(parts, seeds, strict=True)))


class _InParts(torch.autograd.Function):
    """Joins what the parts give; each part's own graph is kept, and differentiated by one thread."""

    @staticmethod
    def forward(ctx: Any, run: Callable[[], list[list[Tensor]]], *parameters: Tensor) -> tuple[Tensor, ...]:
        ctx.parts, ctx.parameters = run(), parameters
        ctx.set_materialize_grads(False)
        joined = _joined([[tensor.detach() for tensor in part] for part in ctx.parts])
        ctx.mark_non_differentiable(
            *(whole for whole, own in zip(joined, ctx.parts[0], strict=True) if not own.requires_grad)
        )
        return joined

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        sizes = zip(*([len(tensor) for tensor in part] for part in ctx.parts), strict=True)
        pieces = [
            [None] * len(rows) if gradient is None else torch.split(gradient, rows)
            for gradient, rows in zip(gradients, map(list, sizes), strict=True)
        ]

        def differentiate(number: int) -> tuple[Tensor | None, ...]:
            pairs = [
                (tensor, piece[number])
                for tensor, piece in zip(ctx.parts[number], pieces, strict=True)
                if piece[number] is not None
            ]
            outputs, into = zip(*pairs, strict=True)
            # Kept, so that whoever keeps the whole graph can ask again; it goes when the whole one goes.
            found: tuple[Tensor | None, ...] = torch.autograd.grad(
                outputs, ctx.parameters, into, retain_graph=True, allow_unused=True
            )
            return found

        of_parts = share_out(differentiate, range(len(ctx.parts)))
        return None, *(_total(own) for own in zip(*of_parts, strict=True))


def _total(gradients: Iterable[Tensor | None]) -> Tensor | None:
    total = None
    for gradient in gradients:
        if gradient is not None:
            total = gradient if total is None else total.add_(gradient)
    return total


def _joined(parts: Sequence[Sequence[Tensor]]) -> tuple[Tensor, ...]:
    return tuple(torch.cat(tensors) for tensors in zip(*parts, strict=True))


def _tensors(output: object) -> list[Tensor]:
    """The tensors of a dataclass, those of dataclasses in it too."""
    if isinstance(output, Tensor):
        return [output]
    if not is_dataclass(output):
        return []
    return [tensor for f in fields(output) for tensor in _tensors(getattr(output, f.name))]


def _like(output: Output, tensors: Iterable[Tensor]) -> Output:
    """The same as `output`, of these tensors."""
    filled: Output = _filled(output, iter(tensors))
    return filled


def _filled(output: Any, tensors: Iterator[Tensor]) -> Any:
    if isinstance(output, Tensor):
        return next(tensors)
    if not is_dataclass(output):
        return output
    values = {f.name: _filled(getattr(output, f.name), tensors) for f in fields(output)}
    return replace(output, **values)  # type: ignore[type-var]
