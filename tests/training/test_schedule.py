"""Learning rate, warm-up of the pathways, easiness, hard negatives."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dciml.config import RunConfig, parse_config
from dciml.method.terms import PATHWAY_TERMS, TERMS
from dciml.model_folder import build_step
from dciml.recipes.train import make_fabric, set_lr
from dciml.training.steps import Step, lr_factor


def make(**changes: object) -> RunConfig:
    return parse_config({"name": "n", "data": {"folder": "f"}, **changes}, "test")


def step_in(config: RunConfig, epoch: int) -> Step:
    """What the settings make of an epoch."""
    model = cast("Any", None)
    return build_step(config, make_fabric(config), model, epoch, torch.Generator())


def test_rate_rises_then_falls_to_zero() -> None:
    factors = [lr_factor(step, 8, warmup_fraction=0.25) for step in range(9)]
    assert factors == pytest.approx([1 / 2, 1, 1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6, 0])


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 500), st.floats(0, 0.99))
def test_rate_stays_between_zero_and_one_and_every_step_learns(total: int, warmup: float) -> None:
    factors = [lr_factor(step, total, warmup_fraction=warmup) for step in range(total)]
    assert all(0 < factor <= 1 for factor in factors)
    top = factors.index(max(factors))
    assert factors[: top + 1] == sorted(factors[: top + 1])
    assert factors[top:] == sorted(factors[top:], reverse=True)


def test_each_group_keeps_its_own_rate() -> None:
    one, two = (torch.nn.Parameter(torch.zeros(1)) for _ in range(2))
    groups = [{"params": [one], "lr": 1.0, "base_lr": 1.0}, {"params": [two], "lr": 3.0, "base_lr": 3.0}]
    optimizer = torch.optim.AdamW(groups)
    set_lr({"joint": optimizer}, 0.5)
    set_lr({"joint": optimizer}, 0.1)  # not on top of the last
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.1, 0.3])


@pytest.mark.parametrize("switch", sorted(PATHWAY_TERMS))
def test_each_pathway_has_a_switch_and_weights(switch: str) -> None:
    on, off = make(mutual={"from_epoch": 2}), make(mutual={"from_epoch": 2, switch: False})
    weights = step_in(off, 2).weights
    changed = {name for name, weight in step_in(on, 2).weights.items() if weights[name] != weight}
    assert changed == set(PATHWAY_TERMS[switch])
    assert all(step_in(on, 1).weights[name] == 0 for name in PATHWAY_TERMS[switch])


def test_terms_of_all_pathways_have_weights() -> None:
    terms = [term for several in PATHWAY_TERMS.values() for term in several]
    assert len(terms) == len(set(terms))
    assert set(terms) <= make().weights.model_dump().keys() == TERMS.keys()


def test_easiness_follows_its_exponent() -> None:
    plain = make()
    assert [step_in(plain, epoch).easiness for epoch in (0, 5, 50)] == [1.0, 1.0, 1.0]
    curved = make(grounding={"easiness_exponent": 0.5, "easiness_epochs": 16})
    assert [step_in(curved, epoch).easiness for epoch in (0, 4, 16, 99)] == pytest.approx(
        [0.0, 0.5, 1.0, 1.0]
    )


def test_hard_negatives_begin_at_their_epoch() -> None:
    config = make(retrieval={"hard_negatives_from_epoch": 3, "hard_pool_size": 7})
    assert [step_in(config, epoch).hard_pool_size for epoch in (0, 2, 3, 4)] == [None, None, 7, 7]
