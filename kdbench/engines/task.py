"""What an engine runs."""

from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from kdbench.results.records import Status

if TYPE_CHECKING:
    from kdbench.engines.channel import Line


class Task(Protocol):
    """Work for a process of its own; it must be picklable and write its own records."""

    @property
    def label(self) -> str:
        """What it is called; no two tasks of a phase have the same."""
        ...

    @property
    def weight(self) -> int:
        """Share of the work, for the time left."""
        ...

    @property
    def members(self) -> tuple[str, ...]:
        """Whose turn it can be (`Line.turn`), by number."""
        ...

    def execute(self, line: "Line") -> tuple[str, ...]:
        """Do it; keys of what is left to other processes that are at it."""
        ...

    def lost(self, status: Status, error: str) -> None:
        """Record that it cannot be done."""
        ...

    def without(self, member: int, status: Status, error: str) -> "Task | None":
        """Record how a member ended, and what is left to do without it."""
        ...


class RunTask(Task, Protocol):
    """A task of a run, whose records go to a results folder."""

    @property
    def results(self) -> Path:
        """The results folder that it writes into."""
        ...

    @property
    def alone(self) -> bool:
        """Whether it must have the machine to itself."""
        ...

    def moved(self, results: Path) -> "RunTask":
        """The same for another results folder."""
        ...
