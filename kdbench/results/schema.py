"""The records: what a run plans, and what came of each cell and measurement.

A record of the right types may still say two things at once, so beside each type stands a function that tells in a few
words what is wrong with a record, or None.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal, NotRequired

# The type that pydantic can check records by; typing's own it can from Python 3.12 on.
from typing_extensions import TypedDict

from kdbench.errors import KdbenchError
from kdbench.values import Amount, Count, Inside, Line, Name, Number, Percent, Rate, Sha256, Title, unequal

SCHEMA = 1
TIMING_PROTOCOL = "t/1"

Status = Literal["done", "failed", "oom", "diverged", "timeout", "unsupported", "interrupted"]
FINISHED: frozenset[Status] = frozenset({"done", "unsupported"})
"""How a cell ends that needs no further run: it is done, or known not to be possible."""
Split = Literal["test", "val"]
"""What is evaluated: the test split after training on all training images, or a held-out share of those."""
Role = Literal["control", "baseline", "method"]
"""`control`: trained without a teacher; `baseline`: the method every other is also compared with."""


class PlannedCell(TypedDict):
    """One cell of the manifest."""

    key: Sha256
    pair: Title
    method: Name
    seed: Count


class PlannedMeasurement(TypedDict):
    """One throughput measurement of the manifest."""

    key: Sha256
    pair: Title
    method: Name


class PublishedNames(TypedDict):
    """What the published tables call the things of a run; a model or method without a name there is left out."""

    protocol: Line | None
    models: dict[str, str]
    methods: dict[str, list[str]]


class TunedNote(TypedDict):
    """The file of tuned hyperparameters that a run used, and how many draws every method had."""

    file: Line
    sha256: Sha256
    trials: Count


class FrozenNote(TypedDict):
    """The plan that a run keeps to: its file, its hash, and when it was frozen (UTC, ISO 8601)."""

    file: Line
    sha256: Sha256
    created: Line


class RaceNote(TypedDict):
    """A race: the rounds (a seed on every pair) that are planned, and after which of them each method was dropped."""

    rounds: Count
    dropped: dict[Name, Count]


class MethodNote(TypedDict):
    """What a method says of itself; fields are empty where it says nothing."""

    kind: Line
    paper: Line
    venue: Line
    summary: Line
    source: Line
    """Where its class is: `package.module:Class` or a file."""


class Setting(TypedDict):
    """What a run trains on and how, so that a report can tell it without the suite."""

    description: Line
    """The suite's, of itself."""
    data: Line
    """The name of the data set."""
    teacher_data: Line
    """What the teachers were trained on."""
    classes: Count
    train_images: Count
    test_images: Count
    """Of the split that is evaluated."""
    image_size: Count
    epochs: dict[str, Count]
    """By student, as `recipes`."""
    recipes: dict[str, Line]
    """How each student is trained, in words."""


class Manifest(TypedDict):
    """What a run set out to do; a cell that is planned here and has no record is missing."""

    schema: Count
    suite: Name
    protocol: Line
    command: str
    methods: list[Name]
    roles: dict[str, Role]
    pairs: list[Title]
    hetero: list[str]
    """The heterogeneous ones of `pairs`."""
    seeds: list[Count]
    cells: list[PlannedCell]
    throughput: list[PlannedMeasurement]
    published: NotRequired[PublishedNames]
    differs: NotRequired[dict[str, str]]
    """The methods of the open division, with what each does that the closed one fixes."""
    altered: NotRequired[dict[str, list[Line]]]
    """The hyperparameters that are not the suite's, tuned or set by hand, by method, as `name=value`."""
    tuned: NotRequired[TunedNote]
    frozen: NotRequired[FrozenNote]
    race: NotRequired[RaceNote]
    """Where methods that were shown worse than the best were dropped; their later cells are not planned."""
    equal_time: NotRequired[dict[str, dict[str, Count]]]
    """By pair and method, the epochs of the control that take as long as the method does; its own are its recipe's."""
    setting: NotRequired[Setting]
    notes: NotRequired[dict[str, MethodNote]]
    """By method."""


