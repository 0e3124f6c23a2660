"""What a training step costs, in numbers that no busy machine can blur: multiply–adds and bytes.

The counts are exact and the same on every machine. When a change makes a step cheaper, lower them; when one makes it
dearer, this is where it shows (docs/PERFORMANCE.md says what the parts cost at the sizes of the field).
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from multiply_adds import multiply_adds
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from dciml.config import parse_config
from dciml.method.batch import Batch
from dciml.method.grounding import GroundingBranch
from dciml.method.mutual import DualBranch
from dciml.method.retrieval import RetrievalBranch
from dciml.model_folder import build_step
from dciml.training.steps import Step, training_step

COSTS = {  # by the sentences of each video: multiply–adds of a step, those of the choice among proposals, peak bytes
    (3, 2, 3, 2): (133_567_464, 39_391_104, 8_630_000),
    (3, 7, 4, 2, 9, 8): (385_443_624, 127_342_080, 23_240_000),
}

TrainingStep = Callable[[Step, Batch, dict[str, torch.optim.Optimizer]], dict[str, float]]


class Costs:
    """A small model with published proportions, its batch, and what one step of it costs."""

    def __init__(self, batch: Batch) -> None:
        torch.manual_seed(0)
        retrieval = RetrievalBranch(
            video_width=12, text_width=10, hidden=48, heads=4, num_clips=8, max_frames=16
        )
        grounding = GroundingBranch(
            video_width=12, static_width=8, vocabulary_size=200, hidden=32, heads=4, layers=3, num_proposals=10,
            num_positions=8,
        )  # fmt: skip
        config = parse_config(
            {"name": "test", "data": {"folder": "unused"}, "mutual": {"from_epoch": 0}}, "test"
        )
        self.model, self.batch = DualBranch(retrieval, grounding, 48), batch
        self.step = build_step(
            config, Fabric(accelerator="cpu", devices=1), self.model, 0, torch.Generator().manual_seed(0)
        )
        self.optimizers: dict[str, torch.optim.Optimizer] = {
            side: torch.optim.SGD([p for _, p in self.model.side(side)], lr=0.0)
            for side in ("retrieval", "grounding")
        }

    def run(self, path: TrainingStep) -> Callable[[], object]:
        def step() -> object:
            torch.manual_seed(0)  # dropout moves the proposals, and what they let through is what is computed
            return path(self.step, self.batch, self.optimizers)

        return step


class HeldBytes(TorchDispatchMode):
    """Adds up the storages that the operations inside make or show, while they live; `peak` is the most at one time."""

    def __init__(self) -> None:
        super().__init__()
        self.peak = self._held = 0
        self._alive: set[int] = set()

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = function(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, torch.Tensor):
                self._count(leaf.untyped_storage())
        return out

    def _count(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key not in self._alive:
            self._alive.add(key)
            self._held += size
            self.peak = max(self.peak, self._held)
            weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self._alive.discard(key)
        self._held -= size


@pytest.mark.parametrize("sentences", COSTS)
def test_a_step_takes_no_more_operations_and_bytes_than_before(
    batch_of: Callable[..., Batch], sentences: tuple[int, ...]
) -> None:
    costs = Costs(batch_of(sentences))
    of_step, of_choice, most_bytes = COSTS[sentences]
    step = costs.run(training_step)
    assert multiply_adds(step) <= of_step
    assert multiply_adds(lambda: costs.model.grounding.select(costs.batch)) <= of_choice
    with HeldBytes() as held:
        step()
    assert held.peak <= most_bytes


def test_the_counts_are_exact(batch_of: Callable[..., Batch]) -> None:
    """By hand: a linear layer of 3 rows, 5 to 7 wide, and its gradient; attention; bytes that live at one time."""
    x, weight = torch.randn(3, 5), torch.randn(7, 5, requires_grad=True)
    assert multiply_adds(lambda: F.linear(x, weight).sum().backward()) == 2 * 3 * 5 * 7
    q, k = torch.randn(2, 4, 3, 8), torch.randn(2, 4, 5, 8)
    assert multiply_adds(lambda: F.scaled_dot_product_attention(q, k, k)) == 2 * 4 * 3 * 5 * (8 + 8)
    with HeldBytes() as held:
        a = torch.zeros(1000)
        b = a + 1  # two of 4,000 bytes
        del a
        c = b + 1
        del b, c
    assert held.peak == 8000
