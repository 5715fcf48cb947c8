"""The records: one JSON file per cell and one per throughput measurement, the only thing reports are made of.

Layout of a results folder::

    manifest.json                                   the planned cells, written before anything runs
    cells/<pair>/<method>/s<seed>-<key>.json        a finished (or failed) cell
    throughput/<pair>/<method>-<key>.json           a throughput measurement
    environments/<id>.json                          what the records were measured on
    checkpoints/<pair>/<method>/s<seed>-<key>.safetensors   the student, with timm's own keys
    equal-time/<n>-epochs/                          the control trained for n epochs, laid out as this folder
    tracked/                                        what dashboards have got of it, see `kdbench.tracking`
    unfinished/<pair>/<method>/s<seed>-<key>.lock           held by the process that trains the cell
    unfinished/<pair>/<method>/s<seed>-<key>@<epoch>.<step>.pt    where an interrupted training goes on

This module imports neither torch nor timm.
"""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, NotRequired

# The type that pydantic can check records by; typing's own it can from Python 3.12 on.
from typing_extensions import TypedDict

from kdbench.errors import KdbenchError
from kdbench.files import read_json
from kdbench.results.consistency import broken_cell, broken_manifest, broken_throughput
from kdbench.values import Amount, Count, Inside, Line, Name, Number, Percent, Rate, Sha256, Title, misfit

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
    equal_time: NotRequired[dict[str, dict[str, Count]]]
    """By pair and method, the epochs of the control that take as long as the method does; its own are its recipe's."""


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


class CellRecord(TypedDict):
    """One student trained by one method (accuracies in percent, times in seconds)."""

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
    # The fields below are there when `status` is "done".
    top1: NotRequired[Percent]
    top5: NotRequired[Percent]
    best_top1: NotRequired[Percent]
    best_epoch: NotRequired[Count]
    """The best epoch of the split that `top1` is of, where that was read more than once."""
    reads: NotRequired[dict[str, Count]]
    """How often each split was read for this cell, by name."""
    correct: NotRequired[str]
    """Base64 of the packed bits (numpy.packbits, big endian), one bit an evaluated image, in order of the split."""
    evaluated: NotRequired[Count]
    curves: NotRequired[Curves]
    seconds: NotRequired[dict[Line, Amount]]
    extra_parameters: NotRequired[Count]
    inference_parameters: NotRequired[Count]
    """Those of the method without which the student does not reach `top1`; 0 where it answers alone."""
    checkpoint: NotRequired[Inside | None]


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


class ThroughputRecord(TypedDict):
    """The cost of one method on one pair, measured alone on the machine (timing protocol t/1)."""

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
    batch_size: NotRequired[Count]
    blocks: NotRequired[list[Rate]]
    """Training images/s of each block, in order."""
    control_blocks: NotRequired[list[Rate]]
    baseline_blocks: NotRequired[list[Rate]]
    """Images/s of the control and of the baseline in the same rounds: the ratios are taken round by round."""
    phases: NotRequired[dict[Line, Amount]]
    """Seconds a step by phase: data, teacher, student, method, backward, optimizer (a separate pass)."""
    phases_to_step: NotRequired[Amount]
    """Sum of the phases of a step over the time of one beside it that is not taken apart, median."""
    before: NotRequired[MachineState]
    after: NotRequired[MachineState]
    clean: NotRequired[bool | None]
    """Whether the machine was ours alone and not throttled in every round; None where it cannot tell."""
    unclean: NotRequired[list[Line]]
    """Why not."""
    repeated: NotRequired[Count]
    """Rounds measured again because they were not clean."""
    peak_memory: NotRequired[Count | None]
    """Bytes; None where the device does not tell."""
    extra_parameters: NotRequired[Count]
    inference_parameters: NotRequired[Count]
    flops: NotRequired[dict[Line, Amount]]
    """Per image: student (forward), teacher (forward, 0 when unused), train (3 x student + teacher, of every view)."""
    matmul_flops: NotRequired[Rate]
    """FLOP/s of a large matrix product on the same device in the same precision."""


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


def today() -> str:
    """The day that goes into a record, in UTC."""
    return datetime.now(UTC).date().isoformat()


