"""What is printed fits the console and leaves nothing out."""

from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from kdbench.report.content import collect
from kdbench.report.terminal import print_report
from kdbench.results.study import Study, load_study
from tests.support.synthetic import PAIRS, Plan, many_methods, write_results


def shown(study: Study, width: int) -> str:
    output = StringIO()
    print_report(collect(study), Console(file=output, width=width, color_system=None))
    return output.getvalue()


def printed(folder: Path, plan: Plan, width: int) -> str:
    return shown(load_study(write_results(folder, plan)), width)


@pytest.fixture(scope="module", params=[5, 25])
def study(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Study:
    """Twelve pairs of few or many methods."""
    plan = Plan(methods=many_methods(request.param), pairs=PAIRS, epochs=3)
    return load_study(write_results(tmp_path_factory.mktemp("results"), plan))


@pytest.mark.parametrize("width", [60, 80, 100, 140, 200])
def test_every_line_fits_and_no_cell_is_cut(study: Study, width: int):
    output = shown(study, width)
    assert max(map(len, output.splitlines())) <= width
    assert "…" not in output
    for pair in PAIRS:
        assert f"{pair.split(':')[0]}:" in output
    assert all(output.count(f"\n {name} ") >= 2 for name in study.methods if name != "scratch")


def test_a_wide_console_shows_tests_and_intervals(tmp_path: Path):
    plan = Plan(missing=[(PAIRS[0], "ofa", 1)])
    narrow, wide = printed(tmp_path / "a", plan, 70), printed(tmp_path / "b", plan, 150)
    head, gains = ([part.partition("n = ")[0] for part in output.split("3 seeds\n")[1:3]] for output in (narrow, wide))
    assert ["Holm" in part for part in (head[0], gains[0])] == [False, True]
    assert ["[" in part for part in (head[1], gains[1])] == [False, True]
    for output in (narrow, wide):
        assert all("against" in part for part in (head[0], gains[0]))
        assert "X (2/3)" in output
        assert "X (8/9)" in output
        assert "3 heterogeneous pairs, 3 seeds" in output
        assert "44 of 45 cells done, 1 missing" in output
        assert f"missing: ofa on {PAIRS[0]} seed 1" in output


def test_digits_stand_below_digits(tmp_path: Path):
    table = printed(tmp_path, Plan(seeds=10), 60).partition("n = ")[0].splitlines()
    ends = {line.index("]") for line in table if "]" in line}
    assert any("▲" in line or "▼" in line for line in table)
    assert len(ends) == 1


def test_the_last_lines_say_what_the_study_shows(tmp_path: Path):
    levels = {(pair, method): 60.0 + 4 * i for pair in PAIRS[:3] for i, method in enumerate(Plan().methods)}
    output = " ".join(printed(tmp_path, Plan(seeds=5, levels=levels), 80).split())
    last = output.rpartition("about other pairs.")[2].strip()
    assert last.startswith("fitnet, ofa and assistant beat kd") or last.startswith("assistant, ofa and fitnet beat kd")
    assert "kd beats training alone" in last
    assert "The hyperparameters are not tuned to these data. This is no recommendation" in last
    assert "not shown worse than the best (1 of 5, scratch counted): assistant." in last
    assert "Cheapest of these: assistant (step time" in last
