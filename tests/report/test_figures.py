"""Figures of both styles: their size, that nothing is drawn beyond their edge, and that their marks speak."""

import io
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from kdbench.report.build import build_report
from kdbench.report.content import Content, collect
from kdbench.report.drawing.layout import spaced
from kdbench.report.drawing.style import STYLES, render, styled
from kdbench.report.plots import planned, plots
from kdbench.results.study import load_study
from tests.support.command import kdbench
from tests.support.synthetic import PAIRS, Plan, many_methods, published_plan, write_results

SIZES = [(5, 1), (26, 8)]


def content(folder: Path, plan: Plan) -> Content:
    return collect(load_study(write_results(folder, plan)))


def test_every_file_of_the_package_is_a_figure_with_a_place_of_its_own() -> None:
    names = {path.name for path in files("kdbench.report.plots").iterdir() if path.is_file()}
    assert {f"{plot.name}.py" for plot in plots()} == names - {"__init__.py"}
    assert len({plot.order for plot in plots()}) == len(plots())


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize(("methods", "pairs"), SIZES)
def test_nothing_is_cut_off(tmp_path: Path, methods: int, pairs: int, style: str) -> None:
    plan = Plan(methods=many_methods(methods), pairs=PAIRS[-pairs:], epochs=3, missing=[(PAIRS[-1], "ofa", 1)])
    own = content(tmp_path, plan)
    plots = planned(own)
    assert len(plots) == (8 if pairs == 1 else 9)
    for plot in plots:
        drawing = plot.draw(own, STYLES[style])
        with styled(STYLES[style]):
            box = drawing.get_tightbbox(FigureCanvasAgg(drawing).get_renderer())
        width, height = drawing.get_size_inches()
        assert box.x0 >= -0.02 and box.y0 >= -0.02 and box.x1 <= width + 0.02 and box.y1 <= height + 0.02, plot.name
        if style == "paper":
            assert any(width == pytest.approx(whole) for whole in STYLES[style].widths)


def test_what_is_drawn_in_each_format_is_the_same_twice(tmp_path: Path) -> None:
    own = content(tmp_path, published_plan(pairs=1, epochs=4))
    for plot in planned(own)[::4]:
        for suffix, magic in {"svg": b"<?xml", "png": b"\x89PNG", "pdf": b"%PDF"}.items():
            first, second = (render(plot.draw(own, STYLES["paper"]), suffix, STYLES["paper"]) for _ in range(2))  # type: ignore[arg-type]
            assert first == second and first.startswith(magic)


def test_a_figure_for_a_paper_has_neither_title_nor_caption(tmp_path: Path) -> None:
    done = kdbench(
        "report", write_results(tmp_path, Plan(pairs=PAIRS[:1], epochs=3)).folder, "--style", "paper", "--json"
    )
    assert done.returncode == 0, done.stderr
    names = {path.relative_to(tmp_path / "report").as_posix() for path in (tmp_path / "report").rglob("*.*")}
    assert {"paper/gains.svg", "paper/gains.png", "paper/gains.pdf", "latex/report.tex"} <= names
    assert not [name for name in names if name.startswith(("figures/", "report."))]
    with Image.open(io.BytesIO((tmp_path / "report/paper/gains.png").read_bytes())) as image:
        assert image.size[0] == int(3.25 * 150)
    own = content(tmp_path, Plan(pairs=PAIRS[:1], epochs=3))
    for plot in planned(own):
        drawing = plot.draw(own, STYLES["paper"])
        assert not [text for text in drawing.texts if text.get_text()]
        assert "proxy/1" in drawing.caption, "the page has it under the figure"


def test_the_measured_beside_the_published(tmp_path: Path) -> None:
    own = content(tmp_path, published_plan(pairs=2, epochs=4))
    (plot,) = [plot for plot in planned(own) if plot.name == "published"]
    drawing = plot.draw(own, STYLES["screen"])
    table = plot.table(own)
    tips = [tip for told in drawing.tips.values() for tip in told]
    assert len(tips) == table["published_top1"].notna().sum() + (table["published_gain"] + table["gain"]).notna().sum()
    assert any("published 81.61 by FBT (below)" in tip for tip in tips)
    reduced = content(tmp_path / "reduced", published_plan("cifar100/1+epochs=5", pairs=1, epochs=4))
    (plot,) = [plot for plot in planned(reduced) if plot.name == "published"]
    labels = [entry.get_text() for entry in plot.draw(reduced, STYLES["screen"]).legends[0].get_texts()]
    assert labels[-1] == "not comparable"


def test_long_curves_are_thinned_and_end_where_training_ended(tmp_path: Path) -> None:
    own = content(tmp_path, Plan(pairs=PAIRS[:1], epochs=250))
    (plot,) = [plot for plot in planned(own) if plot.name == "curves"]
    table = plot.table(own)
    epochs = sorted(set(table["epoch"]))
    assert len(epochs) <= 60 and epochs[-1] == 250 and len(set(np.diff(epochs))) == 1
    last = table[(table["method"] == "kd") & (table["epoch"] == 250)].iloc[0]
    assert last["top1"] == pytest.approx(own.gains[PAIRS[0], "kd"].top1)
    assert last["lowest"] < last["top1"] < last["highest"]


def test_labels_are_moved_apart_and_no_farther() -> None:
    random = np.random.default_rng(0)
    for _ in range(50):
        places = random.uniform(0, 1, random.integers(1, 20))
        found = spaced(places, 0.04, 0.0, 1.0)
        assert (np.diff(np.sort(found)) > 0.04 - 1e-9).all()
        assert (np.argsort(found) == np.argsort(places)).all()
        assert found.min() >= -1e-9 and found.max() <= 1 + 1e-9
    apart = np.array([0.9, 0.1, 0.5])
    assert np.allclose(spaced(apart, 0.1, 0.0, 1.0), apart)


def test_names_are_no_formulas(tmp_path: Path) -> None:
    plan = Plan(methods=["scratch", "kd", "a$^{$b"], pairs=PAIRS[:1], epochs=3)
    own = content(tmp_path, plan)
    assert all(render(plot.draw(own, STYLES["screen"]), "png") for plot in planned(own))


def test_every_format_by_name(tmp_path: Path) -> None:
    own = content(tmp_path, Plan(pairs=PAIRS[:1], epochs=3, throughput=False))
    names = {path.relative_to(tmp_path).as_posix() for path in build_report(own, tmp_path, ["figures"])}
    assert names == {
        f"figures/{name}.{suffix}"
        for name in ("headline", "gains", "heatmap", "ranks", "profile", "curves")
        for suffix in ("svg", "png", "pdf")
    }
    refused = kdbench("report", tmp_path, "--format", "htm")
    assert refused.returncode == 3 and "html" in refused.stderr + refused.stdout
