"""Finds the files of a results folder that nothing needs any more."""

from collections.abc import Iterator
from pathlib import Path

from kdbench.errors import KdbenchError
from kdbench.files import PART
from kdbench.results.folder import CellId, Results, cell_id
from kdbench.results.locks import is_claimed
from kdbench.results.schema import FINISHED


def leftovers(results: Results, unplanned: bool = False) -> list[tuple[Path, str]]:
    """Files that can go, each with the reason.

    Args:
        unplanned: also the records, students and checkpoints of cells that the last run into the folder did not plan:
            those of other settings, seeds, pairs or versions of a method.

    Raises:
        KdbenchError: the folder holds no run, or a run is at work in it.
    """
    planned = {CellId(**cell) for cell in results.manifest()["cells"]}
    busy = sum(map(is_claimed, (results.folder / "unfinished").rglob("*.lock")))
    if busy:
        raise KdbenchError(
            f"a run is at work in {results.folder} ({busy} locks are held); clean it when that has ended"
        )
    return sorted(_found(results, planned, unplanned))


def _found(results: Results, planned: set[CellId], unplanned: bool) -> Iterator[tuple[Path, str]]:
    for path in results.folder.rglob(f".*{PART}"):
        yield path, "was being written when the process was killed"
    for path in (results.folder / "unfinished").rglob("*.lock"):
        yield path, "nobody holds this lock"
    kept: set[Path] = set()
    finished: set[str] = set()
    for record in results.cells():
        cell = cell_id(record)
        if record["status"] in FINISHED:
            finished.add(cell.stem)
        if unplanned and cell not in planned:
            yield results.record_path(cell), "the last run did not plan this cell"
        elif record["status"] == "done":
            kept.add(results.student_path(cell))
    for path in (results.folder / "checkpoints").rglob("*.safetensors"):
        if path not in kept:
            yield path, "a student without a record"
    wanted = {cell.stem for cell in planned}
    for path in (results.folder / "unfinished").rglob("*.pt"):
        stem = path.name.partition("@")[0]
        if stem in finished:
            yield path, "a checkpoint of a cell that is finished"
        elif unplanned and stem not in wanted:
            yield path, "a checkpoint of a cell that the last run did not plan"
