"""A run: plan, accuracy phase, throughput phase; finished cells are kept, so repeating the command resumes it."""

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

from rich.text import Text

from kdbench.compute.device import default_workers
from kdbench.compute.distributed import wait_for_all
from kdbench.data import opening
from kdbench.engines.display import Display, duration
from kdbench.engines.inprocess import InProcessEngine
from kdbench.engines.task import RunJob
from kdbench.errors import KdbenchError
from kdbench.files import write_json
from kdbench.names import plural
from kdbench.results.folder import Results
from kdbench.results.locks import claimed, is_claimed
from kdbench.results.schema import FINISHED, CellRecord, ThroughputRecord
from kdbench.results.status import BEGUN, RUNNING, TO_DO, run_state
from kdbench.study.accuracy import AccuracyJob
from kdbench.study.plan import Cell, Plan, finished_keys
from kdbench.study.session import Session
from kdbench.study.throughput import planned_measurements, throughput_jobs

TOGETHER = 16
"""Most students that share a teacher's pass: more would save little and fill the memory."""
POLL_SECONDS = 1.0
"""How often a run looks whether another one has ended."""


@dataclass(frozen=True)
class RunOutcome:
    """How a run ended, over its cells (or measurements).

    Attributes:
        statuses: number of them by status.
        errors: number of them by the first line of what went wrong.
    """

    statuses: dict[str, int]
    errors: dict[str, int]

    @property
    def complete(self) -> bool:
        """Whether everything planned is done, or known to be impossible."""
        return set(self.statuses) <= FINISHED

    def __add__(self, other: "RunOutcome") -> "RunOutcome":
        statuses, errors = Counter(self.statuses), Counter(self.errors)
        return RunOutcome(dict(statuses + Counter(other.statuses)), dict(errors + Counter(other.errors)))


def run(plan: Plan, session: Session, throughput: bool = True) -> RunOutcome:
    """Run what is missing of a plan, beside whoever else runs it in the same folder.

    Args:
        throughput: measure throughput too, where it has not been measured.

    Raises:
        KdbenchError: the results folder cannot be written.
        KeyboardInterrupt: the user stopped it; what ran is checkpointed.
    """
    compute, results, console, stop = plan.compute, session.results, session.console, session.stop
    if throughput and (compute.replica.world > 1 or not plan.shard.whole):
        console.print("throughput is left out; a run in one process and without --shard measures it", highlight=False)
        throughput = False
    measurements = planned_measurements(plan, compute) if throughput else []
    finished = finished_keys(results)
    # All processes of a distributed run have read what is finished before the first of them writes.
    wait_for_all()
    if compute.replica.rank == 0:
        write_json(results.manifest_path, plan.manifest(measurements))
    due = [cell for cell in plan.own_cells() if cell.key not in finished]
    _announce(plan, session, due)
    distributed = compute.replica.world > 1
    if distributed:
        session = replace(session, engine=InProcessEngine())
    # torchrun itself ends its processes.
    with nullcontext() if distributed else stop.listening():
        _train(plan, due, session)
        wait_for_all()
        if measurements and not stop.closing:
            # Alone on the machine: one worker, after everything else has ended.
            with _measuring_alone(session):
                tasks = throughput_jobs(plan, measurements, compute, session.data_root, results)
                _phase("throughput", tasks, 1, session)
        if stop.requested:
            console.print(_where_it_stopped(results), highlight=False)
    if stop.spent:
        console.print("the budget is spent: nothing new was started; the same command goes on", highlight=False)
    return run_outcome(plan, results)


def _where_it_stopped(results: Results) -> str:
    """How many cells are done, how many go on from a checkpoint, and how many are still to be begun."""
    counts = run_state(results).total
    ended = counts.total() - counts[BEGUN] - counts[RUNNING] - counts[TO_DO]
    return (
        f"stopped: {ended} of {counts.total()} cells have ended, {counts[BEGUN]} go on from a checkpoint, "
        f"{counts[TO_DO]} are to be begun" + (f", {counts[RUNNING]} run elsewhere" if counts[RUNNING] else "")
    )


def _announce(plan: Plan, session: Session, due: Sequence[Cell]) -> None:
    """Say what will be trained, and what is unusual about it."""
    planned, compute = sum(1 for _ in plan.own_cells()), plan.compute
    grid = "=" if plan.only is None and plan.shard.whole else "of"
    pairs, methods, seeds = len(plan.pairs), len(plan.methods), len(plan.seeds)
    size = f"{plural(pairs, 'pair')} x {plural(methods, 'method')} x {plural(seeds, 'seed')}"
    session.console.print(
        _heading(
            plan,
            f"{plural(planned, 'cell')} {grid} {size} on {compute.device} ({compute.precision}); "
            f"{planned - len(due)} finished, {len(due)} to run -> {session.results.folder}",
        )
    )
    for note in opening.open_dataset(plan.suite.data, session.data_root).notes:
        session.console.print(Text(f"data, {note}"))
    if compute.micro_batch is not None:
        session.console.print(
            Text.assemble(
                (f"batches are accumulated in parts of {plural(compute.micro_batch, 'image')}:", "yellow"),
                " losses that compare images of a batch, and batch norm, see the part; not comparable with whole "
                "batches",
            )
        )


