"""Work shared out to processes, with the results in the order of the items."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import TypeVar

from dciml.errors import DataError

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_in_processes(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int
) -> Iterator[Result]:
    """Yield `function(item)` for each item, in order; with one worker, in this process.

    New processes are started afresh ("spawn"), so that threads of this one (torch has some) do no harm; a script
    that calls this must therefore keep its own work under `if __name__ == "__main__":`.

    Args:
        function: of a module's top level; arguments and results are pickled between processes.
        items: what to work on.
        workers: ≥ 1.
    Raises:
        DataError: as `function` raised it. Work not yet begun is given up.

    >>> list(map_in_processes(abs, [-1, 2], workers=1))
    [1, 2]
    """
    if workers < 1:
        raise ValueError(f"workers must be at least 1, not {workers}")
    if workers == 1:
        yield from map(function, items)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        try:
            yield from pool.map(function, items)
        except DataError as error:  # made anew: the copy that came through the pipe words its message twice
            raise DataError(error.what, where=error.where, mend=error.mend) from None
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
