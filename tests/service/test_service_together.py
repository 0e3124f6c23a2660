"""Questions that wait are answered in batches: first come first served, nobody overtaken, nobody dragged down."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from typing import Any

import pytest

from dciml.service.jobs import Together
from dciml.service.settings import Limits


class Held:
    """A line before one thread that is held up, so that questions wait until `go`."""

    def __init__(self, most: int) -> None:
        self.pool, self.batches = ThreadPoolExecutor(1), list[tuple[str, list[str]]]()
        self.line: Together[str, str, str] = Together(self.pool, self._answer, most)
        self._free, held = threading.Event(), threading.Event()
        self.pool.submit(lambda: (held.set(), self._free.wait(20)))
        assert held.wait(20)

    def _answer(self, key: str, questions: Sequence[str]) -> list[str]:
        self.batches.append((key, list(questions)))
        if "bad" in questions:
            raise ValueError("bad")
        return [f"{key} {question}" for question in questions]

    def ask(self, *questions: str, key: str = "a") -> list[Future[str]]:
        return [self.line.submit(key, question) for question in questions]

    def go(self) -> None:
        self._free.set()
        self.pool.submit(int).result(20)  # what stood in line before has had its turn


@pytest.fixture
def held() -> Iterator[Callable[[int], Held]]:
    made: list[Held] = []

    def make(most: int) -> Held:
        made.append(Held(most))
        return made[-1]

    yield make
    for one in made:
        one.go()
        one.pool.shutdown()


def test_those_that_wait_are_taken_in_their_order_and_so_many_at_once(held: Callable[[int], Held]) -> None:
    line = held(3)
    replies = line.ask(*"1234567")
    line.go()
    assert line.batches == [("a", ["1", "2", "3"]), ("a", ["4", "5", "6"]), ("a", ["7"])]
    assert [reply.result(0) for reply in replies] == [f"a {n}" for n in range(1, 8)]


def test_nobody_is_overtaken_by_a_like_question_and_other_work_keeps_its_turn(
    held: Callable[[int], Held],
) -> None:
    line, order = held(8), list[int]()
    line.ask("1", "2")
    line.pool.submit(lambda: order.append(len(line.batches)))
    line.ask("3", key="b")
    line.ask("4")
    line.go()
    assert line.batches == [("a", ["1", "2"]), ("b", ["3"]), ("a", ["4"])]
    assert order == [1]


def test_a_question_alone_does_not_wait_for_others(held: Callable[[int], Held]) -> None:
    line = held(8)
    line.go()
    assert line.ask("1")[0].result(20) == "a 1"
    assert line.batches == [("a", ["1"])]


def test_one_that_cannot_be_answered_spoils_no_other(held: Callable[[int], Held]) -> None:
    line = held(8)
    good, bad, last = line.ask("1", "bad", "2")
    line.go()
    assert (good.result(0), last.result(0)) == ("a 1", "a 2")
    with pytest.raises(ValueError, match="bad"):
        bad.result(0)


def test_who_has_left_is_passed_over_and_the_end_tells_those_who_wait(held: Callable[[int], Held]) -> None:
    line = held(8)
    first, second, third = line.ask("1", "2", "3")
    second.cancel()
    line.go()
    assert line.batches == [("a", ["1", "3"])]
    assert (first.done(), third.done()) == (True, True)
    ended = held(8)
    (waiting,) = ended.ask("1")
    ended.line.close()
    with pytest.raises(CancelledError):
        waiting.result(0)


def test_over_http_a_sentence_without_words_is_refused_and_its_neighbours_are_answered(
    running: Callable[..., Any],
) -> None:
    server = running(limits=Limits(search_threads=1))
    runtime = server.server.config.app.state.runtime
    free, begun = threading.Event(), threading.Event()
    runtime._search_pool.submit(lambda: (begun.set(), free.wait(20)))
    assert begun.wait(20)
    bodies = [
        '{"sentence": "red"}',
        '{"sentence": "?!"}',
        '{"sentence": "green"}',
        '{"sentence": "red", "k": 2}',
    ]
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(server.ask, "POST", "/api/search", body) for body in bodies]
        while runtime.searches.used < 4:
            assert not any(one.done() for one in asked)
        free.set()
        assert [one.result(20)[0] for one in asked] == [200, 422, 200, 200]