class Results:
    """A results folder: where each record lives, and reading them all in a fixed order.

    A record that is damaged, contradicts itself or lies where another belongs is an error, planned or not: a table that
    left it out would look as if it had never been there.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def manifest_path(self) -> Path:
        return self.folder / "manifest.json"

    def cell_path(self, pair: str, method: str, seed: int, key: str) -> Path:
        return self.folder.joinpath("cells", slug(pair), method, f"s{seed}-{key[:12]}.json")

    def checkpoint_path(self, pair: str, method: str, seed: int, key: str) -> Path:
        return self.folder.joinpath("checkpoints", slug(pair), method, f"s{seed}-{key[:12]}.safetensors")

    def unfinished_folder(self, pair: str, method: str) -> Path:
        return self.folder / "unfinished" / slug(pair) / method

    def is_finished(self, pair: str, method: str, seed: int, key: str) -> bool:
        """Whether a cell needs no further run: it is done, or known not to be possible."""
        path = self.cell_path(pair, method, seed, key)
        return path.is_file() and read_record(path)["status"] in FINISHED

    def lock_path(self, pair: str, method: str, seed: int, key: str) -> Path:
        return self.unfinished_folder(pair, method) / f"s{seed}-{key[:12]}.lock"

    @property
    def measuring_lock(self) -> Path:
        return self.folder / "unfinished" / "throughput.lock"

    def throughput_path(self, pair: str, method: str, key: str) -> Path:
        return self.folder / "throughput" / slug(pair) / f"{method}-{key[:12]}.json"

    def environment_path(self, environment: str) -> Path:
        return self.folder / "environments" / f"{environment}.json"

    def at_epochs(self, epochs: int) -> "Results":
        """The folder of the control that was trained for other epochs than its recipe's."""
        return Results(self.folder / "equal-time" / f"{epochs}-epochs")

    def manifest(self) -> Manifest:
        """The manifest of the last run into this folder.

        Raises:
            KdbenchError: the folder holds no manifest, or a broken one.
        """
        if not self.manifest_path.is_file():
            raise KdbenchError(f"no results in {self.folder}; run `kdbench run --out {self.folder}` first")
        return _whole(self.manifest_path, Manifest, broken_manifest)

    def cells(self) -> Iterator[CellRecord]:
        """Every cell record, sorted by path.

        Raises:
            KdbenchError: one is broken.
        """
        for path in _files(self.folder / "cells", depth=2):
            record = read_record(path)
            _refuse_stray(path, self.cell_path(record["pair"], record["method"], record["seed"], record["key"]))
            yield record

    def throughput(self) -> Iterator[ThroughputRecord]:
        """Every throughput record, sorted by path.

        Raises:
            KdbenchError: one is broken.
        """
        for path in _files(self.folder / "throughput", depth=1):
            record: ThroughputRecord = _whole(path, ThroughputRecord, broken_throughput)
            _refuse_stray(path, self.throughput_path(record["pair"], record["method"], record["key"]))
            yield record

    def environments(self) -> dict[str, dict[str, Any]]:
        """Environment descriptions by id.

        Raises:
            KdbenchError: one is broken.
        """
        found = {}
        for path in _files(self.folder / "environments", depth=0):
            found[path.stem] = read_json(path)
            if problem := misfit(Environment, found[path.stem]):
                raise KdbenchError(f"{path} describes no environment: {problem}; move it away and run again")
        return found


def slug(name: str) -> str:
    """The name of a pair or model in a path: no colon (illegal on some systems) and no slash."""
    return name.replace(":", "--").replace("/", "_")


def _files(folder: Path, depth: int) -> Iterator[Path]:
    """The JSON files that lie `depth` folders down, in the order of their paths; a glob takes twice as long.

    Raises:
        KdbenchError: a file lies where a folder belongs.
    """
    try:
        paths = sorted(folder.iterdir())
    except OSError as error:
        if not folder.exists():
            # Something above it is no folder, which whoever writes there will tell.
            return
        raise KdbenchError(f"cannot list {folder}: {error.strerror or error}; move it away and run again") from error
    for path in paths:
        if depth and (path.suffix == ".json" or path.is_dir()):
            yield from _files(path, depth - 1)
        elif path.suffix == ".json":
            yield path


def read_record(path: Path) -> CellRecord:
    """The record of a cell.

    Raises:
        KdbenchError: the file is unreadable, no record of this schema, or broken.
    """
    return _whole(path, CellRecord, broken_cell)


def _whole(path: Path, kind: Any, broken: Callable[[Any], str | None]) -> Any:
    record = read_json(path)
    if not isinstance(record, dict) or record.get("schema") != SCHEMA:
        raise KdbenchError(f"{path} is not a record of schema {SCHEMA}; move it away and run again")
    if problem := misfit(kind, record) or broken(record):
        raise KdbenchError(f"{path} is broken: {problem}; move it away and run again")
    return record


def _refuse_stray(path: Path, home: Path) -> None:
    if path != home:
        raise KdbenchError(f"{path} is the record that belongs to {home}; move it away and run again")
