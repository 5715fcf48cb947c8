"""The report folder: its files, the same bytes twice, and the rows of what is missing."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from kdbench.report.build import build_report
from kdbench.report.content import collect
from kdbench.report.render import TEMPLATES
from kdbench.report.sections import SECTIONS
from kdbench.results.folder import Results
from kdbench.results.study import load_study
from tests.support.command import kdbench
from tests.support.synthetic import PAIRS, Plan, write_results

FIGURES = ["headline", "tradeoff", "gains", "slope", "profile", "curves", "phases"]
TABLED = ["heatmap", "ranks"]
"""Those of the page alone."""


def built(folder: Path, plan: Plan) -> tuple[dict[str, bytes], str]:
    """The files of a report by name, and its page."""
    written = build_report(collect(load_study(write_results(folder, plan))), folder / "report")
    files = {path.relative_to(folder / "report").as_posix(): path.read_bytes() for path in written}
    return files, files["report.md"].decode()


def test_two_builds_are_equal_to_the_byte(tmp_path: Path):
    plan = Plan(pairs=PAIRS[5:8], missing=[(PAIRS[6], "ofa", 1)])
    first, page = built(tmp_path / "a", plan)
    second, _ = built(tmp_path / "b", plan)
    assert first == second
    tables = ("cells", "curves", "gains", "gains_by_seed", "gains_by_group", "throughput", "throughput_by_group")
    assert sorted(first) == sorted(
        ["report.md", "report.html", *(f"csv/{name}.csv" for name in tables)]
        + [f"figures/{name}.svg" for name in FIGURES + TABLED]
    )
    assert all(f"(figures/{name}.svg)" in page for name in FIGURES)
    assert b"<dc:date>" not in first["figures/gains.svg"]
    assert not any(f"(figures/{name}.svg)" in page for name in TABLED)


def test_building_again_into_another_folder(tmp_path: Path):
    results = write_results(tmp_path / "results", Plan(pairs=PAIRS[:1]))
    paths = build_report(collect(load_study(results)), tmp_path / "elsewhere")
    assert all(path.is_file() and path.is_relative_to(tmp_path / "elsewhere") for path in paths)
    assert not (tmp_path / "results/report").exists()


def test_numbers_of_the_csv_files(tmp_path: Path):
    plan = Plan(pairs=PAIRS[:1])
    built(tmp_path, plan)
    cells = pd.read_csv(tmp_path / "report/csv/cells.csv")
    gains = pd.read_csv(tmp_path / "report/csv/gains.csv").set_index("method")
    seeds = pd.read_csv(tmp_path / "report/csv/gains_by_seed.csv")
    assert not [path for path in tmp_path.glob("report/csv/*.csv") if "(" in path.read_text()], "numbers, no lists"
    top1 = cells.pivot_table(index="seed", columns="method", values="top1")
    assert gains.loc["ofa", "gain"] == pytest.approx((top1["ofa"] - top1["scratch"]).mean())
    assert np.allclose(seeds[seeds["method"] == "kd"]["gain"], top1["kd"] - top1["scratch"])


def test_every_section_has_a_template_and_every_template_a_section():
    templates = [Path(path.name) for path in (TEMPLATES / "sections").iterdir()]
    assert {path.stem for path in templates} == {section.name for section in SECTIONS}
    assert {path.suffix for path in templates} == {".html", ".md"}


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
    shown = ("headline", "gains", "heatmap", "ranks", "profile", "curves")
    assert {name for name in files if name.endswith("svg")} == {f"figures/{name}.svg" for name in shown}
    assert "Throughput was not measured" in page
    absent = "heterogeneous against homogeneous pairs (methods complete on both kinds)"
    assert f"Figures left out for want of what they need: {absent}." in page
    assert "speed/scratch" not in page


def test_without_the_control_there_are_no_gains(tmp_path: Path):
    files, page = built(tmp_path, Plan(methods=["kd", "ofa"], pairs=PAIRS[:1]))
    assert "No method of this study is recorded as the control, so there are no gains." in page
    assert {name for name in files if name.endswith("svg")} == {"figures/curves.svg", "figures/phases.svg"}
    assert "X (0/3)" in page


def test_without_the_baseline_nothing_is_compared_with_it(tmp_path: Path):
    files, page = built(tmp_path, Plan(methods=["scratch", "ofa"], pairs=PAIRS[:1]))
    assert "recorded as the baseline" in page
    assert "| beats" not in page
    assert "figures/tradeoff.svg" in files


def test_nothing_done_yet(tmp_path: Path):
    missing = [(PAIRS[0], method, seed) for method in Plan().methods for seed in range(3)]
    files, page = built(tmp_path, Plan(pairs=PAIRS[:1], missing=missing, throughput=False))
    assert "0 of 15 cells done, 15 missing" in page
    assert "missing: scratch, kd, fitnet, ofa, assistant on vit-t:resnet-s" in page
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


def test_a_process_of_its_own_writes_the_same_bytes(tmp_path: Path):
    """It draws in two processes; this one, which has torch loaded, in itself."""
    plan = Plan(pairs=PAIRS[:2])
    here, _ = built(tmp_path, plan)
    done = kdbench("report", tmp_path, "--out", tmp_path / "fresh", "--json", OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr
    there = {
        path.relative_to(tmp_path / "fresh").as_posix(): path.read_bytes() for path in (tmp_path / "fresh").rglob("*.*")
    }
    assert there == here


def test_results_of_a_default_report_are_not_read_as_records(tmp_path: Path):
    results = write_results(tmp_path, Plan(pairs=PAIRS[:1]))
    out = tmp_path / "report"
    first = [path.read_bytes() for path in build_report(collect(load_study(results)), out)]
    assert [path.read_bytes() for path in build_report(collect(load_study(Results(tmp_path))), out)] == first


def test_formats_on_their_own(tmp_path: Path):
    content = collect(load_study(write_results(tmp_path, Plan(pairs=PAIRS[:1], missing=[(PAIRS[0], "ofa", 1)]))))
    paths = build_report(content, tmp_path / "out", ["json"])
    assert [path.name for path in paths] == ["report.json"]
    told = json.loads(paths[0].read_text(), parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))
    gains = {row["method"]: row for row in told["tables"]["gains"]}
    assert gains["kd"]["gain"] == pytest.approx(content.gains[PAIRS[0], "kd"].gain.value)
    assert (gains["ofa"]["gain"], gains["ofa"]["n"], gains["ofa"]["planned"]) == (None, 2, 3)
    assert f"Accuracy, missing: ofa on {PAIRS[0]} seed 1" in told["notes"]
    suffixes = {path.suffix for path in build_report(content, tmp_path / "out", ["csv", "latex"])}
    assert suffixes == {".csv", ".tex"}


def test_every_table_tells_n_and_what_is_missing(tmp_path: Path):
    _, page = built(tmp_path, Plan(pairs=PAIRS[:2], missing=[(PAIRS[0], "ofa", 1)]))
    blocks = page.split("\n\n")
    tables = [number for number, block in enumerate(blocks) if block.startswith("| ")]
    under = [blocks[number + 1] for number in tables]
    assert len(under) == 7
    assert all("n = " in line for line in under)
    whole = f"n = 2 pairs x 3 seeds; missing: ofa on {PAIRS[0]} seed 1."
    assert [line.startswith(whole) for line in under[:3]] == [True, True, True], "the means are in two tables"
    assert "Smallest gain that 80% of such studies would find" in under[0]
    assert under[3] == f"n = 1 pair x 3 seeds; missing: ofa on {PAIRS[0]} seed 1."
    assert under[4] == under[6] == "n = 30 blocks a method and pair; none missing."
    seeds = pd.read_csv(tmp_path / "report/csv/gains_by_seed.csv")
    assert len(seeds) == 2 * 4 * 3
    gap = seeds[seeds["gain"].isna()]
    assert gap[["pair", "method", "seed", "status"]].to_numpy().tolist() == [[PAIRS[0], "ofa", 1, "missing"]]


def test_critical_differences_are_drawn_from_ten_pairs_on(tmp_path: Path):
    few, page = built(tmp_path / "few", Plan(pairs=PAIRS[:6], epochs=2))
    assert "figures/critical_difference.svg" not in few
    assert "No critical-difference diagram over the 6 heterogeneous pairs: fewer than 10" in page
    pairs = [*PAIRS[:6], *PAIRS[8:], "vit-n:resnet-n"]
    many, page = built(tmp_path / "many", Plan(pairs=pairs, epochs=2))
    assert b"<svg" in many["figures/critical_difference.svg"]
    assert "No critical-difference diagram over the 10 heterogeneous" not in page
    assert "over the 1 homogeneous pair" in page


def test_a_machine_that_was_not_clean_is_told(tmp_path: Path):
    reasons = ["other processes on the processor in 12 of 12 rounds", "others had 51% of all cores"]
    _, page = built(tmp_path, Plan(pairs=PAIRS[:2], unclean={PAIRS[1]: reasons}))
    assert page.count("| no |") == page.count("| yes |") == 5
    assert f"none missing. Machine not clean: {', '.join(reasons)}.\n" in page
    assert f"* Throughput, the machine was not clean on {PAIRS[1]} (" in page
    csv = pd.read_csv(tmp_path / "report/csv/throughput.csv")
    assert csv.set_index("pair")["unclean"].dropna().unique().tolist() == ["; ".join(reasons)]


def test_the_open_division_has_a_table_of_its_own(tmp_path: Path):
    """Taking a method out of the closed division changes no number there, but for ranks and corrections."""
    without = Plan(methods=["scratch", "kd", "fitnet", "ofa"])
    beside = Plan(methods=["scratch", "kd", "fitnet", "ofa", "assistant"], differs={"assistant": "sees more images"})
    files, page = built(tmp_path / "open", beside)
    closed, _ = built(tmp_path / "all", replace(beside, differs={}))
    row, more = (line for line in page.splitlines() if line.startswith("| assistant"))
    assert row.endswith("| sees more images |")
    assert "45 of 45 cells done" in page, "both divisions, as the plan has them"
    assert "Open division: assistant, 9 of 9 cells done." in page
    assert "rank" not in page.partition(more)[0].rpartition("\n\n")[2], "a rank among three is none"
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
