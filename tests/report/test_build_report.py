"""The report folder: its files, the same bytes twice, and the rows of what is missing."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from synthetic import PAIRS, Plan, write_results

from kdbench.records import Results
from kdbench.report.build import build_report

FIGURES = ["gains", "tradeoff", "curves", "phases"]


def built(folder: Path, plan: Plan) -> tuple[dict[str, bytes], str]:
    """The files of a report by name, and its page."""
    written = build_report(write_results(folder, plan))
    files = {path.relative_to(folder / "report").as_posix(): path.read_bytes() for path in written}
    return files, files["report.md"].decode()


def test_two_builds_are_equal_to_the_byte(tmp_path: Path):
    plan = Plan(pairs=PAIRS[5:8], missing=[(PAIRS[6], "ofa", 1)])
    first, page = built(tmp_path / "a", plan)
    second, _ = built(tmp_path / "b", plan)
    assert first == second
    tables = ("cells", "curves", "gains", "gains_by_seed", "gains_by_group", "throughput", "throughput_by_group")
    assert sorted(first) == sorted(
        ["report.md", *(f"csv/{name}.csv" for name in tables)]
        + [f"figures/{name}.{suffix}" for name in FIGURES for suffix in ("png", "svg")]
    )
    assert all(f"(figures/{name}.png)" in page for name in FIGURES)
    assert b"<dc:date>" not in first["figures/gains.svg"]
    assert first["figures/gains.png"].startswith(b"\x89PNG")


def test_building_again_into_another_folder(tmp_path: Path):
    results = write_results(tmp_path / "results", Plan(pairs=PAIRS[:1]))
    paths = build_report(results, tmp_path / "elsewhere")
    assert all(path.is_file() and path.is_relative_to(tmp_path / "elsewhere") for path in paths)
    assert not (tmp_path / "results/report").exists()


def test_numbers_of_the_csv_files(tmp_path: Path):
    plan = Plan(pairs=PAIRS[:1])
    built(tmp_path, plan)
    cells = pd.read_csv(tmp_path / "report/csv/cells.csv")
    gains = pd.read_csv(tmp_path / "report/csv/gains.csv").set_index("method")
    seeds = pd.read_csv(tmp_path / "report/csv/gains_by_seed.csv")
    top1 = cells.pivot_table(index="seed", columns="method", values="top1")
    assert gains.loc["ofa", "gain"] == pytest.approx((top1["ofa"] - top1["scratch"]).mean())
    assert np.allclose(seeds[seeds["method"] == "kd"]["gain"], top1["kd"] - top1["scratch"])


def test_missing_failed_and_unsupported_are_told_with_reasons(tmp_path: Path):
    plan = Plan(
        missing=[(PAIRS[0], "ofa", 1)],
        broken={(PAIRS[1], "kd", 2): ("diverged", "loss is nan\nat step 12")}
        | {(PAIRS[2], "assistant", seed): ("unsupported", "no stage fits") for seed in range(3)},
    )
    _, page = built(tmp_path, plan)
    assert "40 of 45 cells done, 1 missing, 1 diverged, 3 unsupported" in page
    assert f"* Accuracy, missing: ofa on {PAIRS[0]} seed 1\n" in page
    assert f"* Accuracy, diverged: kd on {PAIRS[1]} seed 2 (loss is nan at step 12)\n" in page
    assert f"* Accuracy, unsupported: assistant on {PAIRS[2]} (no stage fits)\n" in page
    assert "Left out of the means and ranks over the 3 heterogeneous pairs: kd (8/9 runs), ofa (8/9 runs)" in page
    assert "| X (2/3) |" in page
    assert "| n/a |" in page
    assert "| X (8/9) |" in page
    assert "kdbench run --suite proxy --seeds 3" in page
    assert "device: cpu: AMD EPYC 9B14" in page


def test_without_throughput_its_figures_are_left_out(tmp_path: Path):
    files, page = built(tmp_path, Plan(pairs=PAIRS[:1], throughput=False))
    assert {name for name in files if name.endswith("png")} == {"figures/gains.png", "figures/curves.png"}
    assert "Throughput was not measured" in page
    assert "speed/scratch" not in page


def test_without_the_control_there_are_no_gains(tmp_path: Path):
    files, page = built(tmp_path, Plan(methods=["kd", "ofa"], pairs=PAIRS[:1]))
    assert "No method of this study is recorded as the control, so there are no gains." in page
    assert {name for name in files if name.endswith("png")} == {"figures/curves.png", "figures/phases.png"}
    assert "X (0/3)" in page


def test_without_the_baseline_nothing_is_compared_with_it(tmp_path: Path):
    files, page = built(tmp_path, Plan(methods=["scratch", "ofa"], pairs=PAIRS[:1]))
    assert "recorded as the baseline" in page
    assert "beats" not in page
    assert "figures/tradeoff.svg" in files


def test_nothing_done_yet(tmp_path: Path):
    missing = [(PAIRS[0], method, seed) for method in Plan().methods for seed in range(3)]
    files, page = built(tmp_path, Plan(pairs=PAIRS[:1], missing=missing, throughput=False))
    assert "0 of 15 cells done, 15 missing" in page
    assert "missing: scratch, kd, fitnet, ofa, assistant on all pairs" in page
    assert not [name for name in files if name.startswith("figures/")]


@pytest.mark.parametrize("seeds", [1, 2])
def test_few_seeds_are_reported_without_tests(tmp_path: Path, seeds: int):
    _, page = built(tmp_path, Plan(pairs=PAIRS[:1], seeds=seeds))
    row = next(line for line in page.splitlines() if line.startswith(f"| ofa | {seeds}/{seeds}"))
    assert row.endswith("| - | - |"), "no p-values"


def test_neither_torch_nor_the_training_code_is_imported():
    check = (
        "import sys, kdbench.report.build, kdbench.report.terminal; "
        "print([name for name in ('torch', 'timm', 'kdbench.training', 'matplotlib.pyplot') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_results_of_a_default_report_are_not_read_as_records(tmp_path: Path):
    results = write_results(tmp_path, Plan(pairs=PAIRS[:1]))
    first = [path.read_bytes() for path in build_report(results)]
    assert [path.read_bytes() for path in build_report(Results(tmp_path))] == first


def test_the_open_division_has_a_table_of_its_own(tmp_path: Path):
    """Taking a method out of the closed division changes no number there, but for ranks and corrections."""
    without = Plan(methods=["scratch", "kd", "fitnet", "ofa"])
    beside = Plan(methods=["scratch", "kd", "fitnet", "ofa", "assistant"], differs={"assistant": "sees more images"})
    files, page = built(tmp_path / "open", beside)
    closed, _ = built(tmp_path / "all", replace(beside, differs={}))
    row = next(line for line in page.splitlines() if line.startswith("| assistant"))
    assert row.endswith("| sees more images |")
    assert page.count("\n| assistant") == 1
    assert "Open division (assistant), control and baseline included: 27 of 27 cells done." in page
    gains = pd.read_csv(tmp_path / "open/report/csv/gains.csv")
    assert sorted(set(gains["method"])) == sorted(without.methods)
    opened = pd.read_csv(tmp_path / "open/report/csv/open_gains.csv")
    assert sorted(set(opened["method"])) == ["assistant", "kd", "scratch"]
    everything = pd.read_csv(tmp_path / "all/report/csv/gains.csv").set_index(["pair", "method"])
    for frame in (gains, opened):
        own = frame.set_index(["pair", "method"])["gain"]
        assert np.allclose(own, everything.loc[own.index, "gain"])
    ranks = pd.read_csv(tmp_path / "open/report/csv/gains_by_group.csv")["rank"]
    assert ranks.sum() == pytest.approx(sum(range(1, 5)))
    assert "csv/open_gains.csv" in files and "csv/open_gains.csv" not in closed
