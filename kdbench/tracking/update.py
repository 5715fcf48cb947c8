"""Writing what has changed of a run since it was last written, once or as long as the run goes on."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

# The type that pydantic can check a ledger by; typing's own it can from Python 3.12 on.
from typing_extensions import TypedDict

from kdbench.errors import KdbenchError
from kdbench.files import read_json, write_json
from kdbench.results.folder import Results
from kdbench.results.locks import claimed
from kdbench.tracking.cells import TrackedCell, tracked
from kdbench.values import misfit


class Sink(Protocol):
    """What shows cells as runs of its own.

    Attributes:
        target: where a cell that was written need not be written again.
        hint: how to look at what was written.
    """

    @property
    def target(self) -> str: ...

    @property
    def hint(self) -> str: ...

    def write(self, cell: TrackedCell) -> None:
        """Write all of a cell in place of what was written of it before."""

    def close(self) -> None:
        """End the writing and free what it holds."""


class _Content(TypedDict):
    id: str
    cells: dict[str, str]


class Ledger:
    """What a sink has got last of each cell of a results folder: one JSON file, so that nothing is written twice.

    Attributes:
        id: a random name, no other ledger's.
    """

    def __init__(self, path: Path) -> None:
        """Raises:
        KdbenchError: the file is broken, or there is none and it cannot be written.
        """
        self._path = path
        self._content = _Content(id=uuid.uuid4().hex[:8], cells={})
        if path.is_file():
            self._content = read_json(path)
            if problem := misfit(_Content, self._content):
                raise KdbenchError(f"{path} is broken: {problem}; remove its folder, and all is written anew")
        else:
            self.save()
        self.id = self._content["id"]

    def has(self, cell: TrackedCell, target: str) -> bool:
        """Whether the cell was written to the target as it is."""
        return self._content["cells"].get(cell.name) == f"{target} {cell.fingerprint}"

    def note(self, cell: TrackedCell, target: str) -> None:
        """Remember that a cell was written."""
        self._content["cells"][cell.name] = f"{target} {cell.fingerprint}"

    def save(self) -> None:
        """Write what is remembered.

        Raises:
            KdbenchError: the folder cannot be written.
        """
        write_json(self._path, self._content)


@contextmanager
def opened(folder: Path, name: str) -> Iterator[Ledger]:
    """The ledger of the sink `name`, which is this process's alone.

    Raises:
        KdbenchError: another process has it, or the folder cannot be written.
    """
    lock = folder / f"{name}.lock"
    try:
        with claimed([lock]) as held:
            if not held:
                raise KdbenchError(f"another `kdbench track` is at work in {folder}; let it end, or choose --out")
            yield Ledger(folder / f"{name}.json")
    except OSError as error:
        raise KdbenchError(f"cannot write {folder}: {error.strerror or error}; choose another with --out") from error


def update(results: Results, sink: Sink, ledger: Ledger) -> tuple[int, int, int]:
    """Write every cell that has changed.

    Returns:
        How many were written, how many had been as they are, and how many records there will be more.

    Raises:
        KdbenchError: the results are broken, or the sink refuses.
    """
    state, written, unchanged = tracked(results), 0, 0
    try:
        for cell in state.cells:
            if ledger.has(cell, sink.target):
                unchanged += 1
                continue
            sink.write(cell)
            ledger.note(cell, sink.target)
            written += 1
    finally:
        if written:
            ledger.save()
    return written, unchanged, state.waiting
