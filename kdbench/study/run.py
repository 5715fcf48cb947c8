"""A run: plan, accuracy phase, throughput phase; finished cells are kept, so repeating the command resumes it."""

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from kdbench.compute.device import default_workers
from kdbench.compute.distributed import wait_for_all
from kdbench.engines.display import Display, duration
from kdbench.engines.local import Engine, run_here, run_tasks
from kdbench.engines.stop import Care, Halt
from kdbench.engines.task import RunTask
from kdbench.errors import KdbenchError
from kdbench.files import write_json
from kdbench.results.locks import claimed, is_claimed
from kdbench.results.records import FINISHED, CellRecord, Results, ThroughputRecord
from kdbench.study.group import Group
from kdbench.study.plan import Cell, Plan, finished_keys
from kdbench.study.throughput import planned_measurements, timing_tasks

TOGETHER = 16
"""Most students that share a teacher's pass: more would save little and fill the memory."""
POLL_SECONDS = 1.0
"""How often a run looks whether another one has ended."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended, over its cells (or measurements).

    Attributes:
        statuses: number of them by status.
        errors: number of them by the first line of what went wrong.
    """

    statuses: dict[str, int]
    errors: dict[str, int]

    @property
    def complete(self) -> bool:
        """Everything planned is done, or known to be impossible."""
        return set(self.statuses) <= FINISHED

    def __add__(self, other: "Outcome") -> "Outcome":
        statuses, errors = Counter(self.statuses), Counter(self.errors)
        return Outcome(dict(statuses + Counter(other.statuses)), dict(errors + Counter(other.errors)))


def run(
    plan: Plan,
    results: Results,
    console: Console,
    data_root: Path,
    workers: int | None = None,
    throughput: bool = True,
    care: Care | None = None,
    halt: Halt | None = None,
    engine: Engine = run_tasks,
) -> Outcome:
    """Run what is missing of a plan, beside whoever else runs it in the same folder.

    Args:
        workers: processes side by side in the accuracy phase; by default one for each core, or one on a GPU.
        throughput: measure throughput too, where it has not been.
        care: how trainings are kept.
        halt: when to stop before all is done.
        engine: what runs the tasks: processes of this machine, or a cluster.

    Raises:
        KdbenchError: the results folder cannot be written.
        KeyboardInterrupt: the user stopped it; what ran is checkpointed.
    """
    compute, care, halt = plan.compute, care or Care(), halt or Halt()
    if throughput and (compute.shard.world > 1 or not plan.share.whole):
        console.print("throughput is left out; a run in one process and without --shard measures it", highlight=False)
        throughput = False
    measurements = planned_measurements(plan, compute) if throughput else []
    finished = finished_keys(results)
    # All processes of a distributed run have read what is finished before the first of them writes.
    wait_for_all()
    if compute.shard.rank == 0:
        write_json(results.manifest_path, plan.manifest(measurements))
    own = list(plan.own_cells())
    due = [cell for cell in own if cell.key not in finished]
    grid = "=" if plan.places is None and plan.share.whole else "of"
    console.print(
        f"{_heading(plan)}: {len(own)} cells {grid} {len(plan.pairs)} pairs x {len(plan.methods)} "
        f"methods x {len(plan.seeds)} seeds on {compute.device} ({compute.precision}); {len(own) - len(due)} finished, "
        f"{len(due)} to run -> {escape(str(results.folder))}",
        highlight=False,
    )
    if compute.micro_batch is not None:
        console.print(
            f"[yellow]batches are accumulated in parts of {compute.micro_batch} images:[/yellow] losses that compare "
            "images of a batch, and batch norm, see the part; not comparable with whole batches",
            highlight=False,
        )
    workers = 0 if compute.shard.world > 1 else workers or default_workers(compute)
    # torchrun itself ends its processes.
    with halt.listening() if workers else nullcontext():
        _accuracy(plan, due, results, console, data_root, workers, care, halt, engine)
        wait_for_all()
        if measurements:
            # Alone on the machine: one worker, after everything else has ended.
            with _turn_at_measuring(results, console, halt):
                tasks = timing_tasks(plan, measurements, compute, data_root, results)
                _phase("throughput", tasks, 1, console, halt, care.limit, engine)
    if halt.spent:
        console.print("the budget is spent: nothing new was started; the same command goes on", highlight=False)
    return outcome(plan, results)


