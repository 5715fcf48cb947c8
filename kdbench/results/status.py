"""How far a run is, as its results folder shows."""

import time
from collections import Counter
from dataclasses import dataclass, field

from kdbench.results.folder import CellId, Results
from kdbench.results.locks import is_claimed
from kdbench.results.schema import FINISHED

RUNNING = "running"
BEGUN = "begun"
TO_DO = "to do"


@dataclass
class RunState:
    """Where a run is.

    Attributes:
        command: what started it.
        by_pair: number of cells by status, by pair; besides those of records `running`, `begun` (interrupted, with a
            checkpoint) and `to do`.
        errors: number of cells by the first line of what went wrong.
        measured, to_measure: throughput measurements that are there, and all that are planned.
        seconds_left: for the cells, by the rate of those that this run has finished; None where that says nothing.
    """

    command: str
    by_pair: dict[str, Counter[str]] = field(default_factory=dict)
    errors: Counter[str] = field(default_factory=Counter)
    measured: int = 0
    to_measure: int = 0
    seconds_left: float | None = None

    @property
    def total(self) -> Counter[str]:
        """The number of cells by status."""
        return sum(self.by_pair.values(), Counter())

    @property
    def left(self) -> int:
        """The number of cells that have not ended yet."""
        return sum(count for status, count in self.total.items() if status in (RUNNING, BEGUN, TO_DO))


def run_state(results: Results) -> RunState:
    """Look through a results folder.

    Raises:
        KdbenchError: it holds no run, or a file of it is broken.
    """
    manifest = results.manifest()
    records = {cell["key"]: cell for cell in results.cells()}
    began = results.manifest_path.stat().st_mtime
    progress, fresh = RunState(manifest["command"]), 0
    for cell in (CellId(**planned) for planned in manifest["cells"]):
        record = records.get(cell.key)
        if record is not None and record["status"] in FINISHED:
            status = record["status"]
        elif is_claimed(results.lock_path(cell)):
            status = RUNNING
        elif record is not None:
            status = record["status"]
            progress.errors[(record["error"] or status).partition("\n")[0]] += 1
        else:
            status = BEGUN if results.checkpoints(cell) else TO_DO
        progress.by_pair.setdefault(cell.pair, Counter())[status] += 1
        fresh += record is not None and results.record_path(cell).stat().st_mtime > began
    planned = {measurement["key"] for measurement in manifest["throughput"]}
    progress.to_measure = len(planned)
    progress.measured = sum(record["key"] in planned for record in results.throughput())
    elapsed = time.time() - began
    if fresh and elapsed > 0 and progress.total[RUNNING]:
        progress.seconds_left = progress.left * elapsed / fresh
    return progress
