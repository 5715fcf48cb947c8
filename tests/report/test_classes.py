"""Accuracies by class: the mean over unequal classes, the worst class, and a control that only guesses."""

import json
from pathlib import Path

import pytest

from kdbench.report.content import collect
from kdbench.report.message import headline
from kdbench.report.tables import mean_table
from kdbench.results.folder import Results
from kdbench.results.study import load_study
from tests.support.synthetic import PAIRS, Plan, write_results


def with_classes(folder: Path, images: list[int], hits: dict[str, list[int]]) -> Results:
    """A study whose methods hit so many images of each class, one more of the first class with each seed."""
    results = write_results(folder, Plan(pairs=PAIRS[:1], methods=list(hits)))
    for path in (results.folder / "cells").rglob("*.json"):
        record = json.loads(path.read_text())
        own = [hits[record["method"]][0] + record["seed"], *hits[record["method"]][1:]]
        change = {"class_images": images, "class_hits": own, "evaluated": sum(images), "correct": ""}
        path.write_text(
            json.dumps(
                record | change | {"top1": 100 * sum(own) / sum(images), "majority": 100 * max(images) / sum(images)}
            )
        )
    return results


def test_a_gain_on_a_large_class_may_be_a_loss_elsewhere(tmp_path: Path) -> None:
    hits = {"scratch": [600, 80], "kd": [680, 60], "ofa": [600, 90]}
    study = load_study(with_classes(tmp_path, [800, 100], hits))
    by_method = study.cells.set_index(["method", "seed"])
    assert by_method.loc[("kd", 1), "macro_top1"] == pytest.approx((100 * 681 / 800 + 60) / 2)
    assert by_method.loc[("kd", 1), "worst_class_top1"] == pytest.approx(60)
    assert by_method.loc[("kd", 1), "majority"] == pytest.approx(800 / 9)
    content = collect(study)
    rows = {row["method"]: row for row in mean_table(content, "heterogeneous").rows}
    assert content.group_gains["heterogeneous", "kd"].gain.value > 6
    assert rows["kd"]["macro gain"].startswith("-5.00"), "10 points more of the one class, 20 less of the other"
    assert rows["kd"]["gain of the worst class"].startswith("-15"), "60 where the worst class of scratch had 75"
    assert rows["ofa"]["macro gain"].startswith("+5.00")


def test_of_equal_classes_the_mean_is_top1(tmp_path: Path) -> None:
    hits = {"scratch": [60, 80], "kd": [70, 80]}
    content = collect(load_study(with_classes(tmp_path, [100, 100], hits)))
    (_, kd) = mean_table(content, "heterogeneous").rows
    assert "macro gain" not in kd and "gain of the worst class" in kd


def test_records_without_classes_have_no_such_columns(tmp_path: Path) -> None:
    content = collect(load_study(write_results(tmp_path, Plan(pairs=PAIRS[:1]))))
    assert not content.class_gains
    assert not any("class" in name for name in mean_table(content, "heterogeneous").rows[0])


def test_a_control_that_guesses_is_in_the_headline(tmp_path: Path) -> None:
    hits = {"scratch": [790, 10], "kd": [700, 60]}
    content = collect(load_study(with_classes(tmp_path, [800, 100], hits)))
    assert f"Training alone is at guessing on {PAIRS[0]}, so gains there say little." in headline(
        content, "heterogeneous"
    )


def test_hits_that_cannot_be_are_refused(tmp_path: Path) -> None:
    from kdbench.errors import KdbenchError

    results = with_classes(tmp_path, [70, 10], {"scratch": [69, 1], "kd": [60, 5]})
    with pytest.raises(KdbenchError, match="its hits by class are not those of its images"):
        load_study(results)
