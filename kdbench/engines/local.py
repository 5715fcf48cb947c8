"""The local engine: every task runs in a worker process of its own, several of them side by side.

A worker that dies or hangs is started again, and its task goes on from the last checkpoint. The member whose code was
running is closed when the worker dies at it a second time, or when it hung. Kernels of a GPU run behind the code that
launched them: a worker that lost its GPU blames nobody, and the next one waits for every kernel, so that an error comes
up where it was made. The parent itself never computes, so it never opens a GPU. Where the system can (Linux), workers
are forked off a server that has imported torch and timm once and does nothing else; a device is opened in the workers
only. On several GPUs each worker sees one.
"""

import multiprocessing
import os
import signal
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING, Any, TypeVar

from kdbench.engines.channel import NO_MEMBER, Channel, SharedState, Stopped, new_state
from kdbench.engines.display import Display
from kdbench.engines.stop import StopRequest
from kdbench.engines.task import Job
from kdbench.errors import KdbenchError
from kdbench.results.schema import Status

if TYPE_CHECKING:
    from kdbench.compute.device import Compute

CONTEXT = multiprocessing.get_context("forkserver" if sys.platform == "linux" else "spawn")

DEATHS = 2
"""How often a worker may die while it runs the same member's code, or no member's, before that is closed."""
DEATHS_IN_A_ROW = 3
"""When that many workers die one after another while no member's code runs, going on will not help."""
STEP_SECONDS = 1800.0
"""A member's step is a batch or an evaluation, and the first one may compile. A step that takes longer has hung."""
LOOK_SECONDS = 1.0
"""How often the parent looks whether a worker hangs."""
DEVICE_LOST = 71
"""Exit code of a worker on whose device nothing works any more."""
_T = TypeVar("_T")


class LocalEngine:
    """Runs tasks in processes of this machine."""

    def run(
        self,
        tasks: Sequence[Job],
        *,
        workers: int,
        display: Display,
        stop: StopRequest | None = None,
        limit: float | None = None,
    ) -> list[str]:
        """See `kdbench.engines.task.Engine.run`; a step of a member never may take more than `STEP_SECONDS`."""
        # What a worker needs is imported once. Importing must neither open a device nor start a thread, as neither
        # survives a fork.
        CONTEXT.set_forkserver_preload(sorted({type(task).__module__ for task in tasks}))
        return _Phase(tasks, workers, display, stop or StopRequest(), limit).run()


class _Phase:
    """The tasks that wait, the workers that run, and the workers that have died."""

    def __init__(
        self, tasks: Sequence[Job], workers: int, display: Display, stop: StopRequest, limit: float | None
    ) -> None:
        self._waiting = deque(tasks)
        self._most = workers
        self._display = display
        self._stop = stop
        self._limit = limit
        self._workers: list[_Worker] = []
        self._deaths: Counter[tuple[str, str]] = Counter()
        self._deaths_in_a_row = 0
        self._blocking: set[str] = set()
        self._left: list[str] = []

    def run(self) -> list[str]:
        """Run until every task has ended; returns the keys of the cells that were left to others."""
        try:
            while self._start_workers():
                for connection in wait([worker.connection for worker in self._workers], LOOK_SECONDS):
                    self._receive(next(worker for worker in self._workers if worker.connection is connection))
                for worker in [worker for worker in self._workers if worker.overdue(self._limit)]:
                    self._workers.remove(worker)
                    worker.kill()
                    silence = time.monotonic() - worker.state.since
                    self._died(worker, "timeout", f"nothing came back for {silence:.0f} seconds")
        finally:
            for worker in self._workers:
                worker.kill()
        return self._left

    def _start_workers(self) -> bool:
        """Start as many as there is room and work for, and pass the request to stop on; False when none runs."""
        while self._waiting and len(self._workers) < self._most and not self._stop.closing:
            slot = min(set(range(self._most)) - {worker.slot for worker in self._workers})
            task = self._waiting.popleft()
            self._workers.append(_Worker(task, slot, task.label in self._blocking))
        if self._stop.requested:
            for worker in self._workers:
                worker.state.stop = True
        return bool(self._workers)

    def _receive(self, worker: "_Worker") -> None:
        """Take the next message of a worker; none comes from one that has died."""
        try:
            kind, content = worker.connection.recv()
        except (EOFError, ConnectionResetError):
            self._workers.remove(worker)
            # What waits for every kernel cannot be timed; a measurement waits at the end of each turn in any case.
            if worker.lost_its_device and not worker.task.exclusive and worker.task.label not in self._blocking:
                self._start_blocking(worker)
            else:
                self._died(worker, "failed", worker.cause_of_death())
            if self._deaths_in_a_row >= DEATHS_IN_A_ROW:
                for task in self._waiting:
                    error = f"stopped after {self._deaths_in_a_row} workers had died in a row"
                    self._give_up(task, "interrupted", error)
                self._waiting.clear()
            return
        if kind == "progress":
            self._display.update(worker.task, content)
        elif kind == "note":
            self._display.note(f"{worker.task.label}: {content}")
        else:
            self._workers.remove(worker)
            worker.join()
            self._deaths_in_a_row = 0
            error = None
            if kind == "failed":
                status, error = content
                self._give_up(worker.task, status, error)
            else:
                self._left += content
            self._display.finished(worker.task, error)

    def _start_blocking(self, worker: "_Worker") -> None:
        """Start the task of a worker that lost its GPU again, so that the next error tells whose kernel it is of."""
        self._blocking.add(worker.task.label)
        self._display.note(
            f"{worker.task.label}: {worker.cause_of_death()}; it goes on from the last checkpoint and waits for every "
            "kernel, to find out whose it is"
        )
        self._waiting.appendleft(worker.task)

    def _died(self, worker: "_Worker", status: Status, error: str) -> None:
        """Start the task of a dead worker again, without the member that is to blame."""
        task, display, number = worker.task, self._display, worker.state.member
        name = task.members[number] if number != NO_MEMBER else ""
        self._deaths_in_a_row = 0 if name else self._deaths_in_a_row + 1
        self._deaths[task.label, name] += 1
        final = status == "timeout" or self._deaths[task.label, name] >= DEATHS
        rest: Job | None = task
        if final and name:
            error += f" at {name}" if status == "timeout" else f" at {name}, for the second time"
            rest = task.without(number, status, error)
            display.note(f"{task.label}: {error}")
        elif final:
            self._give_up(task, status, error)
            rest = None
        else:
            display.note(f"{task.label}: {error}{f' at {name}' if name else ''}; it goes on from the last checkpoint")
        if rest is None:
            display.finished(task, None if name else error)
        else:
            display.dropped(task.weight - rest.weight)
            self._waiting.appendleft(rest)

    def _give_up(self, task: Job, status: Status, error: str) -> None:
        try:
            task.lost(status, error)
        except KdbenchError as problem:
            # Without a record a cell is missing, which is true; the other tasks may still find room.
            self._display.note(str(problem))


