"""Published numbers in the report: beside ours where comparable, with the reason where not, absent without labels."""

from dataclasses import replace
from io import StringIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from numpy.typing import NDArray
from rich.console import Console

from kdbench.report.build import build_report
from kdbench.report.content import collect
from kdbench.report.plots import curves, gains
from kdbench.report.terminal import print_report
from kdbench.results.study import load_study
from tests.support.synthetic import PUBLISHED, Plan, published_plan, write_results

REDUCED = "cifar100/1+epochs=5,limit=1000"


def page(folder: Path, plan: Plan) -> str:
    build_report(collect(load_study(write_results(folder, plan))), folder / "report")
    return (folder / "report/report.md").read_text()


def printed(folder: Path, plan: Plan, width: int) -> str:
    output = StringIO()
    print_report(collect(load_study(write_results(folder, plan))), Console(file=output, width=width, color_system=None))
    return output.getvalue()


def test_the_page_has_verdicts_and_sources(tmp_path: Path) -> None:
    text = page(tmp_path, published_plan(pairs=1))
    assert "Published top-1 (ofa-300ep-224px, best epoch) and ours minus it:" in text
    assert "Published gain (ofa-300ep-224px, best epoch) and ours minus it:" in text
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if "| OFA |" in line]
    own, *quoted = rows
    assert own[2] == "80.54" and own[5] == own[9] == "reproduced"
    assert own[6] == "+6.53†" and own[10:] == ["best", "FBT, PAT, RSD"]
    assert [row[5] for row in quoted if row[-1] == "OFA author"] == ["reproduced"]
    assert [row[5] for row in quoted if row[2] == "71.85"] == ["not comparable: other data (imagenet1k)"]
    assert "Teacher top-1 71.25 (published: 89.26)" in text
    assert "0.6 points for a published top-1" in text
    others = f"{PUBLISHED}+ema+kd, {PUBLISHED}@1gpu, ofa-imagenet, ofa-like-300ep-multistep"
    assert f"comparable: {others} (pair by pair).".replace("_", "\\_") in text


def test_a_reduced_run_shows_the_numbers_and_the_reason(tmp_path: Path) -> None:
    text = page(tmp_path, published_plan(REDUCED, pairs=1))
    assert "(ofa-300ep-224px, best epoch), not comparable: reduced run (epochs=5, limit=1000):" in text
    assert "not comparable: reduced run (epochs=5, limit=1000) | +6.53" in text
    assert "reproduced" not in text and "80.54 " in text


def test_the_csv_file(tmp_path: Path) -> None:
    page(tmp_path, published_plan(pairs=1))
    table = pd.read_csv(tmp_path / "report/csv/published.csv")
    row = table[(table["method"] == "assistant") & table["own_protocol"]].iloc[0]
    assert (row["top1_published"], row["top1_verdict"], row["sources"]) == (81.61, "below", "FBT")
    assert row["top1_difference"] == pytest.approx(row["top1_ours"] - 81.61)
    assert row["gain_published"] == pytest.approx(7.6)
    assert set(table["reason"].dropna()) >= {"other data (imagenet1k)"}


@pytest.mark.parametrize("plan", [published_plan(), published_plan(REDUCED)], ids=["full", "reduced"])
@pytest.mark.parametrize("width", [60, 80, 140])
def test_the_terminal(tmp_path: Path, plan: Plan, width: int) -> None:
    output = printed(tmp_path, plan, width)
    assert max(map(len, output.splitlines())) <= width and "…" not in output
    for value in ("80.54", "+6.53", "81.22", "ofa (PAT)", "kd (FBT author)"):
        assert value in output
    whole = " ".join(output.split())
    assert ("not comparable: reduced run (epochs=5, limit=1000)" in whole) == (plan.protocol == REDUCED)
    assert ("▼" in output.partition("Published top-1")[2].partition("cells done")[0]) == (plan.protocol != REDUCED)


