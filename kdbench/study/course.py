"""The course of a lockstep group: build and check its contenders, train them, evaluate, record."""

import base64
import time
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kdbench.compute.device import environment
from kdbench.compute.distributed import agreed
from kdbench.data.stream import Counted
from kdbench.engines.channel import Line, Stopped
from kdbench.engines.display import ContenderState, Progress
from kdbench.errors import KdbenchError, UnsupportedPair, describe
from kdbench.files import write_json
from kdbench.models.create import create_arguments
from kdbench.models.parameters import count_parameters
from kdbench.results.checkpoints import START, Spot
from kdbench.results.records import Curves, Results, Status
from kdbench.study.checkpoint import load, save
from kdbench.study.plan import Cell
from kdbench.training.arena import Arena
from kdbench.training.contender import Contender, isolated
from kdbench.training.evaluate import Evaluation, evaluate
from kdbench.training.lockstep import Position, train
from kdbench.training.selfcheck import passed
from kdbench.weights.files import save_weights, weights_sha256

if TYPE_CHECKING:
    from kdbench.study.group import Group

REPORT_SECONDS = 0.5


class Course:
    """From the first step of a group, or the one it was interrupted at, to its records."""

    def __init__(self, group: "Group", cells: Sequence[Cell], arena: Arena, line: Line, spot: Spot) -> None:
        self.group = group
        self.cells = cells
        self.arena = arena
        self.line = line
        self.spot = spot
        self.results = Results(group.results)
        # The test split is read once, after the last epoch, unless the best epoch on it is asked for.
        self.followed = arena.evaluation if group.best or group.split == "val" else arena.validation
        self.curves: dict[str, tuple[list[int], list[float]]] = {cell.method.name: ([], []) for cell in cells}
        self.reads: dict[str, Counter[str]] = {cell.method.name: Counter() for cell in cells}
        self.evaluations: dict[str, Evaluation] = {}
        self.contenders: dict[str, Contender] = {}
        self.states = {cell.method.name: ContenderState(cell.method.name) for cell in cells}
        self._reported = 0.0
        self._saved = time.monotonic()
        self._before = 0.0

    def run(self, started: float) -> None:
        """Args:
        started: when the process began to work on it (`time.perf_counter`).
        """
        environment_id, description = environment(self.arena.compute)
        if self.group.writes:
            write_json(self.results.environment_path(environment_id), description)
        self.environment = environment_id
        for cell in self.cells:
            with self.line.turn(self.group.cells.index(cell)):
                contender = self._build(cell)
            if contender is not None:
                self.contenders[cell.method.name] = contender
        self._entered = time.perf_counter()
        if self.contenders:
            train(
                list(self.contenders.values()),
                self.arena.teacher,
                self.arena.stream,
                self.arena.compute,
                on_step=self._on_step,
                on_epoch=self._on_epoch,
                start=self.spot,
            )
            self._refuse_changed_teacher()
        seconds = {"setup": self._entered - started, "group": self._elapsed}
        for cell in self.cells:
            contender = self.contenders.get(cell.method.name)
            if contender is not None and contender.status is None:
                self._record_done(cell, contender, seconds)
                self.group.clear(cell)

    @property
    def _elapsed(self) -> float:
        """Seconds of training so far, those before an interruption included."""
        return self._before + time.perf_counter() - self._entered

    def _refuse_changed_teacher(self) -> None:
        """What the self-checks could not see because it came later: a look at what everybody learned from.

        Raises:
            KdbenchError: the teacher is not what it was; no cell of the group counts.
        """
        teacher = self.arena.teacher
        if teacher.training or weights_sha256(teacher.model) != self.arena.teacher_record["sha256"]:
            raise KdbenchError(
                f"the teacher of {self.group.pair.name} was changed during the training, so none of it counts; "
                f"run {', '.join(self.states)} one by one to see whose doing it is"
            )

    def _build(self, cell: Cell) -> Contender | None:
        """The contender of a cell, self-checked; None when it cannot start, which is recorded."""
        plan, arena = cell.method, self.arena
        try:
            method = plan.plugin.method
            if self.spot == START:
                understudy = arena.understudy()
                checks = understudy.check(understudy.contender(plan.name, method, plan.hyperparameters))
                if not passed(checks):
                    failed = next(check for check in checks if not check.passed)
                    self._record_ended(cell, "failed", f"self-check '{failed.name}': {failed.detail}")
                    return None
            return self._ready(cell, arena.contender(plan.name, method, plan.hyperparameters))
        except UnsupportedPair as reason:
            self._record_ended(cell, "unsupported", str(reason))
        except Exception as error:
            self._record_ended(cell, "failed", describe(error))
        return None

    def _ready(self, cell: Cell, contender: Contender) -> Contender:
        """A contender as it was when its checkpoint was taken, if there is one."""
        contender.turn = partial(self.line.turn, self.group.cells.index(cell))
        contender.limit = self.group.care.limit
        if self.spot != START:
            saved = load(self.results, cell, self.spot)
            contender.restore(saved["contender"])
            self.curves[contender.name] = saved["curve"]
            self.reads[contender.name] = Counter(saved["reads"])
            self._before = saved["seconds"]
        return contender

    def _on_step(self, position: Position) -> None:
        now = time.monotonic()
        if now - self._reported >= REPORT_SECONDS:
            self._reported = now
            self.line.emit(Progress(self.group.label, position.share, tuple(self.states.values())))
        # Processes that train a cell together would not agree on the moment.
        if self.arena.compute.shard.world == 1:
            if self.line.stop:
                self._save(position)
                raise Stopped
            if now - self._saved >= self.group.care.checkpoint_seconds:
                self._save(position)

    def _save(self, position: Position) -> None:
        """Checkpoint every contender that still trains."""
        states = [
            (
                cell,
                {
                    "contender": self.contenders[name].state(),
                    "curve": self.curves[name],
                    "reads": dict(self.reads[name]),
                    "seconds": self._elapsed,
                },
            )
            for cell in self.cells
            if (name := cell.method.name) in self.contenders and self.contenders[name].status is None
        ]
        if self.group.writes:
            try:
                save(self.results, states, (position.epoch, position.step))
            except KdbenchError as error:
                self.line.note(f"no checkpoint: {error}")
        self._saved = time.monotonic()

    def _on_epoch(self, position: Position) -> None:
        self._evaluate_epoch(position)
        late = time.monotonic() - self._saved >= self.group.care.checkpoint_seconds / 2
        if position.epoch < position.epochs and agreed(late):
            self._save(position)

    def _evaluate_epoch(self, position: Position) -> None:
        last = position.epoch == position.epochs
        wanted = (
            [self.followed] if self.followed and (last or position.epoch % self.group.suite.eval_every == 0) else []
        )
        if last and self.followed is not self.arena.evaluation:
            wanted.append(self.arena.evaluation)
        for cell in self.cells:
            contender, state = self.contenders.get(cell.method.name), self.states[cell.method.name]
            if contender is None or state.status is not None:
                continue
            if contender.status is None:
                with isolated(contender):
                    for split in wanted:
                        state.top1 = self._evaluate(contender, split, position.epoch)
            if contender.status is None:
                state.loss = sum(values[-1] for values in contender.losses.values())
            else:
                self._record_ended(cell, contender.status, contender.error)
        self.line.emit(Progress(self.group.label, position.share, tuple(self.states.values())))

    def _evaluate(self, contender: Contender, split: Counted, epoch: int) -> float:
        """Top-1 on a split: a point of the learning curve, the accuracy of the cell, or both."""
        before = split.reads
        with contender.evaluated() as model:
            size, compute = self.group.suite.eval_batch_size, self.arena.compute
            result = evaluate(model, split, size, compute, contender.predictor)
        self.reads[contender.name][split.part] += split.reads - before
        if split is self.followed:
            epochs, top1 = self.curves[contender.name]
            epochs.append(epoch)
            top1.append(result.top1)
        if split is self.arena.evaluation:
            self.evaluations[contender.name] = result
        return result.top1

    def _record_ended(self, cell: Cell, status: Status, error: str | None) -> None:
        self.states[cell.method.name].status = status
        self.group.write(cell, self.group.header(cell, self.environment, status, error))
        self.group.clear(cell)

    def _record_done(self, cell: Cell, contender: Contender, seconds: dict[str, float]) -> None:
        final = self.evaluations[contender.name]
        eval_epochs, eval_top1 = self.curves[contender.name]
        group = self.group
        path = self.results.checkpoint_path(*cell.place)
        if group.writes:
            self._keep(path, contender, final)
        record = group.header(cell, self.environment, "done", None)
        record["teacher"]["parameters"] = count_parameters(self.arena.teacher)
        record["student"]["parameters"] = count_parameters(contender.student.model)
        record["top1"] = final.top1
        record["top5"] = final.top5
        if self.followed is self.arena.evaluation:
            best = int(np.argmax(eval_top1))
            record["best_top1"] = eval_top1[best]
            record["best_epoch"] = eval_epochs[best]
        record["reads"] = dict(self.reads[contender.name])
        record["correct"] = base64.b64encode(np.packbits(final.correct).tobytes()).decode()
        record["evaluated"] = len(final.correct)
        record["curves"] = Curves(
            epoch=list(range(1, len(contender.lr) + 1)),
            lr=contender.lr,
            loss=contender.losses,
            eval_epoch=eval_epochs,
            eval_top1=eval_top1,
            eval_split=group.split if self.followed is self.arena.evaluation else "val",
        )
        record["seconds"] = seconds
        record["extra_parameters"] = contender.extra_parameters
        record["inference_parameters"] = contender.method.inference_parameters
        record["checkpoint"] = str(path.relative_to(group.results))
        group.write(cell, record)
        self.states[contender.name].status = "done"

    def _keep(self, path: Path, contender: Contender, final: Evaluation) -> None:
        """The student's checkpoint, with what is needed to build the model in plain timm."""
        group, task = self.group, self.arena.task
        spec, data = group.suite.models[group.pair.student], group.suite.data
        crop = group.suite.recipe_of(group.pair.student).eval_crop
        with contender.evaluated() as model:
            save_weights(
                path,
                model.model,
                {
                    "timm": spec.timm,
                    "arguments": create_arguments(spec, task.num_classes, *task.image_shape[:2]),
                    "image_shape": task.image_shape,
                    "input": {"fit": data.fit, "interpolation": data.interpolation, "crop": crop},
                    "normalisation": model.normalisation,
                    "method": contender.name,
                    "pair": group.pair.name,
                    "seed": group.seed,
                    "top1": final.top1,
                    "inference_parameters": contender.method.inference_parameters,
                    "alone": contender.predictor is None,
                },
            )