def broken_manifest(manifest: Manifest) -> str | None:
    """All that is planned is about the methods, pairs and seeds that it lists, and nothing is there twice."""
    methods, pairs, seeds = manifest["methods"], manifest["pairs"], manifest["seeds"]
    cells = [(cell["pair"], cell["method"], cell["seed"]) for cell in manifest["cells"]]
    timings = [(one["pair"], one["method"]) for one in manifest["throughput"]]
    keys = [one["key"] for one in (*manifest["cells"], *manifest["throughput"])]
    for what, names in (("methods", methods), ("pairs", pairs), ("seeds", seeds), ("cells", cells), ("keys", keys)):
        if len(set(names)) < len(names):
            return f"of its {what} one is there twice"
    roles = list(manifest["roles"].values())
    if set(manifest["roles"]) != set(methods) or roles.count("control") > 1 or roles.count("baseline") > 1:
        return "not every method has one role, and not every role one method"
    if not set(manifest["hetero"]) <= set(pairs):
        return "a heterogeneous pair is not among its pairs"
    for pair, method, seed in [*cells, *((*pair_method, None) for pair_method in timings)]:
        if pair not in pairs or method not in methods or not (seed is None or seed in seeds):
            return f"it plans {method} on {pair}, seed {seed}, which it does not list"
    control = next((name for name, role in manifest["roles"].items() if role == "control"), None)
    for pair, by_method in manifest.get("equal_time", {}).items():
        if pair not in pairs or not set(by_method) <= set(methods) or control not in by_method:
            return f"its epochs of equal time on {pair} are not of its methods"
    return None


class ModelRecord(TypedDict):
    """A model of a pair as the suite names it; `parameters` is known once it was built."""

    name: Title
    timm: Line
    kind: Line
    parameters: NotRequired[Count]


class TeacherRecord(ModelRecord):
    """The frozen teacher: which weights, and how good they are on the test split."""

    sha256: Line
    top1: Percent


class Curves(TypedDict):
    """Values by epoch; `epoch` counts finished epochs, accuracies are there for some of them, or none."""

    epoch: list[Count]
    lr: list[Number]
    loss: dict[Line, list[float]]
    eval_epoch: list[Count]
    eval_top1: list[Percent]
    eval_split: Split
    """What `eval_top1` is of."""


def unequal_curves(curves: Curves) -> str | None:
    """Curves of one kind are as long as each other."""
    return unequal({"epoch": curves["epoch"], "lr": curves["lr"], **curves["loss"]}) or unequal(
        {name: curves[name] for name in ("eval_epoch", "eval_top1")}
    )


class ExtremeRecord(TypedDict):
    """The loss of the first step, and the largest loss and gradient norm (before clipping) with their steps, from 1."""

    first_loss: Number
    loss: Number
    loss_step: Count
    gradient: Amount
    gradient_step: Count


class CellFindings(TypedDict, total=False):
    """What the record of a finished cell holds beside the plan; accuracies in percent, times in seconds."""

    top1: Percent
    top5: Percent
    majority: Percent
    """Top-1 of who always answers with the largest class of the split that `top1` is of."""
    best_top1: Percent
    best_epoch: Count
    """The best epoch of the split that `top1` is of, where that was read more than once."""
    reads: dict[str, Count]
    """How often each split was read for this cell, by name."""
    correct: str
    """Base64 of the packed bits (numpy.packbits, big endian), one bit an evaluated image, in order of the split."""
    evaluated: Count
    class_images: list[Count]
    """Evaluated images of each class, in the order of the classes."""
    class_hits: list[Count]
    """Those of them that were right."""
    curves: Curves
    extremes: ExtremeRecord
    seconds: dict[Line, Amount]
    extra_parameters: Count
    inference_parameters: Count
    """Those of the method without which the student does not reach `top1`; 0 where it answers alone."""
    checkpoint: Inside | None


class CellRecord(CellFindings):
    """One student trained by one method; the findings are there when `status` is "done"."""

    schema: Count
    key: Sha256
    suite: Name
    protocol: Line
    pair: Title
    hetero: bool
    teacher: TeacherRecord
    student: ModelRecord
    method: Name
    role: Role
    differs: NotRequired[str]
    """What a method of the open division does that the closed one fixes."""
    hyperparameters: dict[str, Any]
    preset: str | None
    tuned: NotRequired[str]
    """File and hash of the tuned values among the hyperparameters."""
    seed: Count
    split: Split
    status: Status
    error: str | None
    environment: Line
    date: NotRequired[Line]
    """The day the record was made (UTC, ISO 8601)."""


