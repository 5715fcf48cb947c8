"""Which teacher: by hand on a small study, and only where there is a choice."""

from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from kdbench.analysis.teachers import teacher_gains
from kdbench.report.content import collect
from kdbench.report.tables import teacher_table
from kdbench.results.study import load_study
from tests.support.synthetic import Plan, write_results

PAIRS = ["vit-t:resnet-s", "mixer-t:resnet-s", "resnet-t:swin-s"]


def test_the_mean_over_methods_by_seed(tmp_path: Path) -> None:
    levels = {("vit-t:resnet-s", "ofa"): 90.0, ("mixer-t:resnet-s", "ofa"): 60.0}
    missing = [("mixer-t:resnet-s", "fitnet", 1)]
    study = load_study(write_results(tmp_path, Plan(pairs=PAIRS, levels=levels, missing=missing)))
    first, second = teacher_gains(study)
    assert [row.teacher for row in (first, second)] == ["vit-t", "mixer-t"], "swin-s has one teacher only"
    methods = ["kd", "ofa", "assistant"]
    means = {}
    for teacher in ("vit-t", "mixer-t"):
        top1 = {
            (method, seed): study.records[f"{teacher}:resnet-s", method, seed]["top1"]
            for method in (*methods, "scratch")
            for seed in range(3)
        }
        means[teacher] = [
            np.mean([top1[method, seed] - top1["scratch", seed] for method in methods]) for seed in range(3)
        ]
    assert first.methods == 3 and first.gain.value == pytest.approx(np.mean(means["vit-t"]))
    difference = stats.ttest_ind(means["vit-t"], means["mixer-t"], equal_var=False).confidence_interval()
    assert (second.behind.low, second.behind.high) == pytest.approx((difference.low, difference.high))
    assert first.behind.value != first.behind.value
    rows = teacher_table(collect(study)).rows
    assert [row["teacher"] for row in rows] == ["vit-t", "mixer-t"] and rows[0]["parameters"] == "900.0k"


def test_without_a_choice_there_is_no_table(tmp_path: Path) -> None:
    study = load_study(write_results(tmp_path, Plan(pairs=PAIRS[1:])))
    assert teacher_gains(study) == [] and teacher_table(collect(study)).rows == []
