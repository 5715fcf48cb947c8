"""The time that some code takes on the device that it computes on."""

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class Stopwatch:
    """Adds up the seconds that the code inside takes.

    The host launches kernels ahead of a GPU, and waits for it in whatever code happens to be next. So on a GPU events
    are recorded around the code; each pair is read once the GPU has passed it, and nothing waits for that.
    """

    def __init__(self, device: torch.device, seconds: float = 0.0) -> None:
        self._on_gpu = device.type == "cuda"
        self._seconds = seconds
        self._pending: deque[tuple[torch.cuda.Event, torch.cuda.Event]] = deque()

    @property
    def seconds(self) -> float:
        """Seconds so far; on a GPU, of the code that it is done with."""
        while self._pending and self._pending[0][1].query():
            before, after = self._pending.popleft()
            self._seconds += before.elapsed_time(after) / 1e3
        return self._seconds

    @contextmanager
    def running(self) -> Iterator[None]:
        """The code inside counts; after an error it does not."""
        if self._on_gpu:
            before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            before.record()
            yield
            after.record()
            self._pending.append((before, after))
        else:
            started = time.monotonic()
            yield
            self._seconds += time.monotonic() - started
