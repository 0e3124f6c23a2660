"""Counts the multiply–adds of matrix products; the fused attention of a CPU too, which PyTorch's counter leaves out."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

Shape = Sequence[int]


def _forward(q: Shape, k: Shape, v: Shape, *_: object, **__: object) -> int:
    return int(sdpa_flop_count(q, k, v))


def _backward(grad: Shape, q: Shape, k: Shape, v: Shape, *_: object, **__: object) -> int:
    return int(sdpa_backward_flop_count(grad, q, k, v))


FUSED_ATTENTION = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _forward,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _backward,
}


def multiply_adds(work: Callable[[], object]) -> int:
    """How many multiply–adds `work` makes in matrix products; causal attention counts whole."""
    with FlopCounterMode(display=False, custom_mapping=FUSED_ATTENTION) as counter:
        work()
    return int(counter.get_total_flops()) // 2
