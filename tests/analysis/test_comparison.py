"""A study beside the published numbers: what is compared with what, and what is not comparable."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from kdbench.analysis.comparison import ALLOWANCE, Comparison, compare_with_published
from kdbench.analysis.stats import paired_t
from kdbench.files import read_json, write_json
from kdbench.results.schema import PublishedNames
from kdbench.results.study import load_study
from kdbench.suites.loading import load_suite
from tests.support.synthetic import PUBLISHED, Plan, published_plan, write_results


def compared(folder: Path, plan: Plan) -> dict[tuple[str, str, str], list[Comparison]]:
    """The rows of the comparison by pair, method and protocol."""
    rows: dict[tuple[str, str, str], list[Comparison]] = {}
    for row in compare_with_published(load_study(write_results(folder, plan))):
        rows.setdefault((row.pair, row.method, row.protocol), []).append(row)
    return rows


def test_best_is_held_against_best(tmp_path: Path) -> None:
    results = write_results(tmp_path, published_plan(pairs=1))
    row = next(
        row for row in compare_with_published(load_study(results)) if (row.method, row.protocol) == ("ofa", PUBLISHED)
    )
    cells = {(cell["method"], cell["seed"]): cell for cell in results.cells()}
    best = np.array([cells["ofa", seed].get("best_top1", 0.0) for seed in range(3)])
    control = np.array([cells["scratch", seed].get("best_top1", 0.0) for seed in range(3)])
    assert row.epoch == "best" and row.reason == "" and row.seeds == 3 and row.teacher_top1 == 89.26
    assert row.top1.published == 80.54 and row.top1.ours.value == pytest.approx(best.mean())
    assert row.top1.difference == pytest.approx(best.mean() - 80.54)
    half = paired_t(best).high - best.mean()
    assert row.top1.tolerance == pytest.approx(math.hypot(half, ALLOWANCE))
    assert row.gain.published == pytest.approx(80.54 - 74.01)
    assert row.gain.ours.value == pytest.approx((best - control).mean())
    half = paired_t(best - control).high - row.gain.ours.value
    assert row.gain.tolerance == pytest.approx(math.hypot(half, math.sqrt(2) * ALLOWANCE))


def test_last_is_held_against_last(tmp_path: Path) -> None:
    names = PublishedNames(
        protocol="crd-240ep-32px",
        models={"resnet-m": "resnet56", "resnet-s": "resnet20"},
        methods={"scratch": ["scratch"], "kd": ["KD"], "fitnet": ["FitNet"]},
    )
    results = write_results(tmp_path, Plan(pairs=["resnet-m:resnet-s"], protocol="crd/1", published=names))
    rows = {row.method: row for row in compare_with_published(load_study(results))}
    last = [cell.get("top1") for cell in results.cells() if cell["method"] == "kd"]
    assert rows["kd"].epoch == "last" and rows["kd"].top1.ours == paired_t([value for value in last if value])
    # mdistiller, whose code keeps the best epoch, quotes the number of RepDistiller, whose code does not.
    assert rows["kd"].sources[0] == "RepDistiller" and "mdistiller" in rows["kd"].sources
    # The control's number stands beside those of the methods, in a column.
    assert rows["scratch"].top1.published == 69.06 and math.isnan(rows["scratch"].gain.published)
    assert "DIST" in rows["scratch"].sources


def test_equal_numbers_of_several_sources_are_one(tmp_path: Path) -> None:
    rows = compared(tmp_path, published_plan())
    told = {row.top1.published: row.sources for row in rows["convnext-t:resmlp-s12", "ofa", PUBLISHED]}
    assert told == {75.21: ("FBT",), 81.22: ("PAT", "RSD")}


def test_verdicts(tmp_path: Path) -> None:
    plan = published_plan()
    plan.levels["swin-t:resnet18", "kd"] += 4.0
    rows = compared(tmp_path, plan)
    for method, verdict in (("ofa", "reproduced"), ("assistant", "below"), ("kd", "above")):
        row = rows["swin-t:resnet18", method, PUBLISHED][0]
        assert row.top1.verdict == row.gain.verdict == verdict
        assert (abs(row.top1.difference) <= row.top1.tolerance) == (verdict == "reproduced")
    ours, theirs = rows["convnext-t:resmlp-s12", "ofa", PUBLISHED]
    assert (ours.top1.verdict, theirs.top1.verdict) == ("reproduced", "below")


def test_one_seed_has_no_verdict(tmp_path: Path) -> None:
    row = compared(tmp_path, published_plan(pairs=1, seeds=1))["swin-t:resnet18", "ofa", PUBLISHED][0]
    assert not math.isnan(row.top1.difference)
    assert math.isnan(row.top1.tolerance) and row.top1.verdict is None


def test_an_incomplete_set_is_not_compared(tmp_path: Path) -> None:
    plan = replace(published_plan(pairs=2), missing=[("swin-t:resnet18", "ofa", 1), ("vit-s:resnet18", "scratch", 0)])
    rows = compared(tmp_path, plan)
    row = rows["swin-t:resnet18", "ofa", PUBLISHED][0]
    assert row.seeds == 0 and math.isnan(row.top1.ours.value) and row.top1.verdict is None
    row = rows["vit-s:resnet18", "ofa", PUBLISHED][0]
    assert row.top1.verdict is not None
    assert row.gain.verdict is None and math.isnan(row.gain.ours.value), "a gain needs the control"


@pytest.mark.parametrize(
    ("protocol", "split", "reason"),
    [
        ("cifar100/1+epochs=5,limit=1000", "test", "reduced run (epochs=5, limit=1000)"),
        ("cifar100/1+test_limit=100", "test", "reduced run (test_limit=100)"),
        ("cifar100/1", "val", "validation split"),
    ],
)
def test_runs_that_are_not_comparable(tmp_path: Path, protocol: str, split: str, reason: str) -> None:
    rows = compared(tmp_path, replace(published_plan(protocol, pairs=1), split=split))
    row = rows["swin-t:resnet18", "ofa", PUBLISHED][0]
    assert row.own_protocol and row.reason == reason
    assert row.top1.verdict is row.gain.verdict is None
    assert math.isnan(row.top1.difference) and not math.isnan(row.top1.ours.value)


def test_other_hyperparameters_are_not_the_protocols(tmp_path: Path) -> None:
    rows = compared(tmp_path, replace(published_plan(pairs=1), altered={"ofa": ["temperature=2.0"]}))
    row = rows["swin-t:resnet18", "ofa", PUBLISHED][0]
    assert row.own_protocol and row.reason == "other hyperparameters (temperature=2.0)"
    assert row.top1.verdict is None and row.gain.verdict is None
    assert rows["swin-t:resnet18", "kd", PUBLISHED][0].top1.verdict is not None


def test_the_suite_and_the_study_agree_on_what_is_reduced(tmp_path: Path, proxy_protocol: str) -> None:
    rows = compared(tmp_path, published_plan(proxy_protocol, pairs=1))
    assert rows["swin-t:resnet18", "ofa", PUBLISHED][0].reason == "reduced run (epochs=2, limit=50)"


@pytest.fixture
def proxy_protocol() -> str:
    return load_suite("proxy").reduced(2, 50, None).protocol


@pytest.mark.parametrize(
    ("own", "reason"),
    [
        ("crd-240ep-32px", f"protocol differs ({PUBLISHED})"),
        ("dist-B1-100ep", "other data (cifar100)"),
        (None, "the suite follows no published protocol"),
    ],
)
def test_numbers_of_other_protocols(tmp_path: Path, own: str | None, reason: str) -> None:
    plan = published_plan(pairs=1)
    assert plan.published is not None
    plan.published["protocol"] = own
    rows = compared(tmp_path, plan)
    row = rows["swin-t:resnet18", "ofa", PUBLISHED][0]
    assert not row.own_protocol and row.reason == reason and row.top1.verdict is None


def test_own_protocol_first_and_the_other_scratch_numbers_of_the_pair_only(tmp_path: Path) -> None:
    rows = compare_with_published(load_study(write_results(tmp_path, published_plan(pairs=1))))
    for method in ("scratch", "kd", "ofa"):
        own = [row.own_protocol for row in rows if row.method == method]
        assert own == sorted(own, reverse=True) and not all(own)
    # ResNet18 is the student of many protocols; these have the pair.
    assert {row.protocol for row in rows if row.method == "scratch"} == {
        PUBLISHED,
        f"{PUBLISHED}+ema+kd",
        f"{PUBLISHED}@1gpu",
        "ofa-imagenet",
    }


def test_records_without_names_have_no_published_numbers(tmp_path: Path) -> None:
    assert compare_with_published(load_study(write_results(tmp_path / "a", Plan()))) == []
    results = write_results(tmp_path / "b", published_plan(pairs=1))
    manifest = read_json(results.manifest_path)
    manifest["published"] = {"protocol": None, "models": {}, "methods": {"kd": ["KD"]}}
    write_json(results.manifest_path, manifest)
    assert compare_with_published(load_study(results)) == []
