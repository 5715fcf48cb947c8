"""The throughput phase: a task of the engine that measures all methods of a pair against each other."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from kdbench.compute.device import Compute, environment
from kdbench.compute.failures import ending
from kdbench.engines.channel import Channel, Stopped
from kdbench.engines.local import in_subprocess
from kdbench.engines.progress import Progress
from kdbench.files import content_key
from kdbench.models.flops import forward_flops
from kdbench.results.folder import Results
from kdbench.results.schema import FINISHED, TIMING_PROTOCOL, PlannedMeasurement, Status, ThroughputFindings
from kdbench.study.plan import MethodPlan, Plan
from kdbench.study.recorder import Recorder
from kdbench.suites.schema import PairSpec, Suite
from kdbench.training.arena import Arena
from kdbench.training.contender import Contender
from kdbench.training.throughput import matmul_rate, measure


@dataclass(frozen=True)
class ThroughputJob:
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
        return tuple(plan.name for plan in self.methods)

    @property
    def exclusive(self) -> bool:
        """Whether the task must have the machine to itself: always, other load would be measured, too."""
        return True

    def moved(self, results: Path) -> "ThroughputJob":
        return replace(self, results=results)

    @property
    def _recorder(self) -> Recorder:
        return Recorder(self.suite, self.pair, Results(self.results), self.data_root)

    def execute(self, channel: Channel) -> tuple[str, ...]:
        """Measure the methods of the pair and write their records."""
        arena = Arena.enter(self.suite, self.pair, 0, "test", self.compute, self.data_root)
        recorder = self._recorder.on(self.compute)
        contenders = self._contenders(arena, recorder, channel)
        methods = {contender.name: contender.method for contender in contenders}
        extra = {contender.name: contender.extra_parameters for contender in contenders}

        def on_round(share: float) -> None:
            channel.emit(Progress(self.label, share))
            if channel.stop:
                raise Stopped

        measurements, circumstances = measure(arena, contenders, on_round)
        for contender, plan in ((each, plan) for each in contenders for plan in self.methods if plan.name == each.name):
            if contender.status is not None:
                self._record(recorder, plan, contender.status, contender.error)
        shape, classes = arena.task.image_shape, arena.task.num_classes
        student = forward_flops(self.suite.models[self.pair.student], classes, shape)
        teacher = forward_flops(self.suite.models[self.pair.teacher], classes, shape)
        rate = matmul_rate(self.compute)
        blocks = {plan.role: measurements[plan.name].blocks for plan in self.methods if plan.name in measurements}
        for plan in self.methods:
            if plan.name not in measurements:
                continue
            measured, method = measurements[plan.name], methods[plan.name]
            taught = teacher if method.teacher_needs is not None else 0.0
            views = 2 if method.second_view else 1
            findings = ThroughputFindings(
                batch_size=arena.stream.recipe.batch_size,
                blocks=measured.blocks,
                control_blocks=blocks.get("control", []),
                baseline_blocks=blocks.get("baseline", []),
                phases=measured.phases,
                phases_to_step=measured.phases_to_step,
                before=circumstances.before,
                after=circumstances.after,
                clean=circumstances.clean,
                unclean=circumstances.reasons,
                repeated=circumstances.repeated,
                peak_memory=measured.peak_memory,
                extra_parameters=extra[plan.name],
                inference_parameters=method.inference_parameters,
                matmul_flops=rate,
                flops={"student": student, "teacher": taught, "train": views * (3 * student + taught)},
            )
            self._record(recorder, plan, "done", findings=findings)
        return ()

    def _contenders(self, arena: Arena, recorder: Recorder, channel: Channel) -> list[Contender]:
        """The contenders that can be measured; why another one cannot is recorded."""
        contenders = []
        for member, plan in enumerate(self.methods):
            try:
                with channel.on_behalf_of(member):
                    contender = arena.contender(plan.name, plan.plugin.method, plan.hyperparameters)
                contender.running = partial(channel.on_behalf_of, member)
                contenders.append(contender)
            except Exception as error:
                self._record(recorder, plan, *ending(error))
        return contenders

    def lost(self, status: Status, error: str) -> None:
        """Record that the measurement did not come to its end."""
        for plan in self.methods:
            self._record(self._recorder, plan, status, error)

    def without(self, member: int, status: Status, error: str) -> "ThroughputJob | None":
        """Record that one method ends the process that measures it; returns the task of the other methods."""
        plan = self.methods[member]
        self._record(self._recorder, plan, status, error)
        due = self.due - {plan.name}
        left = tuple(other for other in self.methods if other is not plan)
        return replace(self, methods=left, due=due) if due else None

    def _record(
        self,
        recorder: Recorder,
        plan: MethodPlan,
        status: Status,
        error: str | None = None,
        findings: ThroughputFindings | None = None,
    ) -> None:
        if plan.name in self.due:
            recorder.measurement(plan, self.keys[plan.name], status, error, findings)


def planned_measurements(plan: Plan, compute: Compute) -> list[PlannedMeasurement]:
    """Every (pair, method) with the key of its measurement on this machine, without what a race has dropped."""
    _, machine = in_subprocess(compute, environment, compute)
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
        if plan.includes(pair, method) and not (plan.race and method.name in plan.race["dropped"])
    ]


def throughput_jobs(
    plan: Plan,
    planned: Sequence[PlannedMeasurement],
    compute: Compute,
    data_root: Path,
    results: Results,
) -> list[ThroughputJob]:
    """One task for every pair that has methods without a measurement."""
    present = {record["key"] for record in results.throughput() if record["status"] in FINISHED}
    tasks = []
    for pair in plan.pairs:
        keys = {one["method"]: one["key"] for one in planned if one["pair"] == pair.name}
        due = frozenset(name for name, key in keys.items() if key not in present)
        if due:
            methods = tuple(m for m in plan.methods if m.name in due or (m.name in keys and m.role != "method"))
            tasks.append(ThroughputJob(plan.suite, pair, methods, due, keys, compute, data_root, results.folder))
    return tasks
