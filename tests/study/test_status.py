"""`kdbench status` and `kdbench clean`: what a results folder tells of its run."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from kdbench.files import write_json
from kdbench.results.folder import CellId, Position, Results
from kdbench.results.locks import claimed
from tests.support.command import kdbench

REFERENCE = Path("results/reference/proxy")


@pytest.fixture
def results(tmp_path: Path) -> Results:
    """The reference run with a cell that is running, one that was interrupted, one to do and one that failed."""
    shutil.copytree(REFERENCE, tmp_path / "results")
    return Results(tmp_path / "results")


def planned(results: Results) -> Iterator[CellId]:
    return (CellId(**cell) for cell in results.manifest()["cells"])


@pytest.mark.runs
def test_every_planned_cell_has_a_standing(results: Results) -> None:
    running, begun, to_do, failed = list(planned(results))[:4]
    for cell in (running, begun, to_do):
        results.record_path(cell).unlink()
    results.checkpoint_path(begun, Position(3, 7)).parent.mkdir(parents=True, exist_ok=True)
    results.checkpoint_path(begun, Position(3, 7)).write_bytes(b"")
    record = json.loads(results.record_path(failed).read_text()) | {"status": "oom", "error": "no memory\nat line 3"}
    write_json(results.record_path(failed), record)
    with claimed([results.lock_path(running)]):
        shown = kdbench("status", results.folder).stdout
        assert "1 cell of 3 left are trained now" in shown or "left for 3 cells" in shown
        assert "nothing runs" not in shown
        done = kdbench("status", results.folder, "--json")
        assert done.returncode == 2
        assert kdbench("clean", results.folder).returncode == 3, "a run is at work"
    found = json.loads(done.stdout)
    count = len(results.manifest()["cells"])
    unsupported = sum(cell["status"] == "unsupported" for cell in results.cells())
    standing = {"running": 1, "begun": 1, "to do": 1, "oom": 1, "unsupported": unsupported}
    assert found["cells"] == standing | {"done": count - sum(standing.values())}
    assert sum(sum(pair.values()) for pair in found["pairs"].values()) == count
    assert found["errors"] == {"no memory": 1}
    shown = kdbench("status", results.folder, COLUMNS="80").stdout
    assert f"nothing runs; this goes on: {results.manifest()['command']}" in shown
    assert "1 x no memory" in shown


def test_a_whole_run_needs_nothing(results: Results) -> None:
    done = kdbench("status", results.folder)
    assert done.returncode == 0 and "nothing runs" not in done.stdout
    assert "there is nothing to remove" in kdbench("clean", results.folder).stdout


def test_leftovers_are_listed_and_removed(results: Results) -> None:
    finished, other = list(planned(results))[:2]
    results.record_path(other).unlink()
    kept = results.checkpoint_path(other, Position(1, 0))
    part = results.folder / "cells" / ".xyz.part"
    stale = [results.checkpoint_path(finished, Position(2, 1)), results.lock_path(finished), part]
    stale.append(results.student_path(other))
    for path in (kept, *stale):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"1234")
    before = sorted(results.folder.rglob("*"))
    listed = kdbench("clean", results.folder)
    assert sorted(results.folder.rglob("*")) == before, "nothing is removed without being asked"
    assert "4 files, 0.0 MB can go; --delete removes them" in listed.stdout
    removed = json.loads(kdbench("clean", results.folder, "--delete", "--json").stdout)
    assert {row["file"] for row in removed["files"]} == set(map(str, stale))
    assert sorted(set(before) - set(results.folder.rglob("*"))) == sorted(stale)
    assert results.checkpoints(other) == {(1, 0): kept}


def test_what_a_killed_process_was_writing_of_a_cell_goes_with_its_checkpoints(results: Results) -> None:
    own, other = list(planned(results))[:2]

    def torn(cell: CellId) -> list[Path]:
        files = results.checkpoint_path(cell, Position(1, 0)), results.record_path(cell), results.student_path(cell)
        return [path.with_name(f".{path.name}.x1y2.part") for path in files]

    for path in torn(own) + torn(other):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"1234")
    results.remove_checkpoints(own)
    assert not any(path.exists() for path in torn(own))
    assert all(path.exists() for path in torn(other)), "another process may be at it"


def test_what_was_not_planned_goes_when_asked_for(results: Results) -> None:
    manifest = results.manifest()
    gone = [cell for cell in manifest["cells"] if cell["method"] == "ofa"]
    write_json(results.manifest_path, {**manifest, "cells": [c for c in manifest["cells"] if c["method"] != "ofa"]})
    assert "there is nothing to remove" in kdbench("clean", results.folder).stdout
    assert f"{len(gone)} files" in kdbench("clean", results.folder, "--unplanned", "--delete").stdout
    assert {cell["method"] for cell in results.cells()} == set(manifest["methods"]) - {"ofa"}
