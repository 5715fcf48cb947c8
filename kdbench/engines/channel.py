"""The line between a worker and its parent: progress one way, the wish to stop the other, and whose turn it is.

The last two go through memory that both see and that outlives the worker: a worker that hangs or is killed can say
nothing more, and what it was at is known all the same.
"""

import ctypes
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from kdbench.engines.display import Emit

NOBODY = -1


class Stopped(Exception):
    """Raised in a worker that was asked to stop, once what it did is safe."""


class Board(ctypes.Structure):
    """What parent and worker both see.

    Attributes:
        holder: which member of the task has its turn, `NOBODY` for none.
        since: since when (`time.monotonic`, which is the same in all processes).
        stop: the worker is asked to stop.
    """

    _fields_ = (("holder", ctypes.c_int), ("since", ctypes.c_double), ("stop", ctypes.c_bool))

    holder: int
    since: float
    stop: bool


def new_board(make: Callable[..., Board] = Board) -> Board:
    """A board on which nobody has its turn yet."""
    return make(NOBODY, time.monotonic(), False)


@dataclass(frozen=True)
class Line:
    """A worker's end.

    Attributes:
        emit: tells the parent how far the task is.
        note: tells the user about something that went wrong and does not end the task.
    """

    emit: Emit
    note: Callable[[str], None]
    board: Board = field(default_factory=new_board)

    @property
    def stop(self) -> bool:
        """Whether the task is to stop as soon as that loses nothing."""
        return self.board.stop

    @contextmanager
    def turn(self, holder: int) -> Iterator[None]:
        """Somebody's turn; who ends it by an error that is not caught keeps it, to be found by the parent."""
        self.board.since, self.board.holder = time.monotonic(), holder
        yield
        self.board.since, self.board.holder = time.monotonic(), NOBODY
