"""The engine for a cluster: every task is a Ray task, and that is the local engine with this one task.

So isolation, restarts from checkpoints and time limits are the same code as on one machine. Ray places the tasks, and
starts those of a node that is lost again on another one. Where the nodes share the storage of the results folder, a
task writes there and goes on from the checkpoints there; where they do not, it works in a folder of its own, and what
it has written comes back to the driver (the process of `kdbench run`).

This module imports Ray.
"""

import logging
import os
import socket
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import chdir, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# What becomes of Ray's own processes would be printed into our output, JSON too; the display tells what concerns a run.
os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".")

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from kdbench.engines.display import Display, Labelled
from kdbench.engines.local import LOOK_SECONDS, LocalEngine
from kdbench.engines.mailbox import Mailbox
from kdbench.engines.progress import Progress
from kdbench.engines.stop import StopRequest
from kdbench.engines.task import RunJob
from kdbench.errors import KdbenchError, describe, one_line
from kdbench.files import PART, write_bytes

RETRIES = 3
"""How many nodes a task may lose."""
KNOCK_SECONDS = 10.0
"""How long the head of a cluster may take to answer."""
KEPT = ("checkpoints", "environments", "throughput", "cells")
"""What a task has written and is kept, records of cells last, as they point at the rest."""


class RayEngine:
    """Runs tasks on a Ray cluster."""

    def __init__(self, address: str | None, on_gpu: bool) -> None:
        """Connect. This has to come before anybody listens to SIGTERM, as Ray does so, too.

        Args:
            address: of the head; None for the cluster that RAY_ADDRESS names, else a new one on this machine. (Ray
                itself would look for the last one that was started here, and wait long for one that has crashed.)
            on_gpu: tasks compute on GPUs.

        Raises:
            KdbenchError: no cluster answers, or none that could run a task.
        """
        address = address or os.environ.get("RAY_ADDRESS") or "local"
        try:
            _knock(address)
            ray.init(address, ignore_reinit_error=True, log_to_driver=False, logging_level=logging.CRITICAL)
        except (OSError, RuntimeError, ValueError, RayError) as error:
            raise KdbenchError(f"no Ray cluster answers at {address}: {error}") from error
        self._device = "GPU" if on_gpu else "CPU"
        if not self._largest_node().get(self._device):
            raise KdbenchError(f"no node of the Ray cluster has a {self._device}; see `ray status`")

    def run(
        self,
        tasks: Sequence[RunJob],
        *,
        workers: int,
        display: Display,
        stop: StopRequest | None = None,
        limit: float | None = None,
    ) -> list[str]:
        """See `kdbench.engines.task.Engine.run`; what cannot be run is recorded as lost.

        Args:
            workers: tasks that share a GPU; on CPUs each task takes one.
        """
        stop, left = stop or StopRequest(), []
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        mailbox: Any = ray.remote(Mailbox).options(num_cpus=0, scheduling_strategy=here).remote()
        execute: Any = ray.remote(_execute)
        with _token(tasks[0].results) as token:
            running = {
                execute.options(
                    **self._resources(task, workers), max_retries=RETRIES, scheduling_strategy="SPREAD"
                ).remote(task, limit, mailbox, Path.cwd(), token): task
                for task in tasks
            }
            news = _News(tasks, display)
            try:
                while running:
                    done, _ = ray.wait(list(running), timeout=LOOK_SECONDS)
                    news.show(_answer(mailbox.collect.remote(stop.requested, stop.closing)))
                    for reference in done:
                        left += _end(running.pop(reference), reference, display)
            finally:
                for reference in running:
                    ray.cancel(reference, force=True)
                ray.kill(mailbox)
        return left

    def _resources(self, task: RunJob, workers: int) -> dict[str, float]:
        """What Ray reserves: a core or a share of a GPU; for an exclusive task, all of one of the largest nodes."""
        if task.exclusive:
            node = self._largest_node()
            return {"num_cpus": node.get("CPU", 0), "num_gpus": node["GPU"] if self._device == "GPU" else 0}
        return {"num_cpus": 1, "num_gpus": 1 / workers if self._device == "GPU" else 0}

    def _largest_node(self) -> dict[str, float]:
        """The resources of the node that has most of them; nothing where there is no node."""
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        return max(nodes, key=lambda has: (has.get(self._device, 0), has.get("CPU", 0)), default={})


def _knock(address: str) -> None:
    """Ray itself would try for a quarter of an hour.

    Raises:
        OSError: nobody is at HOST:PORT.
    """
    host, _, port = address.rpartition(":")
    if port.isdigit() and "://" not in address:
        socket.create_connection((host, int(port)), timeout=KNOCK_SECONDS).close()


