"""Gains over the control trained for as long: which control, by which seeds, and what is missing."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from kdbench.analysis.equal_time import group_equal_times, pair_equal_times
from kdbench.analysis.stats import paired_t
from kdbench.report.build import build_report
from kdbench.report.content import collect
from kdbench.report.tables import group_tables
from kdbench.results.study import load_study
from tests.support.synthetic import PAIRS, Plan, write_results

PAIR, OTHER = PAIRS[:2]
WORTH = {
    PAIR: {"scratch": 30, "kd": 30, "fitnet": 41, "ofa": 50, "assistant": 50},
    OTHER: {"scratch": 30, "kd": 41, "fitnet": 41, "ofa": 50, "assistant": 61},
}


def study(folder: Path, worth: dict[str, dict[str, int]] = WORTH, **longer: object):
    """Five methods on two pairs, and the control at three other numbers of epochs, each with a level of its own."""
    results = write_results(folder, Plan(pairs=[PAIR, OTHER], equal_time=worth))
    for epochs in (41, 50, 61):
        levels = {(pair, "scratch"): 20.0 + epochs for pair in (PAIR, OTHER)}
        plan = Plan(pairs=[PAIR, OTHER], methods=["scratch"], levels=levels, random_seed=epochs, throughput=False)
        if epochs == 61:
            plan = replace(plan, **longer)
        write_results(results.at_epochs(epochs).folder, plan)
    return results


def test_each_method_is_held_against_the_control_of_its_own_epochs(tmp_path: Path):
    results = study(tmp_path)
    whole = load_study(results)
    rows = {(row.pair, row.method): row for row in pair_equal_times(whole)}
    assert len(rows) == 2 * 4 and (PAIR, "scratch") not in rows
    own = whole.cells.set_index(["pair", "method", "seed"])["top1"].sort_index()
    for (pair, method), row in rows.items():
        epochs = WORTH[pair][method]
        assert row.epochs == epochs
        if epochs == 30:
            control = own[pair, "scratch"]
        else:
            cells = load_study(results.at_epochs(epochs)).cells
            control = cells[cells["pair"] == pair].set_index("seed")["top1"]
        gains = own[pair, method] - control
        assert row.seed_gains == pytest.approx(gains.sort_index().tolist())
        assert vars(row.gain) == pytest.approx(vars(paired_t(gains.tolist())))
        assert row.top1 == pytest.approx(control.mean())
    (kd, *_) = group_equal_times(whole, list(rows.values()))
    assert kd.gain.value == pytest.approx(np.mean([rows[PAIR, "kd"].gain.value, rows[OTHER, "kd"].gain.value]))
    assert 0 <= kd.p <= 1


def test_a_missing_cell_has_no_average(tmp_path: Path):
    results = study(tmp_path, missing=[(OTHER, "scratch", 2)])
    content = collect(load_study(results))
    rows = {(row.pair, row.method): row for row in content.equal_times}
    short = rows[OTHER, "assistant"]
    assert (short.n, short.planned) == (2, 3) and np.isnan(short.gain.value) and np.isnan(short.top1)
    assert rows[PAIR, "assistant"].n == 3
    (table,) = [one for one in group_tables(content, "heterogeneous") if one.name == "heterogeneous-equal-time"]
    lines = {row["method"]: row for row in table.rows}
    assert lines["assistant"]["gain"] == "X (5/6)"
    assert lines["assistant"][OTHER] == "X (2/3)"
    assert lines["ofa"][OTHER].endswith("] (50)")


def test_a_method_without_throughput_and_a_run_that_did_not_ask(tmp_path: Path):
    worth = {pair: {name: n for name, n in by.items() if name != "fitnet"} for pair, by in WORTH.items()}
    rows = {(row.pair, row.method): row for row in pair_equal_times(load_study(study(tmp_path / "some", worth)))}
    assert rows[PAIR, "fitnet"].epochs is None and rows[PAIR, "fitnet"].n == 0
    plain = collect(load_study(write_results(tmp_path / "plain", Plan(pairs=[PAIR]))))
    assert plain.equal_times == plain.group_equal_times == []
    assert not [one for one in group_tables(plain, "heterogeneous") if "equal-time" in one.name]


def test_the_report_tells_it(tmp_path: Path):
    files = build_report(collect(load_study(study(tmp_path / "results"))), tmp_path / "report")
    page = next(path for path in files if path.suffix == ".md").read_text()
    assert "Gain over scratch trained for the same time (its epochs), 2 heterogeneous pairs, 3 seeds:" in page
    table = pd.read_csv(tmp_path / "report/csv/equal_time.csv")
    assert table["epochs"].tolist() == [WORTH[pair][name] for pair in (PAIR, OTHER) for name in list(WORTH[PAIR])[1:]]
