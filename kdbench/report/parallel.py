"""Two processes for what takes most of a report's time: drawing figures and writing long tables."""

import sys
from collections.abc import Callable, Sequence
from multiprocessing import get_all_start_methods, get_context

Job = Callable[[], dict[str, bytes]]
"""Makes some of the files of a report, by name."""


def together(jobs: Sequence[Job]) -> dict[str, bytes]:
    """The files of all jobs; the process and a child of it take the next job in turn, so long ones come first."""
    # A child that is forked off torch's threads may hang.
    if "torch" in sys.modules or "fork" not in get_all_start_methods() or len(jobs) < 2:
        return _merged([job() for job in jobs])
    fork = get_context("fork")
    taken = fork.Value("i", 0)

    def work() -> dict[str, bytes]:
        files: dict[str, bytes] = {}
        while True:
            with taken.get_lock():
                number, taken.value = taken.value, taken.value + 1
            if number >= len(jobs):
                return files
            files |= jobs[number]()

    mine, its = fork.Pipe(duplex=False)
    other = fork.Process(target=lambda: its.send(work()), daemon=True)
    other.start()
    its.close()
    return work() | mine.recv()


def _merged(files: Sequence[dict[str, bytes]]) -> dict[str, bytes]:
    return {name: data for some in files for name, data in some.items()}