def _train(plan: Plan, due: Sequence[Cell], session: Session) -> None:
    """Train the cells that are due; those that another run works on are waited for, and trained here if it gives up."""
    results = session.results
    while due and not session.stop.closing:
        tasks = [
            AccuracyJob(
                suite=plan.suite,
                pair=pair,
                seed=seed,
                cells=part,
                split=plan.split,
                compute=plan.compute,
                data_root=session.data_root,
                results=results.folder,
                best=plan.best,
                part=number,
                limits=session.limits,
            )
            for (seed, pair), cells in groupby(due, key=lambda cell: (cell.seed, cell.pair))
            for number, part in enumerate(_parts(tuple(cells)))
        ]
        stamps = {cell.key: _stamp(results.record_path(cell.id)) for cell in due}
        workers = session.workers or default_workers(plan.compute)
        left = set(_phase("accuracy", tasks, min(workers, len(tasks)), session))
        others = [cell for cell in due if cell.key in left]
        _wait_for_others([results.lock_path(cell.id) for cell in others], session)
        # What has a new record has been tried, however it ended.
        due = [cell for cell in others if _stamp(results.record_path(cell.id)) == stamps[cell.key]]


def _wait_for_others(locks: Sequence[Path], session: Session) -> None:
    """Wait until no other run trains any of the cells."""
    if any(map(is_claimed, locks)):
        session.console.print("waiting for the cells that another run in this folder trains", highlight=False)
    while any(map(is_claimed, locks)) and not session.stop.closing:
        time.sleep(POLL_SECONDS)


@contextmanager
def _measuring_alone(session: Session) -> Iterator[None]:
    """One run in a folder measures at a time; the next one finds what it has measured."""
    is_announced = False
    while True:
        with claimed([session.results.measuring_lock]) as held:
            if held or session.stop.closing:
                yield
                return
        if not is_announced:
            session.console.print("waiting for another run in this folder to measure throughput", highlight=False)
            is_announced = True
        time.sleep(POLL_SECONDS)


def _stamp(path: Path) -> int | None:
    """Something that changes when the file is written anew."""
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return None


def measure_throughput(plan: Plan, session: Session) -> RunOutcome:
    """Measure throughput where it has not been measured, of a plan without seeds.

    Raises:
        KdbenchError: several processes, or a results folder that cannot be written or that holds a run's plan.
    """
    results = session.results
    if plan.compute.replica.world > 1:
        raise KdbenchError("throughput is measured in one process; start `kdbench bench` without torchrun")
    if results.manifest_path.is_file() and results.manifest()["cells"]:
        raise KdbenchError(
            f"{results.folder} holds a run, and `kdbench run` measures its throughput; choose another folder with --out"
        )
    measurements = planned_measurements(plan, plan.compute)
    write_json(results.manifest_path, plan.manifest(measurements))
    tasks = throughput_jobs(plan, measurements, plan.compute, session.data_root, results)
    session.console.print(
        _heading(
            plan,
            f"throughput of {plural(len(plan.methods), 'method')} on {plural(len(plan.pairs), 'pair')}, "
            f"{plan.compute.device} ({plan.compute.precision}); {len(plan.pairs) - len(tasks)} finished, "
            f"{len(tasks)} to measure -> {results.folder}",
        )
    )
    with session.stop.listening():
        _phase("throughput", tasks, 1, session)
    return _outcome([one["key"] for one in measurements], results.throughput())


def run_outcome(plan: Plan, results: Results) -> RunOutcome:
    """The planned cells of the shard by status; a cell without a record is `missing`."""
    return _outcome([cell.key for cell in plan.own_cells()], results.cells())


def _outcome(planned: Sequence[str], records_found: Iterable[CellRecord] | Iterable[ThroughputRecord]) -> RunOutcome:
    by_key = {record["key"]: record for record in records_found}
    records = [by_key.get(key) for key in planned]
    statuses = Counter("missing" if record is None else record["status"] for record in records)
    errors = Counter(
        record["error"].partition("\n")[0]
        for record in records
        if record is not None and record["error"] and record["status"] != "unsupported"
    )
    return RunOutcome(dict(statuses), dict(errors))


def _heading(plan: Plan, scale: str) -> Text:
    part = "" if plan.shard.whole else f", {plan.shard}"
    return Text.assemble("suite ", (plan.suite.name, "bold"), f"{part}: {scale}")


def _parts(cells: tuple[Cell, ...]) -> list[tuple[Cell, ...]]:
    return [cells[start : start + TOGETHER] for start in range(0, len(cells), TOGETHER)]


def _phase(title: str, tasks: Sequence[RunJob], workers: int, session: Session) -> list[str]:
    """Run tasks by the session's engine; returns the keys of the cells that other runs work on."""
    if not tasks:
        return []
    display = Display(session.console, title, sum(task.weight for task in tasks), session.answers)
    with display.shown():
        left = session.engine.run(
            tasks, workers=workers, display=display, stop=session.stop, limit=session.limits.student_seconds
        )
    ended = "stopped after" if session.stop.closing else f"{plural(len(tasks), 'group')} in"
    session.console.print(f"{title}: {ended} {duration(display.elapsed)}", highlight=False)
    return left
