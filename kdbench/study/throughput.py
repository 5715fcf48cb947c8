"""The throughput phase: a task of the engine that measures all methods of a pair against each other."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from kdbench.compute.device import Compute, environment
from kdbench.engines.channel import Line, Stopped
from kdbench.engines.display import Progress
from kdbench.engines.local import away
from kdbench.errors import UnsupportedPair, describe
from kdbench.files import content_key, write_json
from kdbench.models.flops import forward_flops
from kdbench.results.records import (
    FINISHED,
    SCHEMA,
    TIMING_PROTOCOL,
    PlannedMeasurement,
    Results,
    Status,
    ThroughputRecord,
    today,
)
from kdbench.study.plan import MethodPlan, Plan
from kdbench.suites.schema import PairSpec, Suite
from kdbench.training.arena import Arena
from kdbench.training.contender import Contender
from kdbench.training.throughput import matmul_rate, measure


@dataclass(frozen=True)
class TimingTask:
    """Measure the `methods` of a pair, interleaved; `due` are those whose record is written.

    `methods` holds the control and the baseline even where their records exist: ratios are taken within rounds.
    """

    suite: Suite
    pair: PairSpec
    methods: tuple[MethodPlan, ...]
    due: frozenset[str]
    keys: dict[str, str]
    compute: Compute
    data_root: Path
    results: Path

    @property
    def label(self) -> str:
        return self.pair.name

    @property
    def weight(self) -> int:
        return len(self.methods)

    @property
    def members(self) -> tuple[str, ...]:
        """Whose turn it can be."""
        return tuple(plan.name for plan in self.methods)

    @property
    def alone(self) -> bool:
        """Other load would be measured, too."""
        return True

    def moved(self, results: Path) -> "TimingTask":
        """The same for another results folder."""
        return replace(self, results=results)

    def execute(self, line: Line) -> tuple[str, ...]:
        """Measure and record."""
        arena = Arena.enter(self.suite, self.pair, 0, "test", self.compute, self.data_root)
        environment_id, description = environment(self.compute)
        write_json(Results(self.results).environment_path(environment_id), description)
        contenders: list[Contender] = []
        for number, plan in enumerate(self.methods):
            try:
                with line.turn(number):
                    contender = arena.contender(plan.name, plan.plugin.method, plan.hyperparameters)
                contender.turn = partial(line.turn, number)
                contenders.append(contender)
            except UnsupportedPair as reason:
                self._write(self._header(plan, environment_id, "unsupported", str(reason)))
            except Exception as error:
                self._write(self._header(plan, environment_id, "failed", describe(error)))
        methods = {contender.name: contender.method for contender in contenders}
        extra = {contender.name: contender.extra_parameters for contender in contenders}

        def on_round(share: float) -> None:
            line.emit(Progress(self.label, share))
            if line.stop:
                raise Stopped

        found, around = measure(arena, contenders, on_round)
        shape, classes = arena.task.image_shape, arena.task.num_classes
        student = forward_flops(self.suite.models[self.pair.student], classes, shape)
        teacher = forward_flops(self.suite.models[self.pair.teacher], classes, shape)
        rate = matmul_rate(self.compute)
        blocks = {plan.role: found[plan.name].blocks for plan in self.methods if plan.name in found}
        for plan in self.methods:
            if plan.name not in found:
                continue
            measured = found[plan.name]
            record = self._header(plan, environment_id, "done", None)
            method = methods[plan.name]
            taught = teacher if method.teacher_needs is not None else 0.0
            views = 2 if method.second_view else 1
            record["batch_size"] = arena.stream.recipe.batch_size
            record["blocks"] = measured.blocks
            record["control_blocks"] = blocks.get("control", [])
            record["baseline_blocks"] = blocks.get("baseline", [])
            record["phases"] = measured.phases
            record["phases_to_step"] = measured.phases_to_step
            record["before"], record["after"] = around.before, around.after
            record["clean"], record["unclean"], record["repeated"] = around.clean, around.reasons, around.repeated
            record["peak_memory"] = measured.peak_memory
            record["extra_parameters"] = extra[plan.name]
            record["inference_parameters"] = method.inference_parameters
            record["matmul_flops"] = rate
            record["flops"] = {"student": student, "teacher": taught, "train": views * (3 * student + taught)}
            self._write(record)
        return ()

    def lost(self, status: Status, error: str) -> None:
        """Record that the measurement did not come to its end."""
        for plan in self.methods:
            self._write(self._header(plan, "", status, error))

    def without(self, member: int, status: Status, error: str) -> "TimingTask | None":
        """Record that one method ends the process that measures it; what is left of the task."""
        plan = self.methods[member]
        self._write(self._header(plan, "", status, error))
        due = self.due - {plan.name}
        left = tuple(other for other in self.methods if other is not plan)
        return replace(self, methods=left, due=due) if due else None

    def _header(self, plan: MethodPlan, environment_id: str, status: Status, error: str | None) -> ThroughputRecord:
        return ThroughputRecord(
            schema=SCHEMA,
            key=self.keys[plan.name],
            timing_protocol=TIMING_PROTOCOL,
            suite=self.suite.name,
            pair=self.pair.name,
            method=plan.name,
            role=plan.role,
            status=status,
            error=error,
            environment=environment_id,
            date=today(),
        )

    def _write(self, record: ThroughputRecord) -> None:
        if record["method"] in self.due:
            path = Results(self.results).throughput_path(self.pair.name, record["method"], record["key"])
            write_json(path, record)


def planned_measurements(plan: Plan, compute: Compute) -> list[PlannedMeasurement]:
    """Every (pair, method) with the key of its measurement on this machine."""
    _, machine = away(compute, environment, compute)
    shared = {
        "protocol": TIMING_PROTOCOL,
        "timing": plan.suite.timing.model_dump(),
        "machine": {name: machine[name] for name in ("device", "torch", "threads", "compile", "precision")},
    }
    return [
        PlannedMeasurement(
            key=content_key({**shared, "pair": plan.identities[pair.name], "method": method.identity}),
            pair=pair.name,
            method=method.name,
        )
        for pair in plan.pairs
        for method in plan.methods
        if plan.includes(pair, method)
    ]


def timing_tasks(
    plan: Plan,
    planned: Sequence[PlannedMeasurement],
    compute: Compute,
    data_root: Path,
    results: Results,
) -> list[TimingTask]:
    """One task for every pair that has methods without a measurement."""
    present = {record["key"] for record in results.throughput() if record["status"] in FINISHED}
    tasks = []
    for pair in plan.pairs:
        keys = {one["method"]: one["key"] for one in planned if one["pair"] == pair.name}
        due = frozenset(name for name, key in keys.items() if key not in present)
        if due:
            methods = tuple(m for m in plan.methods if m.name in due or (m.name in keys and m.role != "method"))
            tasks.append(TimingTask(plan.suite, pair, methods, due, keys, compute, data_root, results.folder))
    return tasks
