"""The Ray engine with small tasks, on a Ray of this machine with two cores."""

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from kdbench.engines.channel import Channel, Stopped
from kdbench.engines.display import Display
from kdbench.engines.progress import Progress
from kdbench.engines.stop import StopRequest
from kdbench.errors import KdbenchError
from kdbench.files import read_json, write_json
from kdbench.results.schema import Status
from tests.support.command import kdbench

ray = pytest.importorskip("ray")

from kdbench.engines.ray import RayEngine  # noqa: E402

pytestmark = pytest.mark.runs


@dataclass(frozen=True)
class Errand:
    """A task that tells when it was at work, and in which process."""

    label: str
    results: Path
    exclusive: bool = False
    seconds: float = 1.0
    company: int = 1
    ends: str = ""

    weight = 1
    members = ("one",)

    def execute(self, channel: Channel) -> tuple[str, ...]:
        """Take so many seconds, and until so many have begun."""
        begun = time.time()
        self._write({"begun": begun})
        while (spent := time.time() - begun) < self.seconds or len(written(self.results)) < self.company:
            channel.emit(Progress(self.label, min(1.0, spent / self.seconds)))
            if channel.stop:
                raise Stopped
            assert spent < 900
            time.sleep(0.05)
        if self.ends == "raises":
            raise ArithmeticError("no such errand")
        if self.ends == "dies":
            with channel.on_behalf_of(0):
                os._exit(7)
        self._write({"begun": begun, "ended": time.time()})
        return (f"{self.label} left",)

    def moved(self, results: Path) -> "Errand":
        return replace(self, results=results)

    def lost(self, status: Status, error: str) -> None:
        self._write({"status": status, "error": error})

    def without(self, member: int, status: Status, error: str) -> None:
        self._write({"status": status, "error": error})

    def _write(self, value: object) -> None:
        write_json(self.results / "cells" / "pair" / f"{self.label}.json", value)


def arrive() -> Errand:
    raise LookupError("no such file on this node")


class Stranger(Errand):
    """A task that a node cannot read."""

    def __reduce__(self) -> tuple[object, ...]:
        return arrive, ()


@pytest.fixture(scope="module")
def engine() -> Iterator[RayEngine]:
    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="CRITICAL")
    yield RayEngine(None, on_gpu=False)
    ray.shutdown()


class Shown(Display):
    """What the user would see; the first progress may be answered by a wish to stop."""

    def __init__(self, stop: StopRequest | None = None) -> None:
        super().__init__(Console(quiet=True), "errands", 4)
        self.notes: list[str] = []
        self.stop = stop

    def update(self, task: object, progress: Progress) -> None:
        if self.stop is not None:
            self.stop.requested = True

    def note(self, text: str) -> None:
        self.notes.append(text)


def written(folder: Path) -> dict[str, SimpleNamespace]:
    return {path.stem: SimpleNamespace(**read_json(path)) for path in folder.rglob("*.json")}


def overlap(one: SimpleNamespace, other: SimpleNamespace) -> bool:
    return one.begun < other.ended and other.begun < one.ended


def test_tasks_run_side_by_side_unless_they_must_be_alone(engine: RayEngine, tmp_path: Path) -> None:
    side_by_side = [Errand(name, tmp_path, company=2) for name in "ab"]
    assert set(engine.run(side_by_side, workers=1, display=Shown(), stop=StopRequest())) == {"a left", "b left"}
    alone = [Errand(name, tmp_path, exclusive=True) for name in "cd"]
    engine.run(alone, workers=1, display=Shown(), stop=StopRequest())
    at = written(tmp_path)
    assert overlap(at["a"], at["b"])
    assert not overlap(at["c"], at["d"])
    assert not list(tmp_path.glob(".*")), "the token is taken back"


@pytest.mark.bench
def test_what_goes_wrong_is_recorded_and_told(engine: RayEngine, tmp_path: Path) -> None:
    shown = Shown()
    bad = [Errand("b", tmp_path, ends="raises"), Errand("c", tmp_path, ends="dies"), Stranger("d", tmp_path)]
    engine.run([Errand("a", tmp_path), *bad], workers=1, display=shown, stop=StopRequest())
    found = written(tmp_path)
    assert found["a"].ended and shown.failures == 2
    assert found["d"].status == "failed" and "no such file on this node" in found["d"].error
    assert found["b"].status == "failed" and "ArithmeticError: no such errand" in found["b"].error
    assert found["c"].error == "the worker ended with exit code 7 at one, for the second time"
    assert [note.partition("\n")[0] for note in sorted(shown.notes)] == [
        "b: ArithmeticError: no such errand",
        "c: the worker ended with exit code 7 at one, for the second time",
        "c: the worker ended with exit code 7 at one; it goes on from the last checkpoint",
        "d: RaySystemError: System error: no such file on this node",
    ]


def test_a_wish_to_stop_reaches_the_nodes(engine: RayEngine, tmp_path: Path) -> None:
    stop = StopRequest()
    started = time.monotonic()
    tasks = [Errand(str(number), tmp_path, seconds=600) for number in range(4)]
    engine.run(tasks, workers=1, display=Shown(stop), stop=stop)
    assert time.monotonic() - started < 120
    assert not any(hasattr(errand, "ended") for errand in written(tmp_path).values())


@pytest.mark.bench
def test_when_the_budget_is_spent_nothing_new_begins(engine: RayEngine, tmp_path: Path) -> None:
    """Two of four are at work then, and finish."""
    stop = StopRequest(budget=3)
    tasks = [Errand(str(number), tmp_path, seconds=6) for number in range(4)]
    engine.run(tasks, workers=1, display=Shown(), stop=stop)
    assert len(written(tmp_path)) == 2


def test_a_cluster_that_cannot_do_it(engine: RayEngine) -> None:
    with pytest.raises(KdbenchError, match="no node of the Ray cluster has a GPU"):
        RayEngine(None, on_gpu=True)


def test_no_cluster_answers(tmp_path: Path) -> None:
    done = kdbench("run", "--engine", "ray", "--ray-address", "127.0.0.1:1", "--out", tmp_path, "--device", "cpu")
    assert done.returncode == 3
    assert done.stderr.count("\n") == 1 and "no Ray cluster answers at 127.0.0.1:1: [Errno 111]" in done.stderr
