"""The page about scale says what the estimate says."""

import re
from pathlib import Path

import pytest

from kdbench.study.estimate import Work, main, work
from kdbench.suites.loading import load

DOCS = (Path(__file__).parents[2] / "docs" / "scale.md").read_text()


def test_a_pass_of_the_teacher_is_counted_as_often_as_it_is_run() -> None:
    one = Work(teacher=10.0, student=6.0, own=1.0, images=100.0)
    assert one.flops(1, 1) == 100 * (10 + 7)
    assert one.shared(16) == 100 * (10 + 16 * 7)
    assert one.shared(25) == 100 * (2 * 10 + 25 * 7), "25 are trained in two groups"
    assert one.apart(25) == 100 * (24 * 10 + 25 * 7), "the control has no teacher"


def test_the_work_of_a_pair() -> None:
    suite = load("cifar100@short")
    (pair,) = suite.select_pairs("swin-t:resnet18")
    one = work(suite, pair, 50000, extra=0.3)
    # Swin-T 4.5 and ResNet18 1.8 billion multiply-adds, as their papers have them.
    assert one.teacher == pytest.approx(2 * 4.5e9, rel=0.02) and one.student == pytest.approx(3 * 2 * 1.8e9, rel=0.02)
    assert one.own == pytest.approx(one.student / 10)
    assert one.images == 50000 * 60


@pytest.mark.parametrize(("suite", "images", "pair"), [("cifar100", 50000, "mixer-b16:swin-p")])
def test_a_line_of_the_page_found_again(
    suite: str, images: int, pair: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command = f"python -m kdbench.study.estimate --suite {suite} --images {images} --peak 989"
    assert command in DOCS
    assert main([*command.split()[3:], "--pairs", pair]) == 0
    line = capsys.readouterr().out.splitlines()[2]
    assert line.startswith(f"| {pair} |") and line in DOCS


def test_the_sums_of_the_page() -> None:
    found = re.findall(r"^\| (\S+|all \d+) \|.*\| ([\d,]+) \| ([\d,]+) \| [\d.]+ \|$", DOCS, re.MULTILINE)
    hours = {name: (int(shared.replace(",", "")), int(apart.replace(",", ""))) for name, shared, apart in found}
    sums = hours.pop("all 12"), hours.pop("all 15")
    total = hours.pop("all 27")
    assert total == tuple(map(sum, zip(*sums, strict=True)))
