"""Getting the teachers of a suite: training or fine-tuning them, importing weights trained elsewhere, verifying them.

Whatever way its weights came, a teacher is stored with its accuracy on the suite's test split.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import timm.data
from torch import nn

from kdbench.analysis.stats import luck
from kdbench.compute.device import Compute, environment
from kdbench.compute.distributed import wait_for_all
from kdbench.data import opening
from kdbench.data.sources import NAMED
from kdbench.data.sources.folder import timm_order
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
from kdbench.training.evaluate import Evaluation, evaluate
from kdbench.training.lockstep import train
from kdbench.training.teacher import (
    Origin,
    is_of_model,
    load_teacher,
    model_with,
    new_model,
    normalisation_of,
    origin_of,
    pretrained_model,
    pretrained_normalisation,
    stage_model,
    teacher_metadata,
    timm_model,
    timm_normalisation,
    trained_weights,
)
from kdbench.weights.files import save_weights, weights_sha256
from kdbench.weights.foreign import Which, checkpoint_sha256

TOLERANCE = 0.3
"""Points of top-1 that a teacher may differ from what its file says: another device or precision decides near ties
another way; other data, another normalisation or other model code cost more."""

Expects = Literal["suite", "timm", "imagenet", "inception"] | Normalisation
"""Mean and standard deviation that imported weights were trained with: the suite's, those of timm's pretrained weights
of the model, one of the two usual ones of ImageNet (`inception` is .5 and .5), or the values themselves."""
OnImages = Callable[[str, int, int], None]
"""Is told what is measured, the number of images so far, and of all."""


@dataclass(frozen=True)
class ImportRequest:
    """What is known of weights that were trained elsewhere.

    Attributes:
        source: a safetensors file, the index of several, or a torch checkpoint; None for timm's pretrained weights.
        expects: the normalisation of their input; None is the suite's for a file and timm's for timm's weights.
        which: the weights to take of a file that holds averaged ones beside the trained ones; None measures both.
        classes: the classes in the order of the logits; None tries the data set's order, and timm's if that is another.
        replace: they replace a better teacher, too.
    """

    source: Path | None = None
    expects: Expects | None = None
    which: Which | None = None
    classes: tuple[str, ...] | None = None
    replace: bool = False


@dataclass(frozen=True)
class Imported:
    """What came of an import.

    Attributes:
        path: the teacher's file.
        tried: top-1 in percent of all readings of the file that were measured, the stored one first.
    """

    path: Path
    tried: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class TeacherJob:
    """A task of the engine: train one teacher and save it with its accuracy, hash and command.

    Attributes:
        source: file of weights to start from; without one, timm's pretrained weights where the suite says so.
        which: the weights to take of a file that holds averaged ones beside the trained ones.
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
    which: Which | None = None

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

    @property
    def exclusive(self) -> bool:
        return False

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
            model, origin_of_weights = pretrained_model(suite, self.name, classes, self.source, self.which)
            origin.update(origin_of_weights)
            expected = pretrained_normalisation(suite, self.name)
            return stage_model(suite, self.name, model, expected, self.compute, num_classes=classes)

        def as_own_teacher(model: StagedModel) -> Method:
            # The control looks at no teacher; the pair wants one.
            return self.control.method(Pair(model, model, task), {})

        contender = build_contender(
            self.name,
            make,
            as_own_teacher,
            stream.recipe,
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
            result = evaluate(model, test, self.suite.eval_batch_size, self.compute)
            facts |= {"measured_on": measured_on(self.suite, self.name, self.data_root)}
            save_teacher(self.target, self.suite, self.name, model, result, self.compute, facts=facts)

    def lost(self, status: Status, error: str) -> None:
        """Nothing to record: the file of the teacher stays as it was, the display has told the error."""

    def without(self, member: int, status: Status, error: str) -> None:
        """Nothing to record, and nothing left to do."""


def import_teacher(
    suite: Suite,
    name: str,
    request: ImportRequest,
    compute: Compute,
    data_root: Path,
    *,
    command: str,
    on_images: OnImages | None = None,
) -> Imported:
    """Store weights that were trained elsewhere as a teacher of a suite.

    A file may hold several sets of weights, and its classes may stand in another order; where nobody says which it is,
    all are measured, and the best is stored.

    Raises:
        KdbenchError: data or weights cannot be had, the weights do not fit, are no better than guessing, or are worse
            than those that would be replaced.
    """
    compute.apply()
    classes = opening.open_dataset(suite.data, data_root).classes
    normalisation = _expected(suite, name, request)
    test = _test_split(suite, name, data_root, compute)
    measured: list[tuple[Evaluation, str, StagedModel, Origin]] = []
    for label, model, origin in _readings(suite, name, classes, request):
        teacher = stage_model(suite, name, model, normalisation, compute, num_classes=len(classes))

        def tell(images: int, label: str = label) -> None:
            if on_images is not None:
                on_images(label, images, len(test))

        result = evaluate(teacher, test, suite.eval_batch_size, compute, on_images=tell)
        measured.append((result, label, teacher, origin))
    measured.sort(key=lambda one: -one[0].top1)
    result, _, teacher, origin = measured[0]
    _refuse_guess(suite, name, result, len(test), len(classes))
    target = suite.own_teachers(data_root) / teacher_file(name)
    basis = measured_on(suite, name, data_root)
    if not request.replace:
        _refuse_worse(target, suite, name, teacher, result, basis=basis)
    facts = {"imported_from": origin, "command": command, "measured_on": basis}
    save_teacher(target, suite, name, teacher, result, compute, facts=facts)
    return Imported(target, tuple((label, result.top1) for result, label, _, _ in measured))


def import_once(
    suite: Suite,
    name: str,
    source: Path,
    compute: Compute,
    data_root: Path,
    *,
    command: str,
    on_images: OnImages | None = None,
) -> Imported | None:
    """`import_teacher`, unless it has stored the same before: file, network and data are what they were.

    Raises:
        KdbenchError: as `import_teacher`.
    """
    target = suite.own_teachers(data_root) / teacher_file(name)
    stored = _stored(target)
    same_file = (
        stored is not None
        and source.is_file()
        and stored.get("imported_from", {}).get("sha256") == checkpoint_sha256(source)
    )
    imported = None
    if not (
        stored is not None
        and same_file
        and is_of_model(stored, suite.models[name])
        and stored.get("measured_on") == measured_on(suite, name, data_root)
    ):
        request = ImportRequest(source, replace=same_file)
        imported = import_teacher(suite, name, request, compute, data_root, command=command, on_images=on_images)
    wait_for_all()
    return imported


def measured_on(suite: Suite, name: str, data_root: Path) -> dict[str, Any]:
    """What the accuracy of a teacher depends on besides its network: the images, and how they are shown."""
    data = suite.data
    return {
        "data": opening.open_dataset(data, data_root).sha256,
        "test_limit": data.test_limit,
        "image_size": data.image_size,
        "fit": data.fit,
        "interpolation": data.interpolation,
        "crop": suite.recipe_of(name).eval_crop,
    }


def _readings(
    suite: Suite, name: str, classes: tuple[str, ...], request: ImportRequest
) -> Iterator[tuple[str, nn.Module, Origin]]:
    """The models that the requested weights may mean: what each is called, the model, where its weights are from."""
    if request.source is None:
        model, origin = timm_model(suite, name, len(classes), as_they_are=True)
        yield f"timm's {suite.models[name].timm}", model, origin
        return
    orders = _class_orders(suite, classes, request.classes)
    for weights in trained_weights(suite, name, len(classes), request.source, request.which):
        for order, rows in orders.items():
            chosen = weights if rows is None else weights.reordered(rows)
            facts = {"class_order": order} if order else {}
            where = weights.where or request.source.name
            label = f"{where}, classes in the order of {order}" if order else where
            yield label, model_with(suite, name, len(classes), chosen), origin_of(request.source, weights) | facts


def _class_orders(suite: Suite, classes: tuple[str, ...], told: tuple[str, ...] | None) -> dict[str, list[int] | None]:
    """The orders that the logits may be in: what each is called, and for each class of the data set its logit."""
    if told is not None:
        if sorted(told) != sorted(classes):
            odd = sorted({*told} ^ {*classes}) or [next(name for name in told if told.count(name) > 1)]
            raise KdbenchError(
                f"--class-map has {len(told)} classes, {suite.data.source} has {len(classes)}; "
                f"{odd[0]!r} is not once in both"
            )
        return {"--class-map": [told.index(name) for name in classes]}
    orders: dict[str, list[int] | None] = {"": None}
    # A data set with a name has its classes by number.
    if suite.data.source not in NAMED and (theirs := timm_order(classes)) != classes:
        orders["timm's folder reader"] = [theirs.index(name) for name in classes]
    return orders


def _refuse_guess(suite: Suite, name: str, result: Evaluation, images: int, classes: int) -> None:
    if result.top1 <= guessing(images, classes, result.majority / 100):
        raise KdbenchError(
            f"{name} reaches only {result.top1:.2f} % on the test split of {suite.data.source}, where guessing gives "
            f"{result.majority:.3g} %: weights of another task, another normalisation or another class order?"
        )


def _refuse_worse(
    target: Path, suite: Suite, name: str, model: StagedModel, result: Evaluation, *, basis: dict[str, Any]
) -> None:
    """Refuse to replace a better teacher of the same network and the same data, unless it is this one."""
    stored = _stored(target)
    if stored is None or stored.get("measured_on") not in (None, basis) or not is_of_model(stored, suite.models[name]):
        return
    mean_and_std = [list(values) for values in model.normalisation]
    same = stored["sha256"] == weights_sha256(model.model) and stored.get("normalisation") == mean_and_std
    if stored["top1"] > result.top1 and not same:
        raise KdbenchError(
            f"{name} reaches {result.top1:.2f} %, but {target} already holds a teacher of {stored['top1']:.2f} %; "
            "remove that file first, or add --replace to `kdbench teachers import`, if it is to be replaced"
        )


def save_teacher(
    target: Path,
    suite: Suite,
    name: str,
    model: StagedModel,
    result: Evaluation,
    compute: Compute,
    *,
    facts: dict[str, Any],
) -> None:
    """Write a teacher with its accuracy, hash and `facts`; of several processes only the first one does."""
    spec, (_, machine) = suite.models[name], environment(compute)
    if compute.replica.rank > 0:
        return
    save_weights(
        target,
        model.model,
        {
            "suite": suite.name,
            "teacher": name,
            "timm": spec.timm,
            "model": spec.identity,
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


def guessing(images: int, classes: int, majority: float) -> float:
    """Top-1 in percent up to which a teacher is not clearly better than guessing.

    Three times the chance of equal classes (half the way to perfect where that is less), and no less than what one in a
    thousand of those who always answer with the largest class exceeds by luck.

    Args:
        images: that are evaluated.
        classes: how many there are.
        majority: share of the largest class, in [0, 1].
    """
    chance = 1 / classes
    return 100 * max(luck(images, majority), min(3 * chance, (1 + chance) / 2))


@dataclass(frozen=True)
class Verification:
    """What came of a stored teacher: the top-1 its file tells and the one measured; `error` says what is off."""

    teacher: str
    stored: float | None
    measured: float | None
    error: str | None


def verify_teacher(
    suite: Suite, name: str, compute: Compute, data_root: Path, on_images: OnImages | None = None
) -> Verification:
    """Read a stored teacher again: whole, finite, with the hash and, within `TOLERANCE`, the accuracy it tells."""
    compute.apply()
    classes = len(opening.open_dataset(suite.data, data_root).classes)
    try:
        teacher, record = load_teacher(suite, name, classes, compute, data_root)
    except KdbenchError as error:
        return Verification(name, None, None, str(error))
    test = _test_split(suite, name, data_root, compute)

    def tell(images: int) -> None:
        if on_images is not None:
            on_images(name, images, len(test))

    stored = record["top1"]
    measured = evaluate(teacher, test, suite.eval_batch_size, compute, on_images=tell).top1
    error = None
    if abs(measured - stored) > TOLERANCE:
        error = f"{measured:.2f} % is not the {stored:.2f} % it was stored with; is this its data and normalisation?"
    return Verification(name, stored, measured, error)


def _test_split(suite: Suite, name: str, data_root: Path, compute: Compute) -> EvaluationSet:
    return opening.open_evaluation(suite.data, data_root, "test", 0.0, suite.recipe_of(name).eval_crop, compute)


def _expected(suite: Suite, name: str, request: ImportRequest) -> Normalisation:
    """The mean and standard deviation that are asked for.

    Raises:
        KdbenchError: they have another number of channels than the suite's images, or timm does not know the model.
    """
    expects, channels = request.expects, len(suite.data.mean)
    if expects is None:
        return normalisation_of(suite) if request.source else pretrained_normalisation(suite, name)
    if expects == "suite":
        return normalisation_of(suite)
    if expects == "timm":
        found = timm_normalisation(suite, name)
        if found is None:
            raise KdbenchError(
                f"timm does not know {suite.models[name].timm}, and so no normalisation of it; give --mean and --std"
            )
    elif expects == "imagenet":
        found = timm.data.IMAGENET_DEFAULT_MEAN, timm.data.IMAGENET_DEFAULT_STD
    elif expects == "inception":
        found = timm.data.IMAGENET_INCEPTION_MEAN, timm.data.IMAGENET_INCEPTION_STD
    else:
        found = expects
    if {len(values) for values in found} != {channels}:
        option = f"--normalisation {expects}" if isinstance(expects, str) else "--mean and --std"
        raise KdbenchError(f"{option} is for {len(found[0])} channels; the images of {suite.name} have {channels}")
    return found


def _stored(path: Path) -> dict[str, Any] | None:
    """The metadata of the teacher in a file; None where there is none, or none that can be read."""
    try:
        return teacher_metadata(path)
    except KdbenchError:
        return None
