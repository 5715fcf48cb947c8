"""Finding the cell whose student is to be exported; imports neither torch nor timm."""

from dataclasses import dataclass
from pathlib import Path

from kdbench.errors import KdbenchError, unknown_name
from kdbench.results.folder import CellId, Results, read_record
from kdbench.results.schema import CellRecord, Manifest


@dataclass(frozen=True)
class FinishedCell:
    """A cell that is done, and the checkpoint of its student."""

    record: CellRecord
    checkpoint: Path


def find_cell(text: str, results: Results) -> FinishedCell:
    """The cell that `text` names: the file of its record, or PAIR/METHOD/SEED among those that `results` plans.

    Raises:
        KdbenchError: there is no such cell, it is not done, or its checkpoint is not there any more.
    """
    path = Path(text)
    if path.suffix == ".json":
        # cells/<pair>/<method>/<record>
        folder = Path(*path.absolute().parts[:-4])
    else:
        path, folder = _planned(text, results), results.folder
    record: CellRecord = read_record(path)
    if record["status"] != "done":
        reason = f": {record['error'].partition(chr(10))[0]}" if record["error"] else ""
        raise KdbenchError(f"{path} ended as '{record['status']}'{reason}; only a cell that is done has a student")
    name = record.get("checkpoint")
    if not name:
        raise KdbenchError(f"{path} names no checkpoint; give the record of a cell, below cells/ in a results folder")
    if not (folder / name).is_file():
        raise KdbenchError(
            f"the checkpoint {folder / name} is not there; to train it again, remove {path} and run again"
        )
    return FinishedCell(record, folder / name)


def _planned(text: str, results: Results) -> Path:
    """The record of PAIR/METHOD/SEED, as the manifest plans it; the folder may hold others of other settings."""
    manifest = results.manifest()
    words = text.rsplit("/", 2)
    if len(words) < 3 or not words[2].isdigit():
        raise KdbenchError(
            f"{text!r} is neither a record (.json) nor of the form PAIR/METHOD/SEED, {_example(manifest)}"
        )
    pair, method, seed = words[0], words[1], int(words[2])
    for what, word, planned_names in (
        ("pair", pair, manifest["pairs"]),
        ("method", method, manifest["methods"]),
        ("seed", str(seed), map(str, manifest["seeds"])),
    ):
        if word not in (names := list(planned_names)):
            raise unknown_name(f"{what} of {results.folder}", word, names)
    planned = (CellId(**cell) for cell in manifest["cells"])
    cell = next((cell for cell in planned if cell[:3] == (pair, method, seed)), CellId(pair, method, seed, ""))
    path = results.record_path(cell)
    if not path.is_file():
        raise KdbenchError(f"{text} is planned and not there in {results.folder}; the run's command goes on with it")
    return path


def _example(manifest: Manifest) -> str:
    cells = manifest["cells"]
    return f"as in {cells[0]['pair']}/{cells[0]['method']}/{cells[0]['seed']}" if cells else "and the run has no cells"
