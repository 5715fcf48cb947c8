"""A lockstep group: all methods of one (pair, seed), trained together in one process."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from kdbench.compute.device import Compute
from kdbench.engines.channel import Line
from kdbench.engines.stop import Care
from kdbench.files import write_json
from kdbench.results.checkpoints import discard
from kdbench.results.locks import claimed
from kdbench.results.records import SCHEMA, CellRecord, ModelRecord, Results, Split, Status, TeacherRecord, today
from kdbench.study.checkpoint import together
from kdbench.study.course import Course
from kdbench.study.plan import Cell
from kdbench.suites.schema import PairSpec, Suite
from kdbench.training.arena import Arena
from kdbench.training.teacher import teacher_metadata


@dataclass(frozen=True)
class Group:
    """A task of the engine: train the `cells`, which share pair and seed, and write their records.

    Attributes:
        best: the learning curve is measured on the test split, if that is what is evaluated.
        part: number of the group among those of pair and seed; more than one where there are many cells.
        care: about interruptions.
    """

    suite: Suite
    pair: PairSpec
    seed: int
    cells: tuple[Cell, ...]
    split: Split
    compute: Compute
    data_root: Path
    results: Path
    best: bool = False
    part: int = 0
    care: Care = field(default_factory=Care)

    @property
    def label(self) -> str:
        return f"{self.pair.name} seed {self.seed}" + (f" part {self.part + 1}" if self.part else "")

    @property
    def writes(self) -> bool:
        """Of the processes that train a cell together the first one writes."""
        return self.compute.shard.rank == 0

    @property
    def weight(self) -> int:
        """Share of the work, for the time left."""
        return len(self.cells)

    @property
    def members(self) -> tuple[str, ...]:
        """Whose turn it can be."""
        return tuple(cell.method.name for cell in self.cells)

    @property
    def alone(self) -> bool:
        """Trainings bear company."""
        return False

    def moved(self, results: Path) -> "Group":
        """The same for another results folder."""
        return replace(self, results=results)

    def execute(self, line: Line) -> tuple[str, ...]:
        """Train, evaluate and record every cell that no other process is at; keys of the ones that are left out."""
        results = Results(self.results)
        with self._claimed(results) as cells:
            started = time.perf_counter()
            if cells:
                arena = Arena.enter(self.suite, self.pair, self.seed, self.split, self.compute, self.data_root)
                for spot, those in together(results, cells):
                    Course(self, those, arena, line, spot).run(started)
            return tuple(cell.key for cell in self.cells if cell not in cells)

    @contextmanager
    def _claimed(self, results: Results) -> Iterator[list[Cell]]:
        """The cells that nobody else trains, and has not trained since this group was planned."""
        if self.compute.shard.world > 1:
            # Processes that train a cell together must agree on what they train: they keep what was planned.
            yield list(self.cells)
            return
        locks = {results.lock_path(*cell.place): cell for cell in self.cells}
        with claimed(locks) as held:
            yield [locks[path] for path in held if not results.is_finished(*locks[path].place)]

    def lost(self, status: Status, error: str) -> None:
        """Record that the process that trained the group ended before it was done."""
        for cell in self.cells:
            if not Results(self.results).cell_path(*cell.place).is_file():
                self.write(cell, self.header(cell, "", status, error))

    def without(self, member: int, status: Status, error: str) -> "Group | None":
        """Record that one member ends the process that trains it; what is left of the group."""
        cell, results = self.cells[member], Results(self.results)
        with claimed([results.lock_path(*cell.place)]):
            self.write(cell, self.header(cell, "", status, error))
            self.clear(cell)
        left = tuple(other for other in self.cells if other is not cell)
        return replace(self, cells=left) if left else None

    def header(self, cell: Cell, environment_id: str, status: Status, error: str | None) -> CellRecord:
        """What is known of a cell before it is trained."""
        suite, pair = self.suite, self.pair
        teacher, student = suite.models[pair.teacher], suite.models[pair.student]
        metadata = teacher_metadata(suite.teacher_path(pair.teacher, self.data_root))
        record = CellRecord(
            schema=SCHEMA,
            key=cell.key,
            suite=suite.name,
            protocol=suite.protocol,
            pair=pair.name,
            hetero=suite.is_hetero(pair),
            teacher=TeacherRecord(
                name=pair.teacher,
                timm=teacher.timm,
                kind=teacher.kind,
                sha256=metadata["sha256"],
                top1=metadata["top1"],
            ),
            student=ModelRecord(name=pair.student, timm=student.timm, kind=student.kind),
            method=cell.method.name,
            role=cell.method.role,
            hyperparameters=cell.method.hyperparameters,
            preset=suite.preset,
            seed=self.seed,
            split=self.split,
            status=status,
            error=error,
            environment=environment_id,
            date=today(),
        )
        if cell.method.plugin.method.differs:
            record["differs"] = cell.method.plugin.method.differs
        if cell.method.tuned:
            record["tuned"] = cell.method.tuned
        return record

    def clear(self, cell: Cell) -> None:
        """Remove what a training has left behind; only the process that writes knows when."""
        if self.writes:
            discard(Results(self.results), cell.place)

    def write(self, cell: Cell, record: CellRecord) -> None:
        """Write the record of a cell, in the process that does."""
        if self.writes:
            write_json(Results(self.results).cell_path(*cell.place), record)
