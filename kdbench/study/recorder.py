"""Writes the records of a pair: of its cells and of its throughput measurements. It knows results, not training."""

from dataclasses import dataclass, replace
from pathlib import Path

from kdbench.compute.device import Compute, environment
from kdbench.errors import KdbenchError
from kdbench.files import write_json
from kdbench.results.folder import Results
from kdbench.results.schema import (
    SCHEMA,
    TIMING_PROTOCOL,
    CellFindings,
    CellRecord,
    ModelRecord,
    Split,
    Status,
    TeacherRecord,
    ThroughputFindings,
    ThroughputRecord,
    today,
)
from kdbench.study.plan import Cell, MethodPlan
from kdbench.suites.schema import PairSpec, Suite
from kdbench.training.teacher import teacher_metadata


@dataclass(frozen=True)
class Recorder:
    """The records of one pair of a suite.

    Attributes:
        environment: id of the description of what the records are measured on; empty where nothing was computed.
        writes: of the processes that train a cell together only the first one writes.
    """

    suite: Suite
    pair: PairSpec
    results: Results
    data_root: Path
    writes: bool = True
    environment: str = ""

    def on(self, compute: Compute) -> "Recorder":
        """The same for records that are measured here, whose environment is described in the results folder."""
        name, description = environment(compute)
        if self.writes:
            write_json(self.results.environment_path(name), description)
        return replace(self, environment=name)

    def cell(
        self,
        cell: Cell,
        split: Split,
        status: Status,
        error: str | None = None,
        *,
        findings: CellFindings | None = None,
        parameters: tuple[int, int] | None = None,
    ) -> None:
        """Write the record of a cell; a finished one also says what was found.

        Args:
            parameters: of teacher and student, once they were built.
        """
        if not self.writes:
            return
        self.refuse_moved()
        suite, method = self.suite, cell.method
        teacher, student = self._models()
        if parameters is not None:
            teacher["parameters"], student["parameters"] = parameters
        record = CellRecord(
            schema=SCHEMA,
            key=cell.key,
            suite=suite.name,
            protocol=suite.protocol,
            pair=self.pair.name,
            hetero=suite.is_hetero(self.pair),
            teacher=teacher,
            student=student,
            method=method.name,
            role=method.role,
            hyperparameters=method.hyperparameters,
            preset=suite.preset,
            seed=cell.seed,
            split=split,
            status=status,
            error=error,
            environment=self.environment,
            date=today(),
            **(findings or CellFindings()),
        )
        if method.plugin.method.differs:
            record["differs"] = method.plugin.method.differs
        if method.tuned:
            record["tuned"] = method.tuned
        write_json(self.results.record_path(cell.id), record)

    def measurement(
        self,
        method: MethodPlan,
        key: str,
        status: Status,
        error: str | None = None,
        findings: ThroughputFindings | None = None,
    ) -> None:
        """Write the record of a throughput measurement."""
        self.refuse_moved()
        record = ThroughputRecord(
            schema=SCHEMA,
            key=key,
            timing_protocol=TIMING_PROTOCOL,
            suite=self.suite.name,
            pair=self.pair.name,
            method=method.name,
            role=method.role,
            status=status,
            error=error,
            environment=self.environment,
            date=today(),
            **(findings or ThroughputFindings()),
        )
        write_json(self.results.throughput_path(self.pair.name, method.name, key), record)

    def refuse_moved(self) -> None:
        """Look whether the results folder is still there: writing would make another one that holds no plan.

        Raises:
            KdbenchError: it is not.
        """
        if not self.results.folder.is_dir():
            raise KdbenchError(
                f"{self.results.folder} was moved or deleted while a run wrote into it; put it back and run the same "
                "command again"
            )

    def clear(self, cell: Cell) -> None:
        """Remove the checkpoints of a cell; only the process that writes knows when they are not needed any more."""
        if self.writes:
            self.results.remove_checkpoints(cell.id)

    def _models(self) -> tuple[TeacherRecord, ModelRecord]:
        """What is known of teacher and student before they are built."""
        suite, pair = self.suite, self.pair
        teacher, student = suite.models[pair.teacher], suite.models[pair.student]
        metadata = teacher_metadata(suite.teacher_path(pair.teacher, self.data_root))
        return (
            TeacherRecord(
                name=pair.teacher,
                timm=teacher.timm,
                kind=teacher.kind,
                sha256=metadata["sha256"],
                top1=metadata["top1"],
            ),
            ModelRecord(name=pair.student, timm=student.timm, kind=student.kind),
        )
