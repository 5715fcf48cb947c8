"""Cells that are done and did not do what their names say are told under the tables."""

import json
from pathlib import Path
from typing import Any

from kdbench.report.content import collect
from kdbench.report.notes import notes
from kdbench.report.text import gain
from kdbench.results.folder import Results
from kdbench.results.study import load_study
from tests.support.synthetic import PAIRS, Plan, write_results

FIRST, SECOND = PAIRS[:2]


def _changed(results: Results, pair: str, method: str, change: dict[str, Any], seed: int | None = None) -> None:
    for path in (results.folder / "cells").rglob("*.json"):
        record = json.loads(path.read_text())
        if (record["pair"], record["method"]) == (pair, method) and seed in (None, record["seed"]):
            path.write_text(json.dumps(record | change))


def _told(results: Results) -> list[str]:
    return [line for line in notes(collect(load_study(results))) if "guessing" in line or "zero" in line]


def test_a_contender_at_guessing_is_told(tmp_path: Path) -> None:
    results = write_results(tmp_path, Plan(pairs=[FIRST, SECOND], levels={(FIRST, "kd"): 80}))
    assert _told(results) == []
    # Of 1,000 images one guesser in a thousand hits more than 28.0 %.
    for method, top1, seed in (("scratch", 23.46, None), ("ofa", 28.0, 1), ("kd", 28.1, None)):
        _changed(results, FIRST, method, {"top1": top1, "majority": 23.75}, seed)
    assert _told(results) == [
        f"Accuracy, at guessing: scratch on {FIRST} (always the largest class gives 23.75 %)",
        f"Accuracy, at guessing: ofa on {FIRST} seed 1 (always the largest class gives 23.75 %)",
    ]


def test_a_term_that_is_zero_throughout_is_told(tmp_path: Path) -> None:
    results = write_results(tmp_path, Plan(pairs=[FIRST, SECOND], epochs=2))
    path = next((results.folder / "cells").rglob("*.json"))
    curves = json.loads(path.read_text())["curves"]
    for pair in (FIRST, SECOND):
        _changed(results, pair, "kd", {"curves": curves | {"loss": {"ce": [1.0, 0.5], "kd": [0.0, 0.0]}}})
    _changed(results, SECOND, "ofa", {"curves": curves | {"loss": {"ce": [1.0, 0.5], "ofa": [0.0, 0.1]}}})
    assert _told(results) == ["Accuracy, a term that is zero throughout: kd on all pairs (kd)"]


def test_the_open_division_too(tmp_path: Path) -> None:
    results = write_results(tmp_path, Plan(pairs=[FIRST], differs={"ofa": "answers by itself"}))
    _changed(results, FIRST, "ofa", {"top1": 10.0, "majority": 10.0})
    assert _told(results) == [f"Open division, at guessing: ofa on {FIRST} (always the largest class gives 10.00 %)"]


def test_a_method_whose_control_is_missing_is_not_called_incomplete(tmp_path: Path) -> None:
    missing = [(FIRST, "scratch", seed) for seed in range(3)]
    rows = collect(load_study(write_results(tmp_path, Plan(pairs=[FIRST], missing=missing)))).gains
    assert gain(rows[FIRST, "kd"]) == "X (control 0/3)"
    assert gain(rows[FIRST, "scratch"]) == "X (0/3)"
