"""A step whose shapes are fixed reads no value on the host, so that a GPU never waits for its processor.

Judged without a GPU, in two ways. On the `meta` device tensors have sizes and no values: whoever wants one fails, and
so does whoever mixes devices. On a CPU every operation whose answer, or the size of it, a host would have to fetch is
refused by name; a few of these pass on `meta`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning_fabric import Fabric
from torch.utils._python_dispatch import TorchDispatchMode

import dciml
from dciml.config import RunConfig, parse_config
from dciml.method.batch import Batch, BatchSizes
from dciml.model_folder import MODEL_FORMAT, ModelCard, build_dual, build_step
from dciml.recipes.train import make_optimizers
from dciml.training import steps
from dciml.training.steps import Step, training_step

Unchecked = Callable[[], AbstractContextManager[None]]
ROOT = Path(__file__).parents[2]
CONFIGS = [*sorted((ROOT / "configs").rglob("*.yaml")), Path(dciml.__file__).parent / "demo" / "demo.yaml"]
SMALL: dict[str, dict[str, Any]] = {
    "text": {"max_words": 9},
    "retrieval": {"hidden": 16, "heads": 2, "num_clips": 8, "max_frames": 16, "num_blocks": 1},
    "grounding": {"hidden": 16, "heads": 2, "layers": 2, "num_proposals": 4, "num_positions": 6},
    "training": {"grounding_queries": None, "accelerator": "cpu", "fixed_shapes": True},
}
ALL_ON: dict[str, dict[str, Any]] = {
    "mutual": {"from_epoch": 0},
    "retrieval": {"hard_negatives_from_epoch": 0, "local": "linear"},
    "weights": {"triplet_local": 1.0},
}
MORE: dict[str, dict[str, dict[str, Any]]] = {
    "all on": ALL_ON,
    "joint": ALL_ON | {"training": {"mode": "joint"}},
    "negatives at random": ALL_ON | {"retrieval": {"local": "linear", "hard_negatives_from_epoch": 9}},
    "clips that look alike": ALL_ON | {"retrieval": {"local": "linear", "local_propagation": 0.5}},
    "anchors and windows": ALL_ON
    | {"grounding": {"anchors": True}, "mutual": {"from_epoch": 0, "to_grounding_form": "windows"}},
    "some sentences": ALL_ON | {"training": {"grounding_queries": 8}},
    "half precision": ALL_ON | {"training": {"precision": "bf16-mixed"}},
}


def small(tree: dict[str, Any]) -> RunConfig:
    """The settings with small sizes and as many sentences for grounding as they say, at most 8."""
    own = {key: {**tree.get(key, {}), **value} for key, value in SMALL.items()}
    wanted = tree.get("training", {}).get("grounding_queries")
    own["training"]["grounding_queries"] = wanted and min(wanted, 8)
    return parse_config({"name": "test", "data": {"folder": "unused"}, **tree, **own}, "test")


EVERY = [pytest.param(tree, id=name) for name, tree in MORE.items()]
EVERY += [
    pytest.param(
        yaml.safe_load(file.read_text()), id=f"{file.parent.name}/{file.stem}", marks=pytest.mark.slow
    )
    for file in CONFIGS
]


def make_step(config: RunConfig, *, epoch: int, device: str = "cpu") -> Step:
    torch.manual_seed(0)
    card = ModelCard("dciml", MODEL_FORMAT, "random", "random", 12, 10, 8, 20)
    if config.retrieval.local == "shared":
        card = replace(card, text_width=12)
    model = build_dual(config, card).to(device)
    generator = torch.Generator().manual_seed(0)
    fabric = Fabric(accelerator="cpu", devices=1, precision=config.training.precision)
    return build_step(config, fabric, model, epoch, generator)


def make_batch(config: RunConfig, batch_of: Callable[..., Batch]) -> Batch:
    batch = batch_of((3, 7, 4, 2, 9, 8))
    if config.retrieval.local == "shared":
        queries = batch.queries
        width = 12 - queries.words.shape[-1]
        words = torch.nn.functional.pad(queries.words, (0, width))
        queries = replace(queries, words=words, sentences=words.sum(dim=1))
        batch = replace(batch, queries=queries)
    sizes = BatchSizes(config.retrieval.num_clips, config.retrieval.max_frames, config.text.max_words)
    return batch.in_buckets(sizes)


class HostWaits(AssertionError):
    """An operation for which a host would wait."""


READS = (
    "_local_scalar_dense", "nonzero", "masked_select", "_unique", "_unique2", "unique_dim", "unique_consecutive",
    "bincount", "equal", "_linalg_check_errors", "item",
)  # fmt: skip


class ValuesStayThere(TorchDispatchMode):
    """Refuses what reads a value, or whose size depends on one, and copies between devices for which both wait."""

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs, name = kwargs or {}, function.overloadpacket.__name__
        by_mask = name in ("index", "index_put", "index_put_", "_index_put_impl_") and any(
            index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1]
        )
        counted = name == "repeat_interleave" and kwargs.get("output_size") is None
        if name in READS or by_mask or counted:
            raise HostWaits(f"{function} in a step")
        out = function(*args, **kwargs)
        if name in ("_to_copy", "copy_"):
            source = args[1] if name == "copy_" else args[0]
            target = args[0] if name == "copy_" else out
            waits = not (kwargs.get("non_blocking") or args[2:3] == (True,))
            if source.device != target.device and waits:
                raise HostWaits(f"{function} from {source.device} to {target.device} in a step")
        return out


def take_on_meta(step: Step, batch: Batch, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """One step where there are no values; the names of the losses that would be read at its end."""
    read: list[str] = []
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda _: False)  # `meta` is unknown there
    monkeypatch.setattr(steps, "read_losses", lambda _step, _batch, terms: read.extend(terms) or {})
    sides: dict[str, torch.optim.Optimizer] = {
        side: torch.optim.SGD([p for _, p in step.model.side(side) if p.requires_grad], lr=0.1, foreach=False)
        for side in ("retrieval", "grounding")
    }
    there = batch.to(torch.device("meta"))
    with ValuesStayThere():
        training_step(step, there, sides)
    return read


@pytest.mark.parametrize("epoch", [pytest.param(0, marks=pytest.mark.slow), 50])
@pytest.mark.parametrize("tree", EVERY)
def test_no_operation_of_a_step_reads_a_value(
    tree: dict[str, Any], epoch: int, batch_of: Callable[..., Batch], shapes_unchecked: Unchecked
) -> None:
    config = small(tree)
    step, batch = make_step(config, epoch=epoch), make_batch(config, batch_of)
    optimizers = make_optimizers(config, step.model)
    with shapes_unchecked():
        training_step(step, batch, optimizers)  # what is made once only
        with ValuesStayThere():
            values = training_step(step, batch, optimizers)
    assert len(values) >= 5


@pytest.mark.parametrize("tree", EVERY)
def test_a_step_goes_through_where_there_are_no_values(
    tree: dict[str, Any],
    batch_of: Callable[..., Batch],
    monkeypatch: pytest.MonkeyPatch,
    shapes_unchecked: Unchecked,
) -> None:
    config = small(tree)
    step, batch = make_step(config, epoch=50, device="meta"), make_batch(config, batch_of)
    with shapes_unchecked():
        assert len(take_on_meta(step, batch, monkeypatch)) >= 8


def test_both_checks_find_a_step_that_packs(
    batch_of: Callable[..., Batch], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small(ALL_ON)
    batch = make_batch(config, batch_of)
    here = replace(make_step(config, epoch=0), fixed_shapes=False)
    with pytest.raises(HostWaits, match="nonzero"), ValuesStayThere():
        training_step(here, batch, make_optimizers(config, here.model))
    there = replace(make_step(config, epoch=0, device="meta"), fixed_shapes=False)
    with pytest.raises((HostWaits, NotImplementedError)):
        take_on_meta(there, batch, monkeypatch)


@pytest.mark.parametrize(
    "reads",
    [
        lambda x: x.sum().item(),
        lambda x: bool((x > 0).any()),
        lambda x: x[x > 0],
        lambda x: torch.unique(x),
        lambda x: torch.nn.functional.one_hot(x.long().clamp(0, 1)),
        lambda x: torch.linalg.solve(torch.eye(3), x[:3]),
        lambda x: torch.repeat_interleave(x, torch.tensor([2] * len(x))),
    ],
)
def test_the_check_finds_each_way_to_read_a_value(reads: Callable[[torch.Tensor], object]) -> None:
    with pytest.raises(HostWaits), ValuesStayThere():
        reads(torch.arange(4.0))
    with pytest.raises(HostWaits, match="meta"), ValuesStayThere():
        torch.arange(4.0).to("meta")
