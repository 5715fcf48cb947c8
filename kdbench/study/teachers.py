"""Getting the teachers of a suite: training or fine-tuning them, importing weights trained elsewhere, verifying them.

Whatever way its weights came, a teacher is stored with its accuracy on the suite's test split.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import timm.data
from scipy import stats

from kdbench.compute.device import Compute, environment
from kdbench.compute.distributed import wait_for_all
from kdbench.data import opening
from kdbench.data.stream import EvaluationSet
from kdbench.engines.channel import Channel, Stopped
from kdbench.engines.progress import MemberState, Progress
from kdbench.errors import KdbenchError
from kdbench.method import Method, Pair, Task
from kdbench.models.create import create_arguments
from kdbench.models.features import Normalisation
from kdbench.models.staged import StagedModel
from kdbench.registry import Plugin
from kdbench.results.folder import Position
from kdbench.results.schema import Status
from kdbench.suites.schema import Data, Suite, teacher_file
from kdbench.training.contender import Contender, build_contender
from kdbench.training.evaluate import evaluate
from kdbench.training.lockstep import train
from kdbench.training.teacher import (
    file_sha256,
    load_teacher,
    new_model,
    normalisation_of,
    pretrained_model,
    stage_model,
    teacher_metadata,
    timm_normalisation,
)
from kdbench.weights.files import save_weights, weights_sha256

TOLERANCE = 0.3
"""Points of top-1 that a teacher may differ from what its file says: another device or precision decides near ties
another way; other data, another normalisation or other model code cost more."""

Expects = Literal["suite", "timm", "imagenet", "inception"]
"""Mean and standard deviation that imported weights were trained with: the suite's, those of timm's pretrained weights
of the model, or one of the two usual ones of ImageNet (`inception` is .5 and .5)."""


@dataclass(frozen=True)
class TeacherJob:
    """A task of the engine: train one teacher and save it with its accuracy, hash and command.

    Attributes:
        source: file of weights to start from; without one, timm's pretrained weights where the suite says so.
    """

    suite: Suite
    name: str
    control: Plugin
    seed: int
    compute: Compute
    data_root: Path
    target: Path
    command: str
    source: Path | None = None

    @property
    def label(self) -> str:
        return self.name

    @property
    def weight(self) -> int:
        return 1

    @property
    def data(self) -> Data:
        """What the teacher is trained on."""
        data = self.suite.data
        return data.model_copy(update={"source": data.teacher_source or data.source})

    @property
    def fine_tuned(self) -> bool:
        """The training starts from weights that there are."""
        return self.source is not None or self.suite.models[self.name].pretrained

    @property
    def members(self) -> tuple[str, ...]:
        return (self.name,)

    def execute(self, channel: Channel) -> tuple[str, ...]:
        """Train on all images of the teacher data, evaluate on the test split of the suite, save.

        Raises:
            KdbenchError: the training failed.
        """
        self.compute.apply()
        suite, recipe = self.suite, self.suite.recipe_of(self.name)
        classes = len(opening.open_dataset(suite.data, self.data_root).classes)
        stream = opening.open_training(
            self.data, self.data_root, 0.0, recipe, self.compute, seed=self.seed, pair=f"teacher {self.name}"
        )
        task = Task(classes, suite.data.image_shape, stream.labels, recipe.epochs)
        origin: dict[str, str] = {}

        def make() -> StagedModel:
            if not self.fine_tuned:
                return new_model(suite, self.name, classes, self.compute)
            model, origin_of_weights = pretrained_model(suite, self.name, classes, self.source)
            origin.update(origin_of_weights)
            return stage_model(suite, self.name, model, timm_normalisation(suite, self.name), self.compute)

        def as_own_teacher(model: StagedModel) -> Method:
            # The control looks at no teacher; the pair wants one.
            return self.control.method(Pair(model, model, task), {})

        contender = build_contender(
            self.name,
            make,
            as_own_teacher,
            recipe,
            self.compute,
            steps_per_epoch=stream.steps_per_epoch,
            seed=self.seed,
            pair=stream.pair,
        )
        state = MemberState(self.name)

        def on_step(position: Position, share: float) -> None:
            if position.step % 50 == 0:
                channel.emit(Progress(self.label, share, (state,)))
            if channel.stop:
                raise Stopped

        def on_epoch(position: Position, share: float) -> None:
            if contender.losses:
                state.loss = sum(values[-1] for values in contender.losses.values())

        started = time.perf_counter()
        train([contender], None, stream, self.compute, on_step=on_step, on_epoch=on_epoch)
        seconds = round(time.perf_counter() - started, 1)
        started_from = {"started_from": origin} if origin else {}
        facts = {"trained_on": self.data.source, "images": len(stream), **started_from, "recipe": recipe.model_dump()}
        self._save(contender, {**facts, "seed": self.seed, "seconds": seconds, "command": self.command})
        return ()

    def _save(self, contender: Contender, facts: dict[str, Any]) -> None:
        if contender.status is not None:
            raise KdbenchError(contender.error or contender.status)
        with contender.evaluated() as model:
            test = _test_split(self.suite, self.name, self.data_root, self.compute)
            save_teacher(self.target, self.suite, self.name, model, test, self.compute, facts=facts)

    def lost(self, status: Status, error: str) -> None:
        """Nothing to record: the file of the teacher stays as it was, the display has told the error."""

    def without(self, member: int, status: Status, error: str) -> None:
        """Nothing to record, and nothing left to do."""


def import_teacher(
    suite: Suite,
    name: str,
    source: Path | None,
    expects: Expects | None,
    compute: Compute,
    data_root: Path,
    *,
    command: str,
) -> Path:
    """Store weights that were trained elsewhere as a teacher of a suite.

    Args:
        source: a safetensors file or a torch checkpoint; None for timm's pretrained weights.
        expects: the normalisation of their input; None is the suite's for a file and timm's for timm's weights.

    Returns:
        The teacher's file.

    Raises:
        KdbenchError: data or weights cannot be had, the weights do not fit, are no better than guessing, or are worse
            than those that would be replaced.
    """
    compute.apply()
    classes = len(opening.open_dataset(suite.data, data_root).classes)
    normalisation = _expected(suite, name, expects or ("suite" if source else "timm"))
    model, origin = pretrained_model(suite, name, classes, source, as_they_are=True)
    teacher = stage_model(suite, name, model, normalisation, compute)
    test = _test_split(suite, name, data_root, compute)
    target = suite.own_teachers(data_root) / teacher_file(name)
    facts = {"imported_from": origin, "command": command}
    save_teacher(target, suite, name, teacher, test, compute, facts=facts, imported=True)
    return target


def import_once(suite: Suite, name: str, source: Path, compute: Compute, data_root: Path, command: str) -> None:
    """`import_teacher`, unless what is stored under that name is this file already.

    Raises:
        KdbenchError: as `import_teacher`.
    """
    target = suite.own_teachers(data_root) / teacher_file(name)
    if not (target.is_file() and source.is_file() and _imported_sha256(target) == file_sha256(source)):
        import_teacher(suite, name, source, None, compute, data_root, command=command)
    wait_for_all()


def _imported_sha256(target: Path) -> str | None:
    return teacher_metadata(target).get("imported_from", {}).get("sha256")


def save_teacher(
    target: Path,
    suite: Suite,
    name: str,
    model: StagedModel,
    test: EvaluationSet,
    compute: Compute,
    *,
    facts: dict[str, Any],
    imported: bool = False,
) -> None:
    """Measure a teacher and write it with its accuracy, hash and `facts`.

    Args:
        imported: weights of unknown origin are stored only if they know the task, and replace no better teacher; what
            was trained here is what was asked for.

    Raises:
        KdbenchError: imported weights are no better than guessing, or worse than those they would replace.
    """
    result = evaluate(model, test, suite.eval_batch_size, compute)
    if imported and result.top1 <= guessing(len(test), model.num_classes):
        raise KdbenchError(
            f"{name} reaches only {result.top1:.2f} % on the test split of {suite.data.source}, where guessing gives "
            f"{100 / model.num_classes:.3g} %: weights of another task, another normalisation or another class order?"
        )
    if imported and (better := _stored_top1(target)) > result.top1 + TOLERANCE:
        raise KdbenchError(
            f"{name} reaches {result.top1:.2f} %, but {target} already holds a teacher of {better:.2f} %; "
            "remove that file first if it is to be replaced"
        )
    spec, (_, machine) = suite.models[name], environment(compute)
    if compute.replica.rank > 0:
        return
    save_weights(
        target,
        model.model,
        {
            "suite": suite.name,
            "timm": spec.timm,
            "arguments": create_arguments(spec, model.num_classes, *model.image_shape[:2]),
            "normalisation": model.normalisation,
            **facts,
            "torch": machine["torch"],
            "timm_version": machine["timm"],
            "top1": result.top1,
            "top5": result.top5,
            "sha256": weights_sha256(model.model),
        },
    )


def guessing(images: int, classes: int) -> float:
    """Top-1 in percent up to which a teacher is not clearly better than guessing.

    Three times the chance (half the way to perfect where that is less), and no less than what one guesser in a
    thousand exceeds by luck: the 99.9 % point of the binomial distribution.
    """
    chance = 1 / classes
    luck = float(stats.binom.ppf(0.999, images, chance)) / images
    return 100 * max(luck, min(3 * chance, (1 + chance) / 2))


@dataclass(frozen=True)
class Verification:
    """What came of a stored teacher: the top-1 its file tells and the one measured; `error` says what is off."""

    teacher: str
    stored: float | None
    measured: float | None
    error: str | None


def verify_teacher(suite: Suite, name: str, compute: Compute, data_root: Path) -> Verification:
    """Read a stored teacher again: whole, finite, with the hash and, within `TOLERANCE`, the accuracy it tells."""
    compute.apply()
    classes = len(opening.open_dataset(suite.data, data_root).classes)
    try:
        teacher, record = load_teacher(suite, name, classes, compute, data_root)
    except KdbenchError as error:
        return Verification(name, None, None, str(error))
    test = _test_split(suite, name, data_root, compute)
    stored, measured = record["top1"], evaluate(teacher, test, suite.eval_batch_size, compute).top1
    error = None
    if abs(measured - stored) > TOLERANCE:
        error = f"{measured:.2f} % is not the {stored:.2f} % it was stored with; is this its data and normalisation?"
    return Verification(name, stored, measured, error)


def _test_split(suite: Suite, name: str, data_root: Path, compute: Compute) -> EvaluationSet:
    return opening.open_evaluation(suite.data, data_root, "test", 0.0, suite.recipe_of(name).eval_crop, compute)


def _expected(suite: Suite, name: str, expects: Expects) -> Normalisation:
    """The mean and standard deviation that `expects` names.

    Raises:
        KdbenchError: they have another number of channels than the suite's images.
    """
    if expects == "suite":
        return normalisation_of(suite)
    if expects == "timm":
        return timm_normalisation(suite, name)
    if len(suite.data.mean) != 3:
        raise KdbenchError(
            f"--normalisation {expects} is for 3 channels; the images of {suite.name} have another number"
        )
    if expects == "imagenet":
        return timm.data.IMAGENET_DEFAULT_MEAN, timm.data.IMAGENET_DEFAULT_STD
    return timm.data.IMAGENET_INCEPTION_MEAN, timm.data.IMAGENET_INCEPTION_STD


def _stored_top1(path: Path) -> float:
    """Accuracy of the teacher in a file; 0 where there is none, or none that can be read."""
    try:
        return teacher_metadata(path)["top1"]
    except KdbenchError:
        return 0.0
