"""The channel between a worker and its parent: progress goes one way, the request to stop goes the other.

Which member a worker computes for, and the request to stop, lie in memory that both processes see and that outlives the
worker: a worker that hangs or was killed can say nothing more, and still the parent knows whose code it was running.
"""

import ctypes
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from kdbench.engines.progress import Emit

NO_MEMBER = -1


class Stopped(Exception):
    """Raised in a worker that was asked to stop, once its work is saved."""


class SharedState(ctypes.Structure):
    """What parent and worker both see.

    Attributes:
        member: number of the member whose code runs, `NO_MEMBER` for none.
        since: since when (`time.monotonic`, which is the same in all processes).
        stop: the worker is asked to stop.
    """

    _fields_ = (("member", ctypes.c_int), ("since", ctypes.c_double), ("stop", ctypes.c_bool))

    member: int
    since: float
    stop: bool


def new_state(make: Callable[..., SharedState] = SharedState) -> SharedState:
    """A state in which no member's code runs yet."""
    return make(NO_MEMBER, time.monotonic(), False)


@dataclass(frozen=True)
class Channel:
    """A worker's end of the channel.

    Attributes:
        emit: tells the parent how far the task is.
        note: tells the user about something that went wrong and does not end the task.
    """

    emit: Emit
    note: Callable[[str], None]
    state: SharedState = field(default_factory=new_state)

    @property
    def stop(self) -> bool:
        """Whether the task is to stop as soon as nothing is lost by it."""
        return self.state.stop

    @contextmanager
    def on_behalf_of(self, member: int) -> Iterator[None]:
        """The code inside runs for one member. After an error that is not caught the parent finds that member named."""
        self.state.since, self.state.member = time.monotonic(), member
        yield
        self.state.since, self.state.member = time.monotonic(), NO_MEMBER
