"""Several processes as one: every process sees the outputs of all, and gradients are summed.

Each process computes the same losses over the gathered outputs, with a gradient through its own rows only. The sum of
the processes' gradients is then the gradient of one process with all the rows.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from dciml.method.outputs import RetrievalOutput


def gather_rows(fabric: Fabric, rows: Tensor) -> Tensor:
    """All processes' rows in the order of their ranks, (sum of rows, ...); own rows keep their gradient."""
    if fabric.world_size == 1:
        return rows
    counts = _row_counts(fabric, rows)
    padded = torch.zeros(max(counts), *rows.shape[1:], dtype=rows.dtype, device=rows.device)
    padded[: len(rows)] = rows.detach()
    everyone = _gathered(fabric, padded)
    parts = [
        rows if rank == fabric.global_rank else everyone[rank, :count] for rank, count in enumerate(counts)
    ]
    return torch.cat(parts)


def mean_over_all(fabric: Fabric, values: Tensor) -> Tensor:
    """Mean of a per-query loss over the sentences of all processes."""
    return gather_rows(fabric, values).mean()


def gather_output(fabric: Fabric, output: RetrievalOutput) -> RetrievalOutput:
    """The retrieval output of all processes, with the indices of the own videos moved along."""
    if fabric.world_size == 1:
        return output
    counts = _row_counts(fabric, output.clips)
    offset = sum(counts[: fabric.global_rank])
    return RetrievalOutput(
        gather_rows(fabric, output.query),
        gather_rows(fabric, output.clips),
        gather_rows(fabric, output.frames),
        gather_rows(fabric, output.video_of_query + offset),
    )


def any_process(fabric: Fabric, value: bool) -> bool:
    """Is the value True in at least one process? All get the same answer."""
    if fabric.world_size == 1:
        return value
    return bool(_gathered(fabric, torch.tensor(value, dtype=torch.int64, device=fabric.device)).any())


def _row_counts(fabric: Fabric, rows: Tensor) -> list[int]:
    counts: list[int] = _gathered(fabric, torch.tensor(len(rows), device=rows.device)).tolist()
    return counts


def _gathered(fabric: Fabric, values: Tensor) -> Tensor:
    everyone = fabric.all_gather(values)
    assert isinstance(everyone, Tensor)
    return everyone


def sum_gradients(fabric: Fabric, parameters: Iterable[nn.Parameter]) -> None:
    """Add up the gradients of all processes, in one message."""
    if fabric.world_size == 1:
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = fabric.all_reduce(torch.cat([g.flatten() for g in gradients]), reduce_op="sum")
    assert isinstance(flat, Tensor)
    for gradient, part in zip(gradients, torch.split(flat, [g.numel() for g in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))
