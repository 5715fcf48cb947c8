"""The local engine: every task runs in a worker process of its own, several of them side by side.

A worker that dies or hangs is started again, and its task goes on from the last checkpoint; the member of the task that
had its turn is closed when that happens a second time, or when it hung. The parent itself never computes, so it never
touches a GPU. Where the system can (Linux), workers are forked off a server that has imported torch and timm once and
does nothing else; a device is opened in the workers only. On several GPUs each worker sees one.
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

from kdbench.engines.channel import NOBODY, Board, Line, Stopped, new_board
from kdbench.engines.display import Display
from kdbench.engines.stop import Halt
from kdbench.engines.task import RunTask, Task
from kdbench.errors import KdbenchError, describe
from kdbench.results.records import Status

if TYPE_CHECKING:
    from kdbench.compute.device import Compute

PRELOADED = ["kdbench.study.group", "kdbench.study.throughput"]
"""What a worker needs; importing it must neither open a device nor start a thread, as neither survives a fork."""
_CONTEXT = multiprocessing.get_context("forkserver" if sys.platform == "linux" else "spawn")
_CONTEXT.set_forkserver_preload(PRELOADED)

DEATHS = 2
"""How often a worker may die at the same member of a task, or at none, before that is closed."""
DEATHS_IN_A_ROW = 3
"""When that many workers die one after another, at nobody's turn, nothing will get better by going on."""
TURN_SECONDS = 1800.0
"""A turn is a batch or an evaluation; the first one of a contender may compile. One that takes longer has hung."""
_T = TypeVar("_T")

LOOK_SECONDS = 1.0
"""How often the parent looks whether a worker hangs."""

Engine = Callable[[Sequence[RunTask], int, Display, Halt, float | None], list[str]]
"""What `run_tasks` is, for the tasks of a run."""


def run_tasks(
    tasks: Sequence[Task], workers: int, display: Display, halt: Halt | None = None, limit: float | None = None
) -> list[str]:
    """Run every task, `workers` at a time; what goes wrong in a task is recorded by the task itself.

    Args:
        halt: when to stop before all is done.
        limit: seconds that a member's turn may take, where that is less than `TURN_SECONDS`.

    Returns:
        What tasks left to other processes that are at it, by key.
    """
    halt = halt or Halt()
    waiting = deque(tasks)
    pool: list[_Worker] = []
    deaths: Counter[tuple[str, str]] = Counter()
    in_a_row = 0
    left: list[str] = []

    def give_up(task: Task, status: Status, error: str) -> None:
        try:
            task.lost(status, error)
        except KdbenchError as problem:
            # Without a record a cell is missing, which is as it is; the others may still find room.
            display.note(str(problem))

    def ended(worker: "_Worker", status: Status, error: str) -> None:
        """A worker is dead; its task is started again without whoever is to blame."""
        nonlocal in_a_row
        task, member = worker.task, worker.board.holder
        name = task.members[member] if member != NOBODY else ""
        in_a_row = 0 if name else in_a_row + 1
        deaths[task.label, name] += 1
        final = status == "timeout" or deaths[task.label, name] >= DEATHS
        rest: Task | None = task
        if final and name:
            error += f" at {name}" if status == "timeout" else f" at {name}, for the second time"
            rest = task.without(member, status, error)
            display.note(f"{task.label}: {error}")
        elif final:
            give_up(task, status, error)
            rest = None
        else:
            display.note(f"{task.label}: {error}{f' at {name}' if name else ''}; it goes on from the last checkpoint")
        if rest is None:
            display.finished(task, None if name else error)
        else:
            display.dropped(task.weight - rest.weight)
            waiting.appendleft(rest)

    try:
        while waiting or pool:
            while waiting and len(pool) < workers and not halt.launches_no_more:
                place = min(set(range(workers)) - {worker.place for worker in pool})
                pool.append(_Worker(waiting.popleft(), place))
            if not pool:
                break
            if halt.requested:
                for worker in pool:
                    worker.board.stop = True
            for connection in wait([worker.connection for worker in pool], LOOK_SECONDS):
                worker = next(worker for worker in pool if worker.connection is connection)
                try:
                    kind, content = worker.connection.recv()
                except (EOFError, ConnectionResetError):
                    pool.remove(worker)
                    ended(worker, "failed", worker.cause_of_death())
                    if in_a_row >= DEATHS_IN_A_ROW:
                        for task in waiting:
                            give_up(task, "interrupted", f"stopped after {in_a_row} workers had died in a row")
                        waiting.clear()
                    continue
                if kind == "progress":
                    display.update(worker.task, content)
                    continue
                if kind == "note":
                    display.note(f"{worker.task.label}: {content}")
                    continue
                pool.remove(worker)
                worker.join()
                in_a_row = 0
                if kind == "failed":
                    give_up(worker.task, "failed", content)
                else:
                    left += content
                display.finished(worker.task, content if kind == "failed" else None)
            for worker in [worker for worker in pool if worker.overdue(limit)]:
                pool.remove(worker)
                worker.kill()
                ended(worker, "timeout", f"nothing came back for {time.monotonic() - worker.board.since:.0f} seconds")
    finally:
        for worker in pool:
            worker.kill()
    return left


