"""What an engine runs, and what an engine is."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from kdbench.engines.channel import Channel
from kdbench.engines.display import Display
from kdbench.engines.stop import StopRequest
from kdbench.results.schema import Status


class Job(Protocol):
    """Work for a process of its own. It can be pickled, and it writes its own records."""

    @property
    def label(self) -> str:
        """What the task is called; no two tasks of a phase have the same label."""
        ...

    @property
    def weight(self) -> int:
        """The share of the task in all work, from which the time left is estimated."""
        ...

    @property
    def members(self) -> tuple[str, ...]:
        """The parts that can fail alone; `Channel.on_behalf_of` takes their numbers."""
        ...

    @property
    def exclusive(self) -> bool:
        """Whether the task must have the machine to itself, because it measures time."""
        ...

    def execute(self, channel: Channel) -> tuple[str, ...]:
        """Do the work; returns the keys of the cells that it left to other processes, which are at work on them."""
        ...

    def lost(self, status: Status, error: str) -> None:
        """Record that the task cannot be done."""
        ...

    def without(self, member: int, status: Status, error: str) -> "Job | None":
        """Record how a member ended; returns the task that is left without it, None where nothing is left."""
        ...


class RunJob(Job, Protocol):
    """A task whose records go to a results folder."""

    @property
    def results(self) -> Path:
        """The results folder that it writes into."""
        ...

    def moved(self, results: Path) -> "RunJob":
        """The same task for another results folder."""
        ...


class Engine(Protocol):
    """Runs the tasks of a run."""

    def run(
        self,
        tasks: Sequence[RunJob],
        *,
        workers: int,
        display: Display,
        stop: StopRequest,
        limit: float | None = None,
    ) -> list[str]:
        """Run every task; what goes wrong in a task is recorded by the task itself.

        Args:
            workers: how many tasks run side by side.
            stop: when to stop before all is done.
            limit: seconds that one step of a member may take.

        Returns:
            The keys of the cells that tasks left to other processes, which are at work on them.
        """
        ...
