"""The engine of distributed runs: every process that torchrun started runs every task itself."""

from collections.abc import Sequence
from functools import partial

from kdbench.engines.channel import Channel
from kdbench.engines.display import Display
from kdbench.engines.stop import StopRequest
from kdbench.engines.task import Job


class InProcessEngine:
    """Runs one task after the other in this process; the first error ends the run."""

    def run(
        self,
        tasks: Sequence[Job],
        *,
        workers: int,
        display: Display,
        stop: StopRequest | None = None,
        limit: float | None = None,
    ) -> list[str]:
        """See `kdbench.engines.task.Engine.run`; workers, stop and limit have no meaning here."""
        left: list[str] = []
        for task in tasks:
            left += task.execute(Channel(partial(display.update, task), display.note))
            display.finished(task, None)
        return left
