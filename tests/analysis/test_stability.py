"""A training that exploded or ended far from its siblings is named, with the step; no other is."""

from pathlib import Path

from kdbench.analysis.stability import unstable_cells
from kdbench.files import read_json, write_json
from kdbench.report.content import collect
from kdbench.report.notes import notes
from kdbench.results.folder import Results
from kdbench.results.schema import ExtremeRecord
from kdbench.results.study import load_study
from tests.support.command import kdbench
from tests.support.synthetic import PAIRS, Plan, write_results


def _changed(results: Results, pair: str, method: str, seed: int, **fields: object) -> None:
    (path,) = (results.folder / "cells").glob(f"{pair.replace(':', '--')}/{method}/s{seed}-*.json")
    write_json(path, read_json(path) | fields)


def test_a_loss_that_exploded_is_named_with_its_step(tmp_path: Path) -> None:
    results = write_results(tmp_path, Plan())
    calm = ExtremeRecord(first_loss=2.3, loss=22.9, loss_step=1, gradient=9.0, gradient_step=3)
    _changed(results, PAIRS[0], "ofa", 0, extremes=calm)
    assert not unstable_cells(load_study(results))
    _changed(results, PAIRS[0], "kd", 1, extremes={**calm, "loss": 87252.4, "loss_step": 4})
    (cell,) = unstable_cells(load_study(results))
    assert str(cell) == f"kd on {PAIRS[0]} seed 1, loss 87,252 at step 4 (2.3 at the first)"
    assert f"Unstable: {cell}." in notes(collect(load_study(results)))
    done = kdbench("status", results.folder)
    assert f"unstable: {cell}" in done.stdout


def test_a_negative_loss_is_no_explosion(tmp_path: Path) -> None:
    results = write_results(tmp_path, Plan())
    extremes = ExtremeRecord(first_loss=-0.1, loss=4.0, loss_step=9, gradient=9.0, gradient_step=3)
    _changed(results, PAIRS[0], "ofa", 0, extremes=extremes)
    assert not unstable_cells(load_study(results))


def test_one_far_below_its_siblings_is_named(tmp_path: Path) -> None:
    results = write_results(tmp_path, Plan())
    top1 = [load_study(results).records[PAIRS[1], "fitnet", seed]["top1"] for seed in range(3)]
    low = sorted(top1)[1] - 12.5
    _changed(results, PAIRS[1], "fitnet", top1.index(min(top1)), top1=low, best_top1=low)
    (cell,) = unstable_cells(load_study(results))
    assert (cell.method, cell.why) == ("fitnet", "12.5 points below the median of its seeds")
    two = write_results(tmp_path / "two", Plan(seeds=2))
    _changed(two, PAIRS[1], "fitnet", 0, top1=1.0, best_top1=1.0)
    assert not unstable_cells(load_study(two)), "two seeds do not say which of them is usual"
