"""The accuracy phase: all methods of one (pair, seed) are trained together in one process, evaluated and recorded."""

import base64
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np

from kdbench.compute.device import Compute
from kdbench.compute.distributed import agreed
from kdbench.compute.failures import ending
from kdbench.data.stream import Counted
from kdbench.engines.channel import Channel, Stopped
from kdbench.engines.progress import MemberState, Progress
from kdbench.errors import KdbenchError
from kdbench.models.create import create_arguments
from kdbench.models.parameters import count_parameters
from kdbench.results.folder import START, Position, Results
from kdbench.results.locks import claimed
from kdbench.results.schema import CellFindings, Curves, Split, Status
from kdbench.study.plan import Cell
from kdbench.study.recorder import Recorder
from kdbench.study.session import Limits
from kdbench.suites.schema import PairSpec, Suite
from kdbench.training.arena import Arena
from kdbench.training.checkpoint import group_by_position, load_checkpoint, save_checkpoints
from kdbench.training.contender import Contender, isolated
from kdbench.training.evaluate import Evaluation, evaluate
from kdbench.training.lockstep import train
from kdbench.training.selfcheck import passed
from kdbench.weights.files import save_weights, weights_sha256

REPORT_SECONDS = 0.5
"""Between two reports of the progress."""


@dataclass(frozen=True)
class AccuracyJob:
    """A task of the engine: train the `cells`, which share pair and seed, and write their records.

    Attributes:
        best: the learning curve is measured on the test split, if that is what is evaluated.
        part: number of the group among those of pair and seed; there is more than one where there are many cells.
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
    limits: Limits = field(default_factory=Limits)

    @property
    def label(self) -> str:
        return f"{self.pair.name} seed {self.seed}" + (f" part {self.part + 1}" if self.part else "")

    @property
    def weight(self) -> int:
        return len(self.cells)

    @property
    def members(self) -> tuple[str, ...]:
        return tuple(cell.method.name for cell in self.cells)

    @property
    def exclusive(self) -> bool:
        """Whether the task must have the machine to itself: never, trainings run side by side."""
        return False

    def moved(self, results: Path) -> "AccuracyJob":
        return replace(self, results=results)

    @property
    def recorder(self) -> Recorder:
        """Writes the records; where several processes train the cells, in the first of them."""
        writes = self.compute.replica.rank == 0
        return Recorder(self.suite, self.pair, Results(self.results), self.data_root, writes)

    def execute(self, channel: Channel) -> tuple[str, ...]:
        """Train, evaluate and record the cells that no other process works on; returns the keys of the others."""
        results = Results(self.results)
        with self._claimed(results) as cells:
            started = time.perf_counter()
            if cells:
                arena = Arena.enter(self.suite, self.pair, self.seed, self.split, self.compute, self.data_root)
                for position, ids in group_by_position(results, [cell.id for cell in cells]):
                    those = [cell for cell in cells if cell.id in ids]
                    _Training(self, those, arena, channel, position).run(started)
            return tuple(cell.key for cell in self.cells if cell not in cells)

    @contextmanager
    def _claimed(self, results: Results) -> Iterator[list[Cell]]:
        """The cells that no other process trains, or has trained since this task was planned."""
        if self.compute.replica.world > 1:
            # Processes that train a cell together must agree on what they train: they keep what was planned.
            yield list(self.cells)
            return
        locks = {results.lock_path(cell.id): cell for cell in self.cells}
        with claimed(locks) as held:
            yield [locks[path] for path in held if not results.is_finished(locks[path].id)]

    def lost(self, status: Status, error: str) -> None:
        """Record that the process that trained the cells ended before it was done."""
        for cell in self.cells:
            if not Results(self.results).record_path(cell.id).is_file():
                self.recorder.cell(cell, self.split, status, error)

    def without(self, member: int, status: Status, error: str) -> "AccuracyJob | None":
        """Record that one member ends the process that trains it; returns the task of the other members."""
        cell, recorder = self.cells[member], self.recorder
        with claimed([recorder.results.lock_path(cell.id)]):
            recorder.cell(cell, self.split, status, error)
            recorder.clear(cell)
        left = tuple(other for other in self.cells if other is not cell)
        return replace(self, cells=left) if left else None


@dataclass
class _CellRun:
    """All that is known of one cell while it trains.

    Attributes:
        member: its number in the task.
        state: what the display shows of it.
        contender: None while it is not built, and where it cannot start.
        curve: evaluated epochs, and top-1 in percent after each.
        reads: how often each split was read for it.
        final: the evaluation that its accuracy is taken from.
    """

    cell: Cell
    member: int
    state: MemberState
    contender: Contender | None = None
    curve: tuple[list[int], list[float]] = field(default_factory=lambda: ([], []))
    reads: Counter[str] = field(default_factory=Counter)
    final: Evaluation | None = None

    @property
    def trains(self) -> bool:
        return self.contender is not None and self.contender.status is None


class _Training:
    """The training of cells that start at one position, from there to their records."""

    def __init__(
        self, task: AccuracyJob, cells: Sequence[Cell], arena: Arena, channel: Channel, start: Position
    ) -> None:
        self._task = task
        self._arena = arena
        self._channel = channel
        self._start = start
        self._recorder = task.recorder
        self._runs = [_CellRun(cell, task.cells.index(cell), MemberState(cell.method.name)) for cell in cells]
        # The test split is read once, after the last epoch, unless the best epoch on it is asked for.
        self._followed = arena.evaluation if task.best or task.split == "val" else arena.validation
        self._last_report = 0.0
        self._last_save = time.monotonic()
        self._seconds_before = 0.0

    def run(self, started: float) -> None:
        """Args:
        started: when the process began to work on the task (`time.perf_counter`).
        """
        self._recorder = self._recorder.on(self._arena.compute)
        for run in self._runs:
            with self._channel.on_behalf_of(run.member):
                run.contender = self._build(run)
        self._entered = time.perf_counter()
        contenders = [run.contender for run in self._runs if run.contender is not None]
        if contenders:
            arena = self._arena
            train(
                contenders,
                arena.teacher,
                arena.stream,
                arena.compute,
                on_step=self._on_step,
                on_epoch=self._on_epoch,
                start=self._start,
            )
            self._refuse_changed_teacher()
        seconds = {"setup": self._entered - started, "group": self._seconds}
        for run in self._runs:
            if run.trains:
                self._record_done(run, seconds)
                self._recorder.clear(run.cell)

    @property
    def _seconds(self) -> float:
        """Seconds of training so far, those before an interruption included."""
        return self._seconds_before + time.perf_counter() - self._entered

    def _refuse_changed_teacher(self) -> None:
        """Check that the teacher, which everybody learned from, is what it was: self-checks see the first steps only.

        Raises:
            KdbenchError: it is not; no cell of the group counts.
        """
        teacher = self._arena.teacher
        if teacher.training or weights_sha256(teacher.model) != self._arena.teacher_record["sha256"]:
            raise KdbenchError(
                f"the teacher of {self._task.pair.name} was changed during the training, so none of it counts; run "
                f"{', '.join(run.state.name for run in self._runs)} one by one to see which method does it"
            )

    def _build(self, run: _CellRun) -> Contender | None:
        """The contender of a cell, self-checked; None when it cannot start, which is recorded."""
        plan, arena = run.cell.method, self._arena
        try:
            method = plan.plugin.method
            if self._start == START:
                copy = arena.with_own_teacher()
                checks = copy.check(copy.contender(plan.name, method, plan.hyperparameters))
                if not passed(checks):
                    failed = next(check for check in checks if not check.passed)
                    self._record_ended(run, "failed", f"self-check '{failed.name}': {failed.detail}")
                    return None
            return self._ready(run, arena.contender(plan.name, method, plan.hyperparameters))
        except Exception as error:
            self._record_ended(run, *ending(error))
        return None

    def _ready(self, run: _CellRun, contender: Contender) -> Contender:
        """The contender as it was when its checkpoint was taken, if there is one."""
        contender.running = partial(self._channel.on_behalf_of, run.member)
        contender.limit = self._task.limits.student_seconds
        if self._start != START:
            saved = load_checkpoint(self._recorder.results, run.cell.id, self._start)
            contender.restore(saved["contender"])
            run.curve = saved["curve"]
            run.reads = Counter(saved["reads"])
            self._seconds_before = saved["seconds"]
        return contender

    def _report(self, share: float) -> None:
        self._channel.emit(Progress(self._task.label, share, tuple(run.state for run in self._runs)))

    def _on_step(self, position: Position, share: float) -> None:
        now = time.monotonic()
        if now - self._last_report >= REPORT_SECONDS:
            self._last_report = now
            self._report(share)
        # Processes that train a cell together would not agree on the moment.
        if self._arena.compute.replica.world == 1:
            if self._channel.stop:
                self._save(position)
                raise Stopped
            if now - self._last_save >= self._task.limits.checkpoint_seconds:
                self._save(position)

    def _save(self, position: Position) -> None:
        """Checkpoint every contender that still trains."""
        states = [
            (
                run.cell.id,
                {
                    "contender": run.contender.state(),
                    "curve": run.curve,
                    "reads": dict(run.reads),
                    "seconds": self._seconds,
                },
            )
            for run in self._runs
            if run.contender is not None and run.trains
        ]
        if self._recorder.writes:
            try:
                self._recorder.refuse_moved()
                save_checkpoints(self._recorder.results, states, position)
            except KdbenchError as error:
                self._channel.note(f"no checkpoint: {error}")
        self._last_save = time.monotonic()

    def _on_epoch(self, position: Position, share: float) -> None:
        last = position.epoch == self._arena.stream.recipe.epochs
        for run in self._runs:
            if run.contender is not None and run.state.status is None:
                self._evaluate_epoch(run, run.contender, position.epoch, last)
        self._report(share)
        late = time.monotonic() - self._last_save >= self._task.limits.checkpoint_seconds / 2
        if not last and agreed(late):
            self._save(position)

    def _evaluate_epoch(self, run: _CellRun, contender: Contender, epoch: int, last: bool) -> None:
        """The evaluations that are due after an epoch; a contender that has ended is recorded."""
        due = last or epoch % self._task.suite.eval_every == 0
        splits = [self._followed] if self._followed and due else []
        if last and self._followed is not self._arena.evaluation:
            splits.append(self._arena.evaluation)
        if contender.status is None:
            with isolated(contender):
                for split in splits:
                    run.state.top1 = self._evaluate(run, contender, split, epoch)
        if contender.status is None:
            run.state.loss = sum(values[-1] for values in contender.losses.values())
        else:
            self._record_ended(run, contender.status, contender.error)

    def _evaluate(self, run: _CellRun, contender: Contender, split: Counted, epoch: int) -> float:
        """Top-1 on a split: a point of the learning curve, the accuracy of the cell, or both."""
        before = split.reads
        with contender.evaluated() as model:
            size, compute = self._task.suite.eval_batch_size, self._arena.compute
            result = evaluate(model, split, size, compute, contender.predictor)
        run.reads[split.part] += split.reads - before
        if split is self._followed:
            epochs, top1 = run.curve
            epochs.append(epoch)
            top1.append(result.top1)
        if split is self._arena.evaluation:
            run.final = result
        return result.top1

    def _record_ended(self, run: _CellRun, status: Status, error: str | None) -> None:
        run.state.status = status
        self._recorder.cell(run.cell, self._task.split, status, error)
        self._recorder.clear(run.cell)

    def _record_done(self, run: _CellRun, seconds: dict[str, float]) -> None:
        contender, final = run.contender, run.final
        assert contender is not None and final is not None
        path = self._recorder.results.student_path(run.cell.id)
        if self._recorder.writes:
            self._recorder.refuse_moved()
            self._keep(path, contender, final)
        best_is_known = self._followed is self._arena.evaluation
        epochs, top1 = run.curve
        findings = CellFindings(top1=final.top1, top5=final.top5, majority=final.majority)
        if best_is_known:
            best = int(np.argmax(top1))
            findings.update(best_top1=top1[best], best_epoch=epochs[best])
        findings.update(
            reads=dict(run.reads),
            correct=base64.b64encode(np.packbits(final.correct).tobytes()).decode(),
            evaluated=len(final.correct),
            class_images=final.class_images,
            class_hits=final.class_hits,
            curves=Curves(
                epoch=list(range(1, len(contender.lr) + 1)),
                lr=contender.lr,
                loss=contender.losses,
                eval_epoch=epochs,
                eval_top1=top1,
                eval_split=self._task.split if best_is_known else "val",
            ),
            extremes=contender.extremes.record(),
            seconds=seconds,
            extra_parameters=contender.extra_parameters,
            inference_parameters=contender.method.inference_parameters,
            checkpoint=str(path.relative_to(self._task.results)),
        )
        parameters = count_parameters(self._arena.teacher), count_parameters(contender.student.model)
        self._recorder.cell(run.cell, self._task.split, "done", findings=findings, parameters=parameters)
        run.state.status = "done"

    def _keep(self, path: Path, contender: Contender, final: Evaluation) -> None:
        """Write the student's weights, with what is needed to build the model in plain timm."""
        task, shapes = self._task, self._arena.task
        spec, data = task.suite.models[task.pair.student], task.suite.data
        crop = task.suite.recipe_of(task.pair.student).eval_crop
        with contender.evaluated() as model:
            save_weights(
                path,
                model.model,
                {
                    "timm": spec.timm,
                    "arguments": create_arguments(spec, shapes.num_classes, *shapes.image_shape[:2]),
                    **({"stages": spec.stages} if spec.stages else {}),
                    "image_shape": shapes.image_shape,
                    "input": {"fit": data.fit, "interpolation": data.interpolation, "crop": crop},
                    "normalisation": model.normalisation,
                    "method": contender.name,
                    "pair": task.pair.name,
                    "seed": task.seed,
                    "top1": final.top1,
                    "inference_parameters": contender.method.inference_parameters,
                    "alone": contender.predictor is None,
                },
            )
