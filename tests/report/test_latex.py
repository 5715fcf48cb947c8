"""LaTeX tables: escaping, what is marked, that they are well formed, and, where there is a LaTeX, that they compile."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from kdbench.report.build import build_report
from kdbench.report.content import collect
from kdbench.report.escape import latex
from kdbench.report.latex import documents
from kdbench.results.study import load_study
from tests.support.synthetic import PAIRS, Plan, published_plan, write_results

AWKWARD = ["scratch", "kd", "my_idea", "50%&more", "{a}#1~^$"]


def sources(folder: Path, plan: Plan) -> dict[str, str]:
    return documents(collect(load_study(write_results(folder, plan))))


def rows(source: str) -> dict[str, list[str]]:
    """The body of a table by its first cell."""
    body = source.partition(r"\midrule")[2].partition(r"\bottomrule")[0]
    lines = [re.split(r"(?<!\\) & ", line.removesuffix(r" \\")) for line in body.strip().splitlines()]
    return {line[0]: line[1:] for line in lines}


def test_signs_of_latex_are_escaped():
    assert latex("a_b 5% x&y #1 $2 {z}") == r"a\_b 5\% x\&y \#1 \$2 \{z\}"
    assert latex("a\\b~c^d") == r"a\textbackslash{}b\textasciitilde{}c\textasciicircum{}d"
    assert latex("-0.23 [-1.79, 1.32]*▼") == r"$-$0.23 [$-$1.79, 1.32]$^{*}$$^{\blacktriangledown}$"
    assert latex("vit-t-16:resnet-s") == "vit-t-16:resnet-s"
    assert latex("61.23 ± 0.45, < 0.001") == r"61.23 $\pm$ 0.45, $<$ 0.001"
    assert latex("-") == "--"


def test_bold_is_what_is_shown_better_and_nothing_else(tmp_path: Path):
    """The largest of several means is no finding."""
    plan = Plan(pairs=PAIRS[:1], seeds=5, levels={(PAIRS[0], m): 60.0 for m in Plan().methods})
    plan.levels |= {(PAIRS[0], "assistant"): 80.0, (PAIRS[0], "ofa"): 40.0}
    source = sources(tmp_path, plan)
    table = rows(source["heterogeneous-gain"])
    assert table["assistant"][0].startswith(r"\textbf{+")
    marked = [cell for line in table.values() for cell in line if "textbf" in cell or "underline" in cell]
    assert len(marked) == 1
    assert "Bold: shown better, after Holm's correction." in source["heterogeneous-gain"]
    first = list(rows(source["heterogeneous-mean"]))
    assert first[0] == "assistant" and first[-1] == "ofa", "by gain"
    none = sources(tmp_path / "two", Plan(pairs=PAIRS[:1], seeds=2))
    assert "textbf" not in "".join(none.values()), "two seeds show nothing"


def test_an_incomplete_method_is_told_and_never_the_best(tmp_path: Path):
    plan = Plan(pairs=PAIRS[:2], missing=[(PAIRS[0], "ofa", 1)], levels={(PAIRS[0], "ofa"): 99.0})
    source = sources(tmp_path, plan)["heterogeneous-gain"]
    assert rows(source)["ofa"][0] == "X (2/3)"
    assert f"n = 2 pairs x 3 seeds; missing: ofa on {PAIRS[0]} seed 1." in source


@pytest.mark.parametrize(
    "plan", [Plan(methods=AWKWARD, pairs=PAIRS[:2]), published_plan(pairs=2)], ids=["awkward", "published"]
)
def test_every_table_is_well_formed(tmp_path: Path, plan: Plan):
    found = sources(tmp_path, plan)
    inputs = re.findall(r"\\input\{(.*)\}", found.pop("report"))
    assert inputs == list(found)
    assert len(set(re.findall(r"\\label\{(.*)\}", "".join(found.values())))) == len(found)
    for source in found.values():
        assert source.isascii()
        bare = re.sub(r"\\[\\&%$#_{}]", "", source)
        assert bare.count("{") == bare.count("}")
        assert bare.count("$") % 2 == 0
        assert re.findall(r"\\(?:begin|end)\{(\w+)\}", source) == ["table", "tabular", "tabular", "table"]
        columns = len(re.search(r"tabular\}\{(l r*|lr*)\}", source)[1])  # type: ignore[index]
        assert {len(cells) + 1 for cells in rows(source).values()} == {columns}
        assert r"\caption{" in source
        assert "n = " in source


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex")
@pytest.mark.parametrize(
    "plan", [Plan(methods=AWKWARD, pairs=PAIRS[:2]), published_plan(pairs=2)], ids=["awkward", "published"]
)
def test_the_document_compiles(tmp_path: Path, plan: Plan):
    content = collect(load_study(write_results(tmp_path, plan)))
    build_report(content, tmp_path / "report", ["latex"])
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "report.tex"]
    done = subprocess.run(command, cwd=tmp_path / "report/latex", capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout[-2000:]
