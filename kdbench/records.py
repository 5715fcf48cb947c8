"""The records: one JSON file per cell and one per throughput measurement, the only thing reports are made of.

Layout of a results folder::

    manifest.json                                   the planned cells, written before anything runs
    cells/<pair>/<method>/s<seed>-<key>.json        a finished (or failed) cell
    throughput/<pair>/<method>-<key>.json           a throughput measurement
    environments/<id>.json                          what the records were measured on
    checkpoints/<pair>/<method>/s<seed>-<key>.safetensors   the student, with timm's own keys
    equal-time/<n>-epochs/                          the control trained for n epochs, laid out as this folder
    unfinished/<pair>/<method>/s<seed>-<key>.lock           held by the process that trains the cell
    unfinished/<pair>/<method>/s<seed>-<key>@<epoch>.<step>.pt    where an interrupted training goes on

This module imports neither torch nor timm.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict

from kdbench.errors import KdbenchError

SCHEMA = 1
TIMING_PROTOCOL = "t/1"

PART = ".part"
"""How a file ends that is being written; one that stays behind is of a process that was killed."""

Status = Literal["done", "failed", "oom", "diverged", "timeout", "unsupported", "interrupted"]
FINISHED: frozenset[Status] = frozenset({"done", "unsupported"})
"""How a cell ends that needs no further run: it is done, or known not to be possible."""
Split = Literal["test", "val"]
"""What is evaluated: the test split after training on all training images, or a held-out share of those."""
Role = Literal["control", "baseline", "method"]
"""`control`: trained without a teacher; `baseline`: the method every other is also compared with."""


class PlannedCell(TypedDict):
    """One cell of the manifest."""

    key: str
    pair: str
    method: str
    seed: int


class PlannedMeasurement(TypedDict):
    """One throughput measurement of the manifest."""

    key: str
    pair: str
    method: str


class PublishedNames(TypedDict):
    """What the published tables call the things of a run; a model or method without a name there is left out."""

    protocol: str | None
    models: dict[str, str]
    methods: dict[str, list[str]]


class TunedNote(TypedDict):
    """The file of tuned hyperparameters that a run used, and how many draws every method had."""

    file: str
    sha256: str
    trials: int


class Manifest(TypedDict):
    """What a run set out to do; a cell that is planned here and has no record is missing."""

    schema: int
    suite: str
    protocol: str
    command: str
    methods: list[str]
    roles: dict[str, Role]
    pairs: list[str]
    hetero: list[str]
    """The heterogeneous ones of `pairs`."""
    seeds: list[int]
    cells: list[PlannedCell]
    throughput: list[PlannedMeasurement]
    published: NotRequired[PublishedNames]
    differs: NotRequired[dict[str, str]]
    """The methods of the open division, with what each does that the closed one fixes."""
    tuned: NotRequired[TunedNote]
    equal_time: NotRequired[dict[str, dict[str, int]]]
    """By pair and method, the epochs of the control that take as long as the method does; its own are its recipe's."""


class ModelRecord(TypedDict):
    """A model of a pair as the suite names it; `parameters` is known once it was built."""

    name: str
    timm: str
    kind: str
    parameters: NotRequired[int]


class TeacherRecord(ModelRecord):
    """The frozen teacher: which weights, and how good they are on the test split."""

    sha256: str
    top1: float


class Curves(TypedDict):
    """Values by epoch; `epoch` counts finished epochs, accuracies are there for some of them, or none."""

    epoch: list[int]
    lr: list[float]
    loss: dict[str, list[float]]
    eval_epoch: list[int]
    eval_top1: list[float]
    eval_split: Split
    """What `eval_top1` is of."""


