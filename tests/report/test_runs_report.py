"""What `kdbench compare` prints fits the console, and says the same as Markdown and as JSON."""

import json
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from kdbench.analysis.runs import RunComparison, compare_runs
from kdbench.report.runs import page, print_comparison
from kdbench.results.study import load_study
from tests.support.command import kdbench, kdbench_without
from tests.support.synthetic import PAIRS, Plan, many_methods, write_results

NAMES = "results/before", "results/after"


@pytest.fixture(scope="module", params=[(5, 12), (25, 2)], ids=str)
def comparison(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> RunComparison:
    """Few methods on many pairs, and many on few."""
    folder, (methods, pairs) = tmp_path_factory.mktemp("runs"), request.param
    plans = [Plan(methods=many_methods(methods), pairs=PAIRS[:pairs], epochs=2, random_seed=seed) for seed in (0, 1)]
    return compare_runs(*(load_study(write_results(folder / str(plan.random_seed), plan)) for plan in plans))


@pytest.mark.parametrize("width", [80, 140])
def test_every_line_fits_and_no_cell_is_cut(comparison: RunComparison, width: int) -> None:
    old, output = comparison.old, StringIO()
    print_comparison(comparison, NAMES, Console(file=output, width=width, color_system=None))
    shown = output.getvalue()
    assert max(map(len, shown.splitlines())) <= width
    assert "…" not in shown
    assert all(f"\n{pair}\n" in shown for pair in old.pairs) and f"\nOver {len(old.pairs)} pairs\n" in shown
    assert all(shown.count(f"\n {name} ") >= len(old.pairs) + 1 for name in old.methods)
    assert ("[" in shown.partition("top-1: paired")[0]) == (width == 140)


def test_gaps_and_what_one_run_lacks(tmp_path: Path) -> None:
    before = Plan(
        methods=["scratch", "kd", "fitnet"], broken={(PAIRS[0], "fitnet", 0): ("unsupported", "why")}, seeds=1
    )
    after = Plan(methods=["scratch", "kd", "fitnet", "ofa"], missing=[(PAIRS[1], "kd", 0)], seeds=1)
    old, new = (load_study(write_results(tmp_path / name, plan)) for name, plan in (("a", before), ("b", after)))
    shown = page(compare_runs(old, new), NAMES)
    assert "| X (0/1 new) |" in shown and "| n/a |" in shown
    assert f"Only in the new run: ofa on {', '.join(PAIRS[:3])}." in shown


def test_the_command(tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 1)):
        write_results(tmp_path / name, Plan(random_seed=seed))
    done = kdbench_without("torch timm matplotlib", "compare", tmp_path / "a", tmp_path / "b", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert [row["method"] for row in told["over_pairs"]] == ["scratch", "kd", "fitnet", "ofa", "assistant"]
    assert (
        told["by_pair"][0]["accuracy"]["test"] == "paired t" and told["by_pair"][0]["memory"]["size"]["value"] is None
    )
    shown = kdbench("compare", "a", "b", "--markdown", "out.md", cwd=tmp_path)
    assert shown.returncode == 0 and told["summary"] in shown.stdout.replace("\n", " ")
    assert (tmp_path / "out.md").read_text().startswith("# Two runs\n\n* old: a, proxy/1, 3 pairs")


def test_mistakes_are_one_line(tmp_path: Path) -> None:
    write_results(tmp_path / "a", Plan())
    write_results(tmp_path / "b", Plan(protocol="proxy/1+epochs=2"))
    for arguments, message in {
        ("a", "none"): "no results in none",
        ("a", "b"): "not of one protocol (proxy/1 on test; proxy/1+epochs=2 on test); --any-protocol",
    }.items():
        done = kdbench("compare", *arguments, cwd=tmp_path)
        assert done.returncode == 3 and message in done.stderr and done.stderr.count("\n") == 1
    assert kdbench("compare", "a", "b", "--any-protocol", cwd=tmp_path).returncode == 0
