"""A run: plan, accuracy phase, throughput phase; finished cells are kept, so repeating the command resumes it."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from kdbench.distributed import wait_for_all
from kdbench.errors import KdbenchError
from kdbench.records import CellRecord, Results, ThroughputRecord, write_json
from kdbench.study.engine import run_here, run_tasks
from kdbench.study.group import Group
from kdbench.study.plan import Cell, Plan, finished_keys
from kdbench.study.progress import Display, Task, duration
from kdbench.study.timing import planned_measurements, timing_tasks
from kdbench.training.device import default_workers

TOGETHER = 16
"""Most students that share a teacher's pass: more would save little and fill the memory."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended, over all planned cells (or measurements).

    Attributes:
        statuses: number of them by status.
        errors: number of them by the first line of what went wrong.
    """

    statuses: dict[str, int]
    errors: dict[str, int]

    @property
    def complete(self) -> bool:
        """Everything planned is done, or known to be impossible."""
        return set(self.statuses) <= {"done", "unsupported"}

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
) -> Outcome:
    """Run what is missing of a plan.

    Args:
        workers: processes side by side in the accuracy phase; by default one for each core, or one on a GPU.
        throughput: measure throughput too, where it has not been.

    Raises:
        KdbenchError: the results folder cannot be written.
    """
    compute = plan.compute
    if throughput and compute.shard.world > 1:
        console.print("throughput is measured in one process; left out here", highlight=False)
        throughput = False
    measurements = planned_measurements(plan, compute) if throughput else []
    finished = finished_keys(results)
    # All processes of a distributed run have read what is finished before the first of them writes.
    wait_for_all()
    if compute.shard.rank == 0:
        write_json(results.manifest_path, plan.manifest(measurements))
    due = [cell for cell in plan.cells() if cell.key not in finished]
    groups = [
        Group(plan.suite, pair, seed, part, plan.split, compute, data_root, results.folder, plan.best, number)
        for (seed, pair), cells in groupby(due, key=lambda cell: (cell.seed, cell.pair))
        for number, part in enumerate(_parts(tuple(cells)))
    ]
    total = sum(1 for _ in plan.cells())
    grid = "=" if plan.places is None else "of"
    console.print(
        f"{_heading(plan)}: {total} cells {grid} {len(plan.pairs)} pairs x {len(plan.methods)} "
        f"methods x {len(plan.seeds)} seeds on {compute.device} ({compute.precision}); {total - len(due)} finished, "
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
    _phase("accuracy", groups, min(workers, len(groups)), console)
    wait_for_all()
    # Alone on the machine: one worker, after everything else has ended.
    _phase("throughput", timing_tasks(plan, measurements, compute, data_root, results), 1, console)
    return outcome(plan, results)


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
    _phase("throughput", tasks, 1, console)
    return _outcome([one["key"] for one in measurements], results.throughput())


def outcome(plan: Plan, results: Results) -> Outcome:
    """Planned cells by status; a cell without a record is `missing`."""
    return _outcome([cell.key for cell in plan.cells()], results.cells())


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
    return f"suite [bold]{escape(plan.suite.name)}[/bold]"


def _parts(cells: tuple[Cell, ...]) -> list[tuple[Cell, ...]]:
    return [cells[start : start + TOGETHER] for start in range(0, len(cells), TOGETHER)]


def _phase(title: str, tasks: Sequence[Task], workers: int, console: Console) -> None:
    """Run tasks in worker processes, or, with none, in this one."""
    if not tasks:
        return
    display = Display(console, title, sum(task.weight for task in tasks))
    with display.shown():
        if workers:
            run_tasks(tasks, workers, display)
        else:
            run_here(tasks, display)
    console.print(f"{title}: {len(tasks)} groups in {duration(display.elapsed)}", highlight=False)