class CellRecord(TypedDict):
    """One student trained by one method (accuracies in percent, times in seconds)."""

    schema: int
    key: str
    suite: str
    protocol: str
    pair: str
    hetero: bool
    teacher: TeacherRecord
    student: ModelRecord
    method: str
    role: Role
    differs: NotRequired[str]
    """What a method of the open division does that the closed one fixes."""
    hyperparameters: dict[str, Any]
    preset: str | None
    tuned: NotRequired[str]
    """File and hash of the tuned values among the hyperparameters."""
    seed: int
    split: Split
    status: Status
    error: str | None
    environment: str
    date: NotRequired[str]
    """The day the record was made (UTC, ISO 8601)."""
    # The fields below are there when `status` is "done".
    top1: NotRequired[float]
    top5: NotRequired[float]
    best_top1: NotRequired[float]
    best_epoch: NotRequired[int]
    """The best epoch of the split that `top1` is of, where that was read more than once."""
    reads: NotRequired[dict[str, int]]
    """How often each split was read for this cell, by name."""
    correct: NotRequired[str]
    """Base64 of the packed bits (numpy.packbits, big endian), one bit an evaluated image, in order of the split."""
    evaluated: NotRequired[int]
    curves: NotRequired[Curves]
    seconds: NotRequired[dict[str, float]]
    extra_parameters: NotRequired[int]
    inference_parameters: NotRequired[int]
    """Those of the method without which the student does not reach `top1`; 0 where it answers alone."""
    checkpoint: NotRequired[str | None]


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

    schema: int
    key: str
    timing_protocol: str
    suite: str
    pair: str
    method: str
    role: Role
    status: Status
    error: str | None
    environment: str
    date: NotRequired[str]
    batch_size: NotRequired[int]
    blocks: NotRequired[list[float]]
    """Training images/s of each block, in order."""
    control_blocks: NotRequired[list[float]]
    baseline_blocks: NotRequired[list[float]]
    """Images/s of the control and of the baseline in the same rounds: the ratios are taken round by round."""
    phases: NotRequired[dict[str, float]]
    """Seconds a step by phase: data, teacher, student, method, backward, optimizer (a separate pass)."""
    phases_to_step: NotRequired[float]
    """Sum of the phases of a step over the time of one beside it that is not taken apart, median."""
    before: NotRequired[MachineState]
    after: NotRequired[MachineState]
    clean: NotRequired[bool | None]
    """Whether the machine was ours alone and not throttled in every round; None where it cannot tell."""
    unclean: NotRequired[list[str]]
    """Why not."""
    repeated: NotRequired[int]
    """Rounds measured again because they were not clean."""
    peak_memory: NotRequired[int | None]
    """Bytes; None where the device does not tell."""
    extra_parameters: NotRequired[int]
    inference_parameters: NotRequired[int]
    flops: NotRequired[dict[str, float]]
    """Per image: student (forward), teacher (forward, 0 when unused), train (3 x student + teacher, of every view)."""
    matmul_flops: NotRequired[float]
    """FLOP/s of a large matrix product on the same device in the same precision."""


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no spaces: equal values give equal bytes."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def content_key(value: Any) -> str:
    """SHA-256 (hex) of the canonical JSON of `value`."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def today() -> str:
    """The day that goes into a record, in UTC."""
    return datetime.now(UTC).date().isoformat()


def write_json(path: Path, value: Any) -> None:
    """Write atomically: readers see the old file or the new one, never a part of it."""
    write_bytes(path, (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Atomic write of `content` to `path`, its folder made as needed.

    Raises:
        KdbenchError: the folder cannot be written (missing rights, full disk).
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".", suffix=PART, delete=False) as file:
            temporary = Path(file.name)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except OSError as error:
        if temporary is not None:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
        raise KdbenchError(f"cannot write {path}: {error.strerror or error}; free space or choose --out") from error


def read_json(path: Path) -> Any:
    """Read one JSON file.

    Raises:
        KdbenchError: the file is unreadable or not JSON.
    """
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise KdbenchError(f"cannot read {path}: {error}; move it away and run again") from error


class Results:
    """A results folder: where each record lives, and reading them all in a fixed order."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def manifest_path(self) -> Path:
        return self.folder / "manifest.json"

    def cell_path(self, pair: str, method: str, seed: int, key: str) -> Path:
        return self.folder / "cells" / slug(pair) / method / f"s{seed}-{key[:12]}.json"

    def checkpoint_path(self, pair: str, method: str, seed: int, key: str) -> Path:
        return self.folder / "checkpoints" / slug(pair) / method / f"s{seed}-{key[:12]}.safetensors"

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
            KdbenchError: the folder holds no manifest.
        """
        if not self.manifest_path.is_file():
            raise KdbenchError(f"no results in {self.folder}; run `kdbench run --out {self.folder}` first")
        return read_json(self.manifest_path)

    def cells(self) -> Iterator[CellRecord]:
        """Every cell record, sorted by path."""
        return map(read_record, _files(self.folder / "cells", depth=2))

    def throughput(self) -> Iterator[ThroughputRecord]:
        """Every throughput record, sorted by path."""
        return map(read_record, _files(self.folder / "throughput", depth=1))

    def environments(self) -> dict[str, dict[str, Any]]:
        """Environment descriptions by id."""
        return {path.stem: read_json(path) for path in sorted((self.folder / "environments").glob("*.json"))}


def slug(name: str) -> str:
    """The name of a pair or model in a path: no colon (illegal on some systems) and no slash."""
    return name.replace(":", "--").replace("/", "_")


def _files(folder: Path, depth: int) -> Iterator[Path]:
    """The JSON files that lie `depth` folders down, in the order of their paths; a glob takes twice as long."""
    try:
        paths = sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return
    for path in paths:
        if depth:
            yield from _files(path, depth - 1)
        elif path.suffix == ".json":
            yield path


def read_record(path: Path) -> Any:
    """The record of a cell or of a throughput measurement.

    Raises:
        KdbenchError: the file is unreadable, or no record of this schema.
    """
    record = read_json(path)
    if not isinstance(record, dict) or record.get("schema") != SCHEMA:
        raise KdbenchError(f"{path} is not a record of schema {SCHEMA}; move it away and run again")
    return record
