"""The results folder: where each file of a run lies, and reading its records in a fixed order.

Layout::

    manifest.json                                   the planned cells, written before anything runs
    cells/<pair>/<method>/s<seed>-<key>.json        the record of a finished (or failed) cell
    throughput/<pair>/<method>-<key>.json           the record of a throughput measurement
    environments/<id>.json                          what the records were measured on
    checkpoints/<pair>/<method>/s<seed>-<key>.safetensors   the trained student, with timm's own keys
    equal-time/<n>-epochs/                          the control trained for n epochs, laid out as this folder
    tracked/                                        what was sent to dashboards, see `kdbench.tracking`
    unfinished/<pair>/<method>/s<seed>-<key>.lock   held by the process that trains the cell
    unfinished/<pair>/<method>/s<seed>-<key>@<epoch>.<step>.pt    a checkpoint of an interrupted training
"""

import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from shlex import quote
from typing import Any, NamedTuple

from kdbench.errors import KdbenchError
from kdbench.files import PART, read_json
from kdbench.names import slug
from kdbench.results.schema import (
    FINISHED,
    SCHEMA,
    CellRecord,
    Environment,
    Manifest,
    ThroughputRecord,
    broken_cell,
    broken_manifest,
    broken_throughput,
)
from kdbench.values import misfit


class CellId(NamedTuple):
    """A cell: one method on one pair with one seed; `key` is the hash of all that determines its result."""

    pair: str
    method: str
    seed: int
    key: str

    @property
    def stem(self) -> str:
        """What the names of its files begin with, in the folder of its pair and method."""
        return f"s{self.seed}-{self.key[:12]}"

    @property
    def folder(self) -> Path:
        """The folder of its pair and method, below that of a kind of file."""
        return Path(slug(self.pair), self.method)


def cell_id(record: CellRecord) -> CellId:
    """The cell that a record is of."""
    return CellId(record["pair"], record["method"], record["seed"], record["key"])


class Position(NamedTuple):
    """Where in a training: the number of finished epochs, and of finished steps of the next epoch."""

    epoch: int
    step: int


START = Position(0, 0)
_CHECKPOINT = re.compile(r".*@(\d+)\.(\d+)\.pt")


class Results:
    """A results folder.

    A record that is damaged, contradicts itself or lies where another belongs is an error, planned or not: a table that
    left it out would look as if it had never been there.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def manifest_path(self) -> Path:
        return self.folder / "manifest.json"

    def record_path(self, cell: CellId) -> Path:
        return self.folder / "cells" / cell.folder / f"{cell.stem}.json"

    def student_path(self, cell: CellId) -> Path:
        return self.folder / "checkpoints" / cell.folder / f"{cell.stem}.safetensors"

    def lock_path(self, cell: CellId) -> Path:
        return self.folder / "unfinished" / cell.folder / f"{cell.stem}.lock"

    @property
    def measuring_lock(self) -> Path:
        """The lock that is held by the run that measures throughput."""
        return self.folder / "unfinished" / "throughput.lock"

    def throughput_path(self, pair: str, method: str, key: str) -> Path:
        return self.folder / "throughput" / slug(pair) / f"{method}-{key[:12]}.json"

    def environment_path(self, environment: str) -> Path:
        return self.folder / "environments" / f"{environment}.json"

    def at_epochs(self, epochs: int) -> "Results":
        """The folder of the control that was trained for other epochs than its recipe's."""
        return Results(self.folder / "equal-time" / f"{epochs}-epochs")

    def checkpoint_path(self, cell: CellId, position: Position) -> Path:
        """Where a checkpoint of an unfinished training belongs; the name says where in the training it was taken."""
        return self.lock_path(cell).with_name(f"{cell.stem}@{position.epoch}.{position.step}.pt")

    def checkpoints(self, cell: CellId) -> dict[Position, Path]:
        """The checkpoints that there are of an unfinished training."""
        paths = self.lock_path(cell).parent.glob(f"{cell.stem}@*.pt")
        matches = {path: _CHECKPOINT.fullmatch(path.name) for path in paths}
        return {Position(int(match[1]), int(match[2])): path for path, match in matches.items() if match}

    def remove_checkpoints(self, cell: CellId, keep: Position | None = None) -> None:
        """Remove the checkpoints of a cell but one, and the files of it that a killed process was writing."""
        useless = [path for position, path in self.checkpoints(cell).items() if position != keep]
        for path in (self.lock_path(cell), self.record_path(cell), self.student_path(cell)):
            useless += path.parent.glob(f".{cell.stem}*{PART}")
        for path in useless:
            # One that stays is in nobody's way.
            with suppress(OSError):
                path.unlink()

    def is_finished(self, cell: CellId) -> bool:
        """Whether a cell needs no further run: it is done, or known not to be possible."""
        path = self.record_path(cell)
        return path.is_file() and read_record(path)["status"] in FINISHED

    def manifest(self) -> Manifest:
        """The manifest of the last run into this folder.

        Raises:
            KdbenchError: the folder holds no manifest, or a broken one.
        """
        if not self.manifest_path.is_file():
            raise KdbenchError(f"no results in {self.folder}; run `kdbench run --out {quote(str(self.folder))}` first")
        return _whole(self.manifest_path, Manifest, broken_manifest)

    def cells(self) -> Iterator[CellRecord]:
        """Every cell record, sorted by path.

        Raises:
            KdbenchError: one is broken.
        """
        for path in _files(self.folder / "cells", depth=2):
            record = read_record(path)
            _refuse_stray(path, self.record_path(cell_id(record)))
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
        environments_by_id = {}
        for path in _files(self.folder / "environments", depth=0):
            environments_by_id[path.stem] = read_json(path)
            if problem := misfit(Environment, environments_by_id[path.stem]):
                raise KdbenchError(f"{path} describes no environment: {problem}; move it away and run again")
        return environments_by_id


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