def test_methods_keep_their_order(tmp_path: Path) -> None:
    lines = printed(tmp_path, published_plan(pairs=6), 160).partition("Published top-1")[2].splitlines()
    methods = [line.split()[0] for line in lines[5:15]]
    assert methods == [*("scratch", "scratch", "kd", "kd", "fitnet", "fitnet", "ofa", "ofa", "ofa", "assistant")]


def hollow(figure: Figure) -> list[tuple[NDArray[np.float64], str]]:
    """Positions and edge colours of the hollow markers of all panels."""
    lines = [line for axis in figure.axes for line in axis.lines if line.get_markerfacecolor() == "white"]
    return [(np.asarray(line.get_xydata()), str(line.get_markeredgecolor())) for line in lines]


def test_hollow_markers_in_the_figures(tmp_path: Path) -> None:
    content = collect(load_study(write_results(tmp_path / "a", published_plan(pairs=1))))
    drawing = gains.PLOT.draw(content)
    drawn = sorted(round(float(place[0, 0]), 2) for place, _ in hollow(drawing))
    assert drawn == [4.73, 4.86, 6.48, 6.53, 7.6]
    low, high = drawing.axes[0].get_xlim()
    assert low < min(drawn) and max(drawn) < high
    assert [entry.get_text() for entry in drawing.legends[0].get_texts()] == ["published", "ours"]
    assert "hollow: published (ofa-300ep-224px, best epoch; FBT" in drawing.caption
    drawing = curves.PLOT.draw(content)
    assert sorted(float(place[0, 1]) for place, _ in hollow(drawing)) == [74.01, 78.74, 78.87, 80.49, 80.54, 81.61]

    reduced = collect(load_study(write_results(tmp_path / "b", published_plan(REDUCED, pairs=1))))
    assert {colour for _, colour in hollow(gains.PLOT.draw(reduced))} == {"#777777"}, "grey where not comparable"
    assert not hollow(curves.PLOT.draw(reduced))


def test_nothing_is_added_without_labels(tmp_path: Path) -> None:
    plan = replace(published_plan(pairs=1), published=None)
    results = write_results(tmp_path, plan)
    files = [
        path.relative_to(tmp_path).as_posix()
        for path in build_report(collect(load_study(results)), tmp_path / "report")
    ]
    assert "report/csv/published.csv" not in files
    assert "ublished" not in (tmp_path / "report/report.md").read_text()
    content = collect(load_study(results))
    assert not hollow(gains.PLOT.draw(content)) and not gains.PLOT.draw(content).legends


def test_the_committed_report_of_the_proxy_is_what_its_records_give(tmp_path: Path) -> None:
    from kdbench.results.folder import Results

    reference = Path(__file__).parents[2] / "results/reference/proxy"
    build_report(collect(load_study(Results(reference))), tmp_path)
    for name in ("report.md", "csv/gains.csv"):
        assert (tmp_path / name).read_bytes() == (reference / "report" / name).read_bytes()


def test_without_the_best_epoch_nothing_is_held_against_one(tmp_path: Path) -> None:
    plan = replace(published_plan(pairs=1), best=False)
    text = page(tmp_path, plan)
    reason = "not comparable: our best epoch is unknown, run with --best"
    assert f"Published top-1 (ofa-300ep-224px, best epoch), {reason}:" in text
    assert "reproduced" not in text and "80.54" in text
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if "| OFA |" in line]
    assert rows[0][3:6] == ["-", "-", reason]
    assert "| best epoch |" not in text and "| best epoch |" in page(tmp_path / "best", published_plan(pairs=1))
    drawing = curves.PLOT.draw(collect(load_study(write_results(tmp_path / "again", plan))))
    assert not hollow(drawing), "published numbers are of the test split, these curves are not"
    told = " ".join(word for entry in drawing.texts for word in entry.get_text().split())
    assert "on held-out training images" in told
