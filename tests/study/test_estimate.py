"""The page about scale says what the estimate says."""

import re
from contextlib import redirect_stdout
from io import StringIO

import pytest
from estimate import STEP, Work, main, works

from kdbench.suites.loading import load_suite
from tests.docs.commands import ROOT, Command, steps

pytestmark = pytest.mark.runs

PAGE = "docs/scale.md"
Line = tuple[str, ...]


def test_a_pass_of_the_teacher_is_counted_as_often_as_it_is_run() -> None:
    one = Work(teacher=10.0, student=2.0, images=100)
    assert one.flops(1, 1) == pytest.approx(100 * (10 + 2 * STEP))
    assert one.shared(16) == pytest.approx(100 * (10 + 16 * 2 * STEP))
    assert one.shared(25) == pytest.approx(100 * (2 * 10 + 25 * 2 * STEP)), "25 are trained in two groups"
    assert one.apart(25) == pytest.approx(100 * (24 * 10 + 25 * 2 * STEP)), "the control has no teacher"


def test_the_work_of_a_pair() -> None:
    suite = load_suite("cifar100@short")
    (pair,) = suite.select_pairs("swin-t:resnet18")
    one = works(suite, [pair], 50000)[pair.name]
    # Swin-T 4.5 and ResNet18 1.8 billion multiply-adds, as their papers have them.
    assert one.teacher == pytest.approx(2 * 4.5e9, rel=0.02) and one.student == pytest.approx(2 * 1.8e9, rel=0.02)
    assert one.images == 50000 * 60


@pytest.fixture(scope="module")
def printed() -> list[dict[str, Line]]:
    """What the commands of the page print: hours shared, hours apart and ratio, by the first column."""
    tables = []
    for step in steps(PAGE):
        if isinstance(step, Command) and "docs/tools/estimate.py" in step.words:
            with redirect_stdout(StringIO()) as out:
                assert main(list(step.words[2:])) == 0
            cells = [line.strip("| ").split(" | ") for line in out.getvalue().splitlines()[2:]]
            tables.append({row[0]: tuple(row[-3:]) for row in cells})
    return tables


def test_the_table_of_the_page(printed: list[dict[str, Line]]) -> None:
    text = (ROOT / PAGE).read_text()
    (first, second, both) = re.findall(r"^\| (?:12|15|all 27) .*\| ([\d,]+) \| ([\d,]+) \| ([\d.]+) \|$", text, re.M)
    assert [first, second] == [table[f"all {len(table) - 1}"] for table in printed]
    hours = [[float(word.replace(",", "")) for word in row] for row in (first, second, both)]
    assert hours[2][:2] == [hours[0][0] + hours[1][0], hours[0][1] + hours[1][1]]
    assert hours[2][2] == round(hours[2][1] / hours[2][0], 2)


def test_where_sharing_saves_least_and_most(printed: list[dict[str, Line]]) -> None:
    by_ratio = sorted((float(row[-1]), name) for table in printed for name, row in table.items())
    (least, pair), (most, other) = by_ratio[0], by_ratio[-1]
    text = " ".join((ROOT / PAGE).read_text().split())
    assert f"from {least} (`{pair}`) to {most} (`{other}`)" in text
