"""Work shared out over threads: the same results, in order; errors reach the caller; torch's own threads stay."""

from __future__ import annotations

from collections.abc import Iterator
from threading import Barrier, current_thread, main_thread

import pytest
import torch

from dciml.threads import num_shares, set_num_shares, share_out


@pytest.fixture
def two_shares() -> Iterator[None]:
    set_num_shares(2)
    yield
    set_num_shares(None)


@pytest.mark.usefixtures("two_shares")
def test_parts_are_worked_on_at_the_same_time_and_come_back_in_order() -> None:
    both = Barrier(2, timeout=20)

    def work(part: int) -> tuple[int, int, bool]:
        both.wait()  # nobody passes alone
        return part, torch.get_num_threads(), current_thread() is main_thread()

    before = torch.get_num_threads()
    assert share_out(work, [3, 1]) == [(3, 1, False), (1, 1, False)]
    assert torch.get_num_threads() == before


@pytest.mark.usefixtures("two_shares")
def test_the_first_error_reaches_the_caller_when_all_have_ended() -> None:
    ended = []

    def work(part: int) -> None:
        ended.append(part)
        if part in (1, 2):
            raise ValueError(f"part {part}")

    with pytest.raises(ValueError, match="part 1"):
        share_out(work, [0, 1, 2, 3])
    assert sorted(ended) == [0, 1, 2, 3]


def test_a_single_part_stays_in_the_calling_thread() -> None:
    assert share_out(lambda part: (part, current_thread()), ["a"]) == [("a", current_thread())]


def test_work_is_shared_out_as_widely_as_torch_computes_unless_told_otherwise() -> None:
    assert num_shares() == torch.get_num_threads()
    set_num_shares(5)
    try:
        assert num_shares() == 5
    finally:
        set_num_shares(None)
    with pytest.raises(ValueError, match="at least one"):
        set_num_shares(0)
