"""The local engine: worker processes that take tasks one after another.

Every worker is a process of its own that lives until the work is done. A worker that dies takes only its task with it;
the parent itself never computes, so it never touches a GPU. Where the system can (Linux), workers are forked off a
server that has imported torch and timm once and does nothing else; a device is opened in the workers only.
"""

import multiprocessing
import os
import signal
import sys
from collections import deque
from collections.abc import Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

from kdbench.errors import describe
from kdbench.study.progress import Display, Progress, Task

PRELOADED = ["kdbench.study.group", "kdbench.study.timing"]
"""What a worker needs; importing it must neither open a device nor start a thread, as neither survives a fork."""
_CONTEXT = multiprocessing.get_context("forkserver" if sys.platform == "linux" else "spawn")
_CONTEXT.set_forkserver_preload(PRELOADED)

DEATHS_IN_A_ROW = 3
"""When that many workers die one after another nothing will get better by going on."""


def run_tasks(tasks: Sequence[Task], workers: int, display: Display) -> None:
    """Run every task in one of `workers` processes; what goes wrong in a task is recorded by the task itself."""
    waiting = deque(tasks)
    pool: list[_Worker] = []
    deaths = 0
    try:
        while waiting or any(worker.task for worker in pool):
            while waiting and len(pool) < workers:
                pool.append(_Worker())
            for worker in pool:
                if waiting and worker.task is None:
                    worker.start(waiting.popleft())
            for connection in wait([worker.connection for worker in pool]):
                worker = next(worker for worker in pool if worker.connection is connection)
                task = worker.task
                assert task is not None
                try:
                    kind, content = worker.connection.recv()
                except (EOFError, ConnectionResetError):
                    error = worker.cause_of_death()
                    pool.remove(worker)
                    deaths += 1
                    task.lost("failed", error)
                    display.finished(task, error)
                    if deaths >= DEATHS_IN_A_ROW:
                        for left in waiting:
                            left.lost("interrupted", f"stopped after {deaths} workers had died in a row")
                        waiting.clear()
                    continue
                if kind == "progress":
                    display.update(task, content)
                    continue
                worker.task = None
                deaths = 0
                if content is not None:
                    task.lost("failed", content)
                display.finished(task, content)
    finally:
        for worker in pool:
            worker.stop()


def run_here(tasks: Sequence[Task], display: Display) -> None:
    """Run every task in this process, as each process of a distributed run does; the first error ends the run."""
    for task in tasks:
        task.execute(lambda progress, task=task: display.update(task, progress))
        display.finished(task, None)


class _Worker:
    """A process with a pipe to it, and the task it is at."""

    def __init__(self) -> None:
        self.connection, other = _CONTEXT.Pipe()
        self.task: Task | None = None
        self.process: BaseProcess = _CONTEXT.Process(target=_work, args=(other,))
        self.process.start()
        other.close()

    def start(self, task: Task) -> None:
        self.task = task
        self.connection.send(task)

    def cause_of_death(self) -> str:
        """What became of the process whose pipe broke."""
        self.process.join(timeout=10)
        code = self.process.exitcode
        if code is not None and code < 0:
            return f"the worker was killed by {signal.Signals(-code).name}"
        return f"the worker ended with exit code {code}"

    def stop(self) -> None:
        """End the process, politely when it is idle."""
        if self.task is None and self.process.is_alive():
            self.connection.send(None)
            self.process.join(timeout=5)
        if self.process.is_alive():
            self.process.terminate()
            self.process.join(timeout=5)
        self.connection.close()


def _work(connection: Connection) -> None:
    """The life of a worker: take a task, tell how far it is, say that it is done; None ends it."""
    # Ctrl-C reaches the whole process group; the parent decides what becomes of the workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        error = None
        try:
            task: Task | None = connection.recv()
            if task is None:
                return
            task.execute(lambda progress: _tell(connection, "progress", progress))
        except EOFError:
            return
        except Exception as problem:
            error = describe(problem)
        _tell(connection, "done", error)


def _tell(connection: Connection, kind: str, content: Progress | str | None) -> None:
    try:
        connection.send((kind, content))
    except (BrokenPipeError, ConnectionResetError):
        # The parent is gone; there is nobody left to work for.
        os._exit(1)