@dataclass(frozen=True)
class _Ended:
    """How a task ended on its node.

    Attributes:
        left: keys of the cells that other processes are at work on.
        error: why it failed, None where it did not.
        files: what it has written, by path in the results folder, where the driver cannot see that.
        lost: why it ended without a report of its own.
    """

    left: list[str] = field(default_factory=list)
    error: str | None = None
    files: list[tuple[str, bytes]] = field(default_factory=list)
    lost: str | None = None


class _Relay(Display):
    """The display of the local engine on a node: what it shows goes to the driver, whose request to stop comes back."""

    def __init__(self, mailbox: Any, label: str, stop: StopRequest) -> None:
        self._mailbox, self._label, self._stop = mailbox, label, stop
        self.error: str | None = None

    def update(self, task: Labelled, progress: Progress) -> None:
        self._stop.requested = _answer(self._mailbox.tell.remote(self._label, progress))

    def note(self, text: str) -> None:
        self._stop.requested = _answer(self._mailbox.tell.remote(self._label, text))

    def finished(self, task: Labelled, error: str | None) -> None:
        self.error = error

    def dropped(self, weight: int) -> None:
        """The driver counts whole tasks."""


class _News:
    """Shows what the tasks have told."""

    def __init__(self, tasks: Sequence[RunJob], display: Display) -> None:
        self._tasks = {task.label: task for task in tasks}
        self._display = display
        self._begun: set[str] = set()

    def show(self, news: list[tuple[str, Any]]) -> None:
        for label, what in news:
            if isinstance(what, Progress):
                self._display.update(self._tasks[label], what)
            elif what is not None:
                self._display.note(what)
            elif label in self._begun:
                self._display.note(f"{label}: it was lost with its node and goes on from the last checkpoint there is")
            else:
                self._begun.add(label)


def _execute(task: RunJob, limit: float | None, mailbox: Any, home: Path, token: Path) -> _Ended:
    """A Ray task: run the local engine on a node.

    Args:
        home: the driver's working directory, which relative paths start from.
        token: a file that the driver has put into the results folder.
    """
    if not _answer(mailbox.begins.remote(task.label)):
        return _Ended()
    stop = StopRequest()
    relay = _Relay(mailbox, task.label, stop)
    engine = LocalEngine()
    with chdir(home) if home.is_dir() else nullcontext():
        if token.is_file():
            return _Ended(engine.run([task], workers=1, display=relay, stop=stop, limit=limit), relay.error)
        with tempfile.TemporaryDirectory(prefix="kdbench-") as folder:
            left = engine.run([task.moved(Path(folder))], workers=1, display=relay, stop=stop, limit=limit)
            return _Ended(left, relay.error, _written(Path(folder)))


def _written(folder: Path) -> list[tuple[str, bytes]]:
    """The files in a results folder, in the order in which they are to be copied."""
    paths = [path for part in KEPT for path in sorted((folder / part).rglob("*")) if path.is_file()]
    return [(path.relative_to(folder).as_posix(), path.read_bytes()) for path in paths if path.suffix != PART]


def _answer(reference: Any) -> Any:
    """What a call has returned.

    Not by `ray.get`: a task that waits in it gives its cores back to Ray meanwhile, and would not be alone any more.
    """
    return reference.future().result()


def _end(task: RunJob, reference: Any, display: Display) -> list[str]:
    """Keep what a task brought; returns the keys of the cells that it left to others."""
    ended = _ended(reference)
    try:
        if ended.lost is not None:
            task.lost("failed", ended.lost)
        for name, content in ended.files:
            write_bytes(task.results / name, content)
    except KdbenchError as problem:
        # As on one machine: without a record a cell is missing; the others may still find room.
        display.note(str(problem))
    display.finished(task, ended.lost or ended.error)
    return ended.left


def _ended(reference: Any) -> _Ended:
    """How a task ended, also where it could not say so itself."""
    try:
        return _answer(reference)
    except RayTaskError as error:
        return _Ended(lost=describe(error.cause))
    except RayError as error:
        return _Ended(lost=f"Ray has given it up: {type(error).__name__}: {one_line(str(error))}")


@contextmanager
def _token(results: Path) -> Iterator[Path]:
    """A file in the results folder, by which a node knows whether it sees that."""
    with tempfile.NamedTemporaryFile(dir=results, prefix=".", suffix=PART) as file:
        yield Path(file.name)
