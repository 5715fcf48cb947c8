"""What a running task says of itself."""

from collections.abc import Callable
from dataclasses import dataclass

from kdbench.results.schema import Status


@dataclass
class MemberState:
    """How a member of a task stands: its last loss, its last top-1 in percent, and its status once it has ended."""

    name: str
    loss: float | None = None
    top1: float | None = None
    status: Status | None = None


@dataclass(frozen=True)
class Progress:
    """How far a task is: its label, the share that is done in [0, 1], and its members."""

    label: str
    share: float
    members: tuple[MemberState, ...] = ()


Emit = Callable[[Progress], None]
"""Is called with the progress of a task."""