def _accuracy(
    plan: Plan,
    due: Sequence[Cell],
    results: Results,
    console: Console,
    data_root: Path,
    workers: int,
    care: Care,
    halt: Halt,
    engine: Engine,
) -> None:
    """Train the cells that are due; those that another run is at are waited for, and trained here if it gives up."""
    while due and not halt.launches_no_more:
        groups = [
            Group(plan.suite, pair, seed, part, plan.split, plan.compute, data_root, results.folder, plan.best, n, care)
            for (seed, pair), cells in groupby(due, key=lambda cell: (cell.seed, cell.pair))
            for n, part in enumerate(_parts(tuple(cells)))
        ]
        records = {cell.key: _stamp(results.cell_path(*cell.place)) for cell in due}
        left = set(_phase("accuracy", groups, min(workers, len(groups)), console, halt, care.limit, engine))
        others: list[Cell] = [cell for cell in due if cell.key in left]
        _wait_for_others([results.lock_path(*cell.place) for cell in others], console, halt)
        # What has a new record has been tried, however it ended.
        due = [cell for cell in others if _stamp(results.cell_path(*cell.place)) == records[cell.key]]


def _wait_for_others(locks: Sequence[Path], console: Console, halt: Halt) -> None:
    """Until no other run trains any of the cells."""
    if any(map(is_claimed, locks)):
        console.print("waiting for what another run in this folder is at", highlight=False)
    while any(map(is_claimed, locks)) and not halt.launches_no_more:
        time.sleep(POLL_SECONDS)


@contextmanager
def _turn_at_measuring(results: Results, console: Console, halt: Halt) -> Iterator[None]:
    """One run in a folder measures at a time; the next one finds what it has measured."""
    told = False
    while True:
        with claimed([results.measuring_lock]) as held:
            if held or halt.launches_no_more:
                yield
                return
        if not told:
            console.print("waiting for another run in this folder to measure throughput", highlight=False)
            told = True
        time.sleep(POLL_SECONDS)


def _stamp(path: Path) -> int | None:
    """Something that changes when the file is written anew."""
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return None


def bench(plan: Plan, results: Results, console: Console, data_root: Path) -> Outcome:
    """Measure throughput where it has not been, of a plan without seeds.

    Raises:
        KdbenchError: several processes, or a results folder that cannot be written or that holds a run's plan.
    """
    if plan.compute.shard.world > 1:
        raise KdbenchError("throughput is measured in one process; start `kdbench bench` without torchrun")
    if results.manifest_path.is_file() and results.manifest()["cells"]:
        raise KdbenchError(
            f"{results.folder} holds a run, and `kdbench run` measures its throughput; choose another folder with --out"
        )
    measurements = planned_measurements(plan, plan.compute)
    write_json(results.manifest_path, plan.manifest(measurements))
    tasks = timing_tasks(plan, measurements, plan.compute, data_root, results)
    console.print(
        f"{_heading(plan)}: throughput of {len(plan.methods)} methods on {len(plan.pairs)} pairs, "
        f"{plan.compute.device} ({plan.compute.precision}); {len(plan.pairs) - len(tasks)} pairs finished, "
        f"{len(tasks)} to measure -> {escape(str(results.folder))}",
        highlight=False,
    )
    halt = Halt()
    with halt.listening():
        _phase("throughput", tasks, 1, console, halt)
    return _outcome([one["key"] for one in measurements], results.throughput())


def outcome(plan: Plan, results: Results) -> Outcome:
    """The planned cells of the share by status; a cell without a record is `missing`."""
    return _outcome([cell.key for cell in plan.own_cells()], results.cells())


def _outcome(planned: Sequence[str], found: Iterable[CellRecord] | Iterable[ThroughputRecord]) -> Outcome:
    known = {record["key"]: record for record in found}
    records = [known.get(key) for key in planned]
    statuses = Counter("missing" if record is None else record["status"] for record in records)
    errors = Counter(
        record["error"].partition("\n")[0]
        for record in records
        if record is not None and record["error"] and record["status"] != "unsupported"
    )
    return Outcome(dict(statuses), dict(errors))


def _heading(plan: Plan) -> str:
    part = "" if plan.share.whole else f", {plan.share}"
    return f"suite [bold]{escape(plan.suite.name)}[/bold]{part}"


def _parts(cells: tuple[Cell, ...]) -> list[tuple[Cell, ...]]:
    return [cells[start : start + TOGETHER] for start in range(0, len(cells), TOGETHER)]


def _phase(
    title: str,
    tasks: Sequence[RunTask],
    workers: int,
    console: Console,
    halt: Halt,
    limit: float | None = None,
    engine: Engine = run_tasks,
) -> list[str]:
    """Run tasks by the engine, or, with no workers, in this process; keys of what other runs are at."""
    if not tasks:
        return []
    display = Display(console, title, sum(task.weight for task in tasks))
    with display.shown():
        left = engine(tasks, workers, display, halt, limit) if workers else run_here(tasks, display)
    console.print(f"{title}: {len(tasks)} groups in {duration(display.elapsed)}", highlight=False)
    return left