def in_subprocess(compute: "Compute", function: Callable[..., _T], *arguments: object) -> _T:
    """What a function returns that opens the device: a GPU is opened in a process of its own, not in the parent."""
    if compute.device.type == "cpu" or compute.replica.world > 1:
        return function(*arguments)
    with ProcessPoolExecutor(1, CONTEXT) as pool:
        return pool.submit(function, *arguments).result()


class _Worker:
    """A process that runs a task, with a pipe and shared memory between it and the parent.

    Attributes:
        slot: its number among those that run side by side, from 0.
        blocking: it waits for every kernel that it launches.
    """

    def __init__(self, task: Job, slot: int, blocking: bool) -> None:
        self.task, self.slot = task, slot
        self.state: SharedState = new_state(partial(CONTEXT.RawValue, SharedState))
        self.connection, other = CONTEXT.Pipe(duplex=False)
        # The server that workers are forked off keeps the variables that it was born with.
        given = task, other, self.state, slot, os.environ.get("CUDA_VISIBLE_DEVICES"), blocking
        self.process: BaseProcess = CONTEXT.Process(target=_work, args=given)
        self.process.start()
        other.close()

    def overdue(self, limit: float | None) -> bool:
        """Whether the present step has taken too long."""
        most = STEP_SECONDS if limit is None or self.state.member == NO_MEMBER else min(limit, STEP_SECONDS)
        return time.monotonic() - self.state.since > most

    @property
    def lost_its_device(self) -> bool:
        """Whether the process whose pipe broke ended because nothing worked on its device any more."""
        self.join()
        return self.process.exitcode == DEVICE_LOST

    def cause_of_death(self) -> str:
        """What became of the process whose pipe broke."""
        self.join()
        code = self.process.exitcode
        if code == DEVICE_LOST:
            return "the worker lost its device"
        if code is not None and code < 0:
            reason = ", perhaps for want of memory" if -code == signal.SIGKILL else ""
            return f"the worker was killed by {signal.Signals(-code).name}{reason}"
        return f"the worker ended with exit code {code}"

    def join(self) -> None:
        """The process has sent its last message: wait for its end, or end it."""
        self.process.join(timeout=10)
        self.kill()

    def kill(self) -> None:
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        self.connection.close()


def _work(
    task: Job, connection: Connection, state: SharedState, slot: int, visible: str | None, blocking: bool
) -> None:
    """What a worker does: run the task, on one of the visible GPUs, and report how it ended."""
    from kdbench.compute.device import gpus
    from kdbench.compute.failures import device_lost, ending

    if blocking:
        os.environ["CUDA_LAUNCH_BLOCKING"] = "1"

    if visible is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = visible
    if there := gpus():
        os.environ["CUDA_VISIBLE_DEVICES"] = there[slot % len(there)]
    # Ctrl-C reaches the whole process group, SIGTERM that of a batch system, too; the parent decides what is to stop.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    try:
        left = task.execute(Channel(partial(_send, connection, "progress"), partial(_send, connection, "note"), state))
        _send(connection, "done", left)
    except Stopped:
        _send(connection, "stopped", ())
    except Exception as problem:
        if device_lost(problem):
            os._exit(DEVICE_LOST)
        _send(connection, "failed", ending(problem))


def _send(connection: Connection, kind: str, content: Any) -> None:
    try:
        connection.send((kind, content))
    except (BrokenPipeError, ConnectionResetError):
        # The parent is gone; there is nobody left to work for.
        os._exit(1)
