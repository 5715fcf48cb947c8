"""Interruptions: how a run prepares for them, and when it stops before everything is done."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Care:
    """How carefully trainings are kept.

    Attributes:
        checkpoint_seconds: between two checkpoints; at the end of an epoch half of it is enough.
        limit: seconds that one student may take, None for any number.
    """

    checkpoint_seconds: float = 300.0
    limit: float | None = None


class Halt:
    """The wish to stop: on Ctrl-C (or SIGTERM), or when a budget of time is spent.

    Attributes:
        requested: what runs is to stop, too, as soon as that loses nothing.
    """

    def __init__(self, budget: float | None = None) -> None:
        """Args:
        budget: seconds after which nothing new is started; None for no end.
        """
        self.requested = False
        self._end = None if budget is None else time.monotonic() + budget

    @property
    def spent(self) -> bool:
        """Whether the budget is."""
        return self._end is not None and time.monotonic() >= self._end

    @property
    def launches_no_more(self) -> bool:
        return self.requested or self.spent

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take the first Ctrl-C or SIGTERM for a request, the second for a KeyboardInterrupt.

        Raises:
            KeyboardInterrupt: at the second one, or at the end after the first.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def asked(number: int, frame: Any) -> None:
            if self.requested:
                raise KeyboardInterrupt
            self.requested = True

        numbers = signal.SIGINT, signal.SIGTERM
        before = [signal.signal(number, asked) for number in numbers]
        try:
            yield
        finally:
            for number, handler in zip(numbers, before, strict=True):
                signal.signal(number, handler)
        if self.requested:
            raise KeyboardInterrupt
