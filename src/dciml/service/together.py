"""Questions that wait for a thread are answered together, in the order in which they came."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

Key = TypeVar("Key")
Question = TypeVar("Question")
Reply = TypeVar("Reply")


@dataclass(frozen=True)
class _Waiting(Generic[Key, Question, Reply]):
    key: Key
    question: Question
    reply: Future[Reply]


class Together(Generic[Key, Question, Reply]):
    """A line before a thread pool, whose first places are taken as one batch when they ask for the same.

    A batch takes less processor time than its questions one by one. Nobody waits until a batch is full, and nobody is
    overtaken: a thread that is free takes the first question, and with it those right behind it that have its key.

    Args:
        pool: does the work; what else it does keeps its turn.
        answer: gives the replies to questions of one key.
        most: questions in a batch.
    """

    def __init__(
        self, pool: ThreadPoolExecutor, answer: Callable[[Key, Sequence[Question]], list[Reply]], most: int
    ) -> None:
        self._pool, self._answer, self._most = pool, answer, most
        self._line: deque[_Waiting[Key, Question, Reply]] = deque()
        self._lock = threading.Lock()

    def submit(self, key: Key, question: Question) -> Future[Reply]:
        """Stand in line; a future that is cancelled before its turn is passed over."""
        waiting = _Waiting(key, question, Future[Reply]())
        with self._lock:
            self._line.append(waiting)
        self._pool.submit(self._take_turn, waiting)
        return waiting.reply

    def close(self) -> None:
        """Cancel what still waits; for after the pool has been shut down."""
        with self._lock:
            for waiting in self._line:
                waiting.reply.cancel()
            self._line.clear()

    def _take_turn(self, own: _Waiting[Key, Question, Reply]) -> None:
        """The turn of a question, with nothing left to do where an earlier turn has taken it along."""
        taken: list[_Waiting[Key, Question, Reply]] = []
        with self._lock:
            if own.reply.running() or own.reply.done():
                return
            while self._line and len(taken) < self._most:
                if taken and self._line[0].key != taken[0].key:
                    break
                waiting = self._line.popleft()
                if waiting.reply.set_running_or_notify_cancel():
                    taken.append(waiting)
        if taken:
            self._reply(taken)

    def _reply(self, taken: Sequence[_Waiting[Key, Question, Reply]]) -> None:
        try:
            replies = self._answer(taken[0].key, [waiting.question for waiting in taken])
        except Exception as error:
            if len(taken) == 1:
                taken[0].reply.set_exception(error)
                return
            for waiting in taken:  # one that cannot be answered must not take the others with it
                self._reply([waiting])
        else:
            for waiting, reply in zip(taken, replies, strict=True):
                waiting.reply.set_result(reply)
