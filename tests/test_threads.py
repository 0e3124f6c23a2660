"""Work shared out over threads: the same results, in order; errors reach the caller; torch's own threads stay."""

from __future__ import annotations

from collections.abc import Iterator
from threading import Barrier, current_thread, main_thread

import pytest
import torch

from dciml.threads import num_shares, set_num_shares, share_out


@pytest.fixture
def two_torch_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_torch_threads")
@pytest.mark.parametrize("shares", [2, 3])  # 3: a team of threads that no other test has started yet
def test_parts_are_worked_on_at_the_same_time_by_threads_that_compute_alone(shares: int) -> None:
    all_at_once = Barrier(shares, timeout=20)

    def work(part: int) -> tuple[int, int, bool]:
        all_at_once.wait()  # nobody passes alone
        return part, torch.get_num_threads(), current_thread() is main_thread()

    set_num_shares(shares)
    try:
        assert share_out(work, range(shares)) == [(part, 1, False) for part in range(shares)]
    finally:
        set_num_shares(None)
    assert torch.get_num_threads() == 2


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


def test_parts_stay_in_the_calling_thread_where_work_is_not_shared_out() -> None:
    assert num_shares() == 1
    assert share_out(lambda part: (part, current_thread()), ["a", "b"]) == [
        (part, current_thread()) for part in "ab"
    ]


def test_work_is_shared_out_as_widely_as_torch_computes_unless_told_otherwise() -> None:
    assert num_shares() == torch.get_num_threads()
    set_num_shares(5)
    try:
        assert num_shares() == 5
    finally:
        set_num_shares(None)
    with pytest.raises(ValueError, match="at least one"):
        set_num_shares(0)
