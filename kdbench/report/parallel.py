"""Two processes for what takes most of a report's time: drawing figures."""

import sys
from collections.abc import Callable, Sequence
from multiprocessing import get_all_start_methods, get_context
from typing import TypeVar

from kdbench.errors import KdbenchError

Result = TypeVar("Result")


def together(jobs: Sequence[Callable[[], Result]]) -> list[Result]:
    """What the jobs return; the process and a child of it take the next job in turn, so long ones come first.

    Raises:
        KdbenchError: the child has failed.
    """
    # A child that is forked off torch's threads may hang.
    if "torch" in sys.modules or "fork" not in get_all_start_methods() or len(jobs) < 2:
        return [job() for job in jobs]
    fork = get_context("fork")
    taken = fork.Value("i", 0)

    def work() -> dict[int, Result]:
        results: dict[int, Result] = {}
        while True:
            with taken.get_lock():
                number, taken.value = taken.value, taken.value + 1
            if number >= len(jobs):
                return results
            results[number] = jobs[number]()

    def answer() -> None:
        try:
            its.send((work(), None))
        except Exception as error:
            its.send(({}, f"{type(error).__name__}: {error}"))

    mine, its = fork.Pipe(duplex=False)
    other = fork.Process(target=answer, daemon=True)
    other.start()
    its.close()
    results = work()
    try:
        others, problem = mine.recv()
    except EOFError:
        others, problem = {}, "it was ended, as happens where memory is short"
    if problem is not None:
        raise KdbenchError(f"a process that draws figures has failed: {problem}; run the same command again")
    results |= others
    return [results[number] for number in range(len(jobs))]
