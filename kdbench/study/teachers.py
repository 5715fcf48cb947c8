"""Training the teachers of a suite: the loop of the students, without a teacher, on the suite's teacher data."""

import time
from dataclasses import dataclass
from pathlib import Path

from kdbench.data.resident import ResidentStream
from kdbench.data.stream import EvaluationSet
from kdbench.method import Method, Pair, Task
from kdbench.models.create import create_arguments
from kdbench.models.staged import StagedModel
from kdbench.records import Status
from kdbench.registry import Plugin
from kdbench.study.progress import ContenderState, Emit, Progress
from kdbench.suites.schema import Suite
from kdbench.training.arena import load_data, resident_splits
from kdbench.training.contender import Contender, build_contender
from kdbench.training.device import Compute, environment
from kdbench.training.evaluate import evaluate
from kdbench.training.lockstep import Position, train
from kdbench.training.teacher import new_model
from kdbench.training.weights import save_weights, weights_sha256


@dataclass(frozen=True)
class TeacherTask:
    """A task of the engine: train one teacher and save it with its accuracy, hash and command."""

    suite: Suite
    name: str
    control: Plugin
    seed: int
    compute: Compute
    data_root: Path
    target: Path
    command: str

    @property
    def label(self) -> str:
        return self.name

    @property
    def weight(self) -> int:
        return 1

    def execute(self, emit: Emit) -> None:
        """Train on all images of the teacher data, evaluate on the test split of the suite, save."""
        self.compute.apply()
        suite, recipe, data = self.suite, self.suite.recipe_of(self.name), self.suite.data
        source = data.teacher_source or data.source
        shift, device = recipe.augment.shift, self.compute.device
        training, _, _ = resident_splits(source, self.data_root, 0.0, data.image_size, shift, device)
        _, _, test = resident_splits(data.source, self.data_root, 0.0, data.image_size, shift, device)
        classes = len(load_data(data.source, self.data_root).classes)
        task = Task(classes, (len(data.mean), data.image_size, data.image_size), len(training), recipe.epochs)
        stream = ResidentStream(training, recipe, classes, self.seed, f"teacher {self.name}")

        def as_own_teacher(model: StagedModel) -> Method:
            # The control looks at no teacher; the pair wants one.
            return self.control.method(Pair(model, model, task), {})

        contender = build_contender(
            self.name,
            lambda: new_model(suite, self.name, classes, self.compute),
            as_own_teacher,
            recipe,
            stream.steps_per_epoch,
            self.seed,
            stream.pair,
            self.compute,
        )
        state = ContenderState(self.name)

        def on_step(position: Position) -> None:
            if position.step % 50 == 0:
                emit(Progress(self.label, position.share, (state,)))

        def on_epoch(position: Position) -> None:
            if contender.losses:
                state.loss = sum(values[-1] for values in contender.losses.values())

        started = time.perf_counter()
        train([contender], None, stream, self.compute, on_step, on_epoch)
        self._save(contender, test, time.perf_counter() - started)

    def _save(self, contender: Contender, test: EvaluationSet, seconds: float) -> None:
        if contender.status is not None:
            raise RuntimeError(contender.error)
        suite, spec = self.suite, self.suite.models[self.name]
        with contender.evaluated() as model:
            result = evaluate(model, test, suite.eval_batch_size, self.compute)
            _, machine = environment(self.compute)
            save_weights(
                self.target,
                model.model,
                {
                    "suite": suite.name,
                    "timm": spec.timm,
                    "arguments": create_arguments(spec, model.num_classes, *model.image_shape[:2]),
                    "normalisation": model.normalisation,
                    "trained_on": suite.data.teacher_source or suite.data.source,
                    "recipe": suite.recipe_of(self.name).model_dump(),
                    "seed": self.seed,
                    "seconds": round(seconds, 1),
                    "torch": machine["torch"],
                    "timm_version": machine["timm"],
                    "command": self.command,
                    "top1": result.top1,
                    "top5": result.top5,
                    "sha256": weights_sha256(model.model),
                },
            )

    def lost(self, status: Status, error: str) -> None:
        """Nothing to record: the file of the teacher stays as it was, the display has told the error."""