def run_here(tasks: Sequence[Task], display: Display) -> list[str]:
    """Run every task in this process, as each process of a distributed run does; the first error ends the run."""
    left: list[str] = []
    for task in tasks:
        left += task.execute(Line(partial(display.update, task), display.note))
        display.finished(task, None)
    return left


def away(compute: "Compute", function: Callable[..., _T], *arguments: object) -> _T:
    """What a function returns that opens the device: a GPU is opened in a process of its own, not in the parent."""
    if compute.device.type == "cpu" or compute.shard.world > 1:
        return function(*arguments)
    with ProcessPoolExecutor(1, _CONTEXT) as pool:
        return pool.submit(function, *arguments).result()


class _Worker:
    """A process at a task, with a pipe and a board between it and the parent.

    Attributes:
        place: its number among those that run side by side, from 0.
    """

    def __init__(self, task: Task, place: int) -> None:
        self.task, self.place = task, place
        self.board: Board = new_board(partial(_CONTEXT.RawValue, Board))
        self.connection, other = _CONTEXT.Pipe(duplex=False)
        # The server that workers are forked off keeps the variables that it was born with.
        given = task, other, self.board, place, os.environ.get("CUDA_VISIBLE_DEVICES")
        self.process: BaseProcess = _CONTEXT.Process(target=_work, args=given)
        self.process.start()
        other.close()

    def overdue(self, limit: float | None) -> bool:
        """Whether the present turn has taken too long."""
        most = TURN_SECONDS if limit is None or self.board.holder == NOBODY else min(limit, TURN_SECONDS)
        return time.monotonic() - self.board.since > most

    def cause_of_death(self) -> str:
        """What became of the process whose pipe broke."""
        self.join()
        code = self.process.exitcode
        if code is not None and code < 0:
            reason = ", perhaps for want of memory" if -code == signal.SIGKILL else ""
            return f"the worker was killed by {signal.Signals(-code).name}{reason}"
        return f"the worker ended with exit code {code}"

    def join(self) -> None:
        """The process has said its last word: let it end, or see to it."""
        self.process.join(timeout=10)
        self.kill()

    def kill(self) -> None:
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        self.connection.close()


def _work(task: Task, connection: Connection, board: Board, place: int, visible: str | None) -> None:
    """The life of a worker: do the task, on one of the visible GPUs, and tell how it ended."""
    from kdbench.compute.device import gpus

    if visible is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = visible
    if there := gpus():
        os.environ["CUDA_VISIBLE_DEVICES"] = there[place % len(there)]
    # Ctrl-C reaches the whole process group, SIGTERM that of a batch system, too; the parent decides what is to stop.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    try:
        left = task.execute(Line(partial(_tell, connection, "progress"), partial(_tell, connection, "note"), board))
        _tell(connection, "done", left)
    except Stopped:
        _tell(connection, "stopped", ())
    except Exception as problem:
        if _device_is_lost(problem):
            os._exit(1)
        _tell(connection, "failed", describe(problem))


def _device_is_lost(problem: Exception) -> bool:
    """After such an error nothing works on the device of this process any more."""
    import torch

    return isinstance(problem, torch.AcceleratorError)


def _tell(connection: Connection, kind: str, content: Any) -> None:
    try:
        connection.send((kind, content))
    except (BrokenPipeError, ConnectionResetError):
        # The parent is gone; there is nobody left to work for.
        os._exit(1)
