"""When a run stops before everything is done: on Ctrl-C, on SIGTERM, or when its time is spent."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class StopRequest:
    """The request to stop: by Ctrl-C or SIGTERM, or because the budget of time is spent.

    Attributes:
        requested: what runs is to stop, too, as soon as nothing is lost by it.
    """

    def __init__(self, budget: float | None = None) -> None:
        """Args:
        budget: seconds after which nothing new is started; None for no end.
        """
        self.requested = False
        self._end = None if budget is None else time.monotonic() + budget

    @property
    def spent(self) -> bool:
        """Whether the budget of time is spent."""
        return self._end is not None and time.monotonic() >= self._end

    @property
    def closing(self) -> bool:
        """Whether nothing new is to be started."""
        return self.requested or self.spent

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take the first Ctrl-C or SIGTERM as a request, the second one as a KeyboardInterrupt.

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