def broken_cell(record: CellRecord) -> str | None:
    """A finished cell has an accuracy and whole curves."""
    if record["status"] != "done":
        return None
    if "top1" not in record or "evaluated" not in record or "curves" not in record:
        missing = next(name for name in ("top1", "evaluated", "curves") if name not in record)
        return f"it is done and has no {missing}"
    hits, images = record.get("class_hits", []), record.get("class_images", [])
    if len(hits) != len(images) or any(hit > count for hit, count in zip(hits, images, strict=False)):
        return "its hits by class are not those of its images"
    return unequal_curves(record["curves"])


class MachineState(TypedDict):
    """A machine at one moment; None where it does not tell, GPU fields on NVIDIA only."""

    load: float | None
    """Average over a minute of processes that run or wait, ours among them."""
    others: float | None
    """Share of all cores that other processes take, in [0, 1]."""
    mhz: float | None
    governor: str | None
    gpu_mhz: NotRequired[int]
    gpu_celsius: NotRequired[int]
    gpu_watts: NotRequired[float]
    gpu_throttled: NotRequired[list[str]]
    """Why the clock is held down."""
    gpu_others: NotRequired[int]
    """Processes beside ours."""


class ThroughputFindings(TypedDict, total=False):
    """What the record of a finished measurement holds beside the plan."""

    batch_size: Count
    blocks: list[Rate]
    """Training images/s of each block, in order."""
    control_blocks: list[Rate]
    baseline_blocks: list[Rate]
    """Images/s of the control and of the baseline in the same rounds: the ratios are taken round by round."""
    phases: dict[Line, Amount]
    """Seconds a step by phase: data, teacher, student, method, backward, optimizer (a separate pass)."""
    phases_to_step: Amount
    """Sum of the phases of a step over the time of one beside it that is not taken apart, median."""
    before: MachineState
    after: MachineState
    clean: bool | None
    """Whether the machine was ours alone and not throttled in every round; None where it cannot tell."""
    unclean: list[Line]
    """Why not."""
    repeated: Count
    """Rounds measured again because they were not clean."""
    peak_memory: Count | None
    """Bytes; None where the device does not tell."""
    extra_parameters: Count
    inference_parameters: Count
    flops: dict[Line, Amount]
    """Per image: student (forward), teacher (forward, 0 when unused), train (3 x student + teacher, of every view)."""
    matmul_flops: Rate
    """FLOP/s of a large matrix product on the same device in the same precision."""


class ThroughputRecord(ThroughputFindings):
    """The cost of one method on one pair, measured alone on the machine (timing protocol t/1); findings if "done"."""

    schema: Count
    key: Sha256
    timing_protocol: Line
    suite: Name
    pair: Title
    method: Name
    role: Role
    status: Status
    error: str | None
    environment: Line
    date: NotRequired[Line]


def broken_throughput(record: ThroughputRecord) -> str | None:
    """A finished measurement has blocks, and those of control and baseline are of the same rounds."""
    if record["status"] != "done":
        return None
    for name in ("batch_size", "blocks"):
        if not record.get(name):
            return f"it is done and has no {name}"
    rounds = {name: record.get(name) or [] for name in ("blocks", "control_blocks", "baseline_blocks")}
    return unequal({name: blocks for name, blocks in rounds.items() if blocks})


class GitState(TypedDict):
    """The tree that the package ran from; None where it was none."""

    revision: Line | None
    dirty: bool | None


class Environment(TypedDict, total=False):
    """What of an environment's description is looked at; all of it is shown."""

    git: GitState
    device: Line
    torch: Line
    timm: Line
    precision: Line


def is_planned(record: CellRecord | ThroughputRecord, planned: Mapping[str, PlannedCell | PlannedMeasurement]) -> bool:
    """Whether a record is one of those `planned`, by key; those of other settings are not.

    Raises:
        KdbenchError: its key is planned for something else.
    """
    plan = planned.get(record["key"])
    if plan is None:
        return False
    for name, value in plan.items():
        if record.get(name) != value:
            raise KdbenchError(
                f"record {record['key'][:12]} is of {name} {record.get(name)}, the manifest plans it for {value}; "
                "run again into another folder with --out"
            )
    return True


def today() -> str:
    """The day that goes into a record, in UTC."""
    return datetime.now(UTC).date().isoformat()
