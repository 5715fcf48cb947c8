"""Every outcome of the gate, from records whose truth is known."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kdbench.errors import KdbenchError
from kdbench.gate.baseline import Baseline, changes, doubt, load_baseline, make_baseline, scattered
from kdbench.gate.check import check_study
from kdbench.gate.joining import join_baselines
from kdbench.gate.verdict import CheckResult, Outcome, Verdict
from kdbench.results.study import read_study
from tests.support.command import kdbench
from tests.support.world import METHODS, PAIRS, SIGMA, World

PROXY_2 = {
    ("vit-t:resnet-s", "rsd"): """
        78.75 78.50 78.20 9.15 76.45 77.05 76.20 79.10 78.45 77.15
        74.45 78.75 77.45 74.95 80.35 76.80 77.45 79.00 76.05 75.10
    """,
    ("mixer-t:resnet-s", "pkt"): """
        65.45 73.95 72.70 72.90 74.20 67.35 76.40 72.40 75.65 76.10
        75.75 75.50 73.35 70.85 72.05 73.20 67.25 68.65 71.25 75.45
    """,
    ("vit-t:vit-s", "at"): """
        61.10 62.30 52.50 61.25 57.90 60.25 61.15 55.50 62.65 54.95
        61.15 59.60 59.90 58.85 60.95 60.50 63.55 61.40 61.10 52.25
    """,
    ("vit-t:resnet-s", "kd"): """
        79.90 79.85 81.70 79.90 80.15 79.30 80.10 80.00 81.15 78.55
        80.15 80.15 81.10 80.25 80.50 79.80 80.10 80.50 80.55 79.20
    """,
}
"""Top-1 of 20 seeds as the baseline of proxy/2 had them; its recipe did not clip the gradients of CNN students."""
FRESH = World(seeds=range(20, 26), numerics=1)
PLACE = (PAIRS[0], "ofa")
OTHER = {"hyperparameters": {"temperature": 4.0}}


@pytest.fixture(scope="module")
def baseline(tmp_path_factory: pytest.TempPathFactory) -> Baseline:
    return make_baseline(read_study(World().write(tmp_path_factory.mktemp("baseline"))))


@pytest.fixture
def held(baseline: Baseline, tmp_path: Path):
    """Writes a world and holds it against the baseline."""

    def hold(world: World, **arguments: object) -> CheckResult:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        return check_study(read_study(world.write(folder)), baseline, **arguments)  # type: ignore[arg-type]

    return hold


def of(found: CheckResult, place: tuple[str, str] = PLACE) -> Verdict:
    return next(verdict for verdict in found.verdicts if verdict.pair_method == place)


def outcomes(found: CheckResult) -> set[Outcome]:
    return {verdict.outcome for verdict in found.verdicts}


def test_the_baselines_own_seeds_are_identical(held) -> None:
    for seeds in ([0], range(3), range(20)):
        found = held(World(seeds=seeds))
        assert outcomes(found) == {Outcome.IDENTICAL}
        assert found.exit_code == 0


def test_one_different_loss_or_hit_is_no_identity(held) -> None:
    seed = World()._cell(*PLACE, 0)
    loss = {term: [*values[:-1], values[-1] * 1.0001] for term, values in seed["curves"]["loss"].items()}
    for change in ({"curves": seed["curves"] | {"loss": loss}}, {"top1": seed["top1"] + 0.05}):
        verdict = of(held(World(seeds=[0], changed={(*PLACE, 0): change})))
        assert (verdict.outcome, verdict.wants) == (Outcome.MISSING_CELL, 3)
        assert "numerics changed" in verdict.reason


def test_a_seed_beyond_the_traced_ones_proves_nothing(held) -> None:
    verdict = of(held(World(seeds=[7])))
    assert (verdict.outcome, verdict.wants) == (Outcome.MISSING_CELL, 3)


def test_other_seeds_of_the_same_truth_pass(held) -> None:
    found = held(replace(FRESH, seeds=range(20, 23)))
    assert outcomes(found) == {Outcome.PASS}
    assert found.exit_code == 0
    verdict = of(found)
    assert verdict.accuracy and verdict.accuracy.n_new == 3 and verdict.accuracy.n_old == 20
    assert verdict.finds == pytest.approx(2.09 * verdict.accuracy.sigma, rel=0.01)


@pytest.mark.parametrize(("points", "outcome"), [(-5 * SIGMA, Outcome.WORSE), (5 * SIGMA, Outcome.BETTER)])
def test_a_method_that_moved(held, points: float, outcome: Outcome) -> None:
    first = of(held(replace(FRESH, seeds=range(20, 23), shift={"ofa": points})))
    assert (first.outcome, first.wants) == (Outcome.MISSING_CELL, 3)
    found = held(replace(FRESH, shift={"ofa": points}))
    assert {verdict.method for verdict in found.verdicts if verdict.outcome is outcome} == {"ofa"}
    assert of(found).blame == "method"
    assert of(found).accuracy.difference == pytest.approx(points, abs=2 * SIGMA)  # type: ignore[union-attr]
    assert found.exit_code == 1


def test_a_trainer_that_moved(held) -> None:
    found = held(replace(FRESH, shift=dict.fromkeys(METHODS, -5 * SIGMA)))
    assert outcomes(found) == {Outcome.WORSE}
    assert {verdict.blame for verdict in found.verdicts} == {"trainer"}


def test_suspicion_that_six_seeds_clear(held) -> None:
    low = {(*PLACE, seed): {"top1": 75 - 2.5 * SIGMA} for seed in (20, 21, 22)}
    high = {(*PLACE, seed): {"top1": 75 + 0.5 * SIGMA} for seed in (23, 24, 25)}
    verdict = of(held(replace(FRESH, changed=low | high)))
    assert verdict.outcome is Outcome.CLEARED
    assert held(replace(FRESH, changed=low | high)).exit_code == 0


def test_a_loss_that_moved_though_accuracy_did_not(held) -> None:
    method = held(replace(FRESH, loss_shift={"ofa": -0.2}))
    assert {verdict.method for verdict in method.verdicts if verdict.outcome is Outcome.WORSE} == {"ofa"}
    assert of(method).blame == "method" and "the loss term" in of(method).reason
    assert method.exit_code == 1
    trainer = held(replace(FRESH, loss_shift=dict.fromkeys(METHODS, 0.2)))
    assert outcomes(trainer) == {Outcome.WORSE}
    assert {verdict.blame for verdict in trainer.verdicts} == {"trainer"}


def test_a_loss_term_that_is_gone(held) -> None:
    cells = {(*PLACE, seed): FRESH._cell(*PLACE, seed) for seed in FRESH.seeds}
    for cell in cells.values():
        del cell["curves"]["loss"]["kd"]
    verdict = of(held(replace(FRESH, changed=cells)))
    assert (verdict.outcome, verdict.blame) == (Outcome.WORSE, "method")
    assert verdict.reason == "the loss terms are ce, in the baseline ce + kd"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"top1": 20.0}, "below"),
        ({"top1": math.inf}, "not finite"),
        ({"curves": {"loss": {"ce": [0.5, 0.7], "kd": [0.5, 0.5]}}}, "does not fall"),
    ],
)
def test_bounds_that_hold_for_any_seed(held, baseline: Baseline, change: dict, reason: str, tmp_path: Path) -> None:
    study = read_study(replace(FRESH, seeds=range(20, 23)).write(tmp_path))
    study.by_seed(PLACE)[21].update(change)  # type: ignore[typeddict-item]
    verdict = of(check_study(study, baseline))
    assert verdict.outcome is Outcome.WORSE and reason in verdict.reason, verdict
    assert verdict.blame == "method", "the control is as it was"
    study.by_seed((PLACE[0], "scratch"))[21].update(change)  # type: ignore[typeddict-item]
    assert of(check_study(study, baseline)).blame == "trainer"


@pytest.mark.parametrize("status", ["failed", "oom", "diverged", "timeout", "unsupported", "interrupted"])
def test_a_cell_that_did_not_end_well(held, status: str) -> None:
    found = held(replace(FRESH, changed={(*PLACE, 21): {"status": status, "error": "what went\nwrong"}}))
    assert of(found).outcome is Outcome.FAILED_CELL
    assert of(found).reason == f"seed 21 {status}: what went"
    assert found.exit_code == 2


def test_cells_that_are_not_there(held) -> None:
    lost = held(replace(FRESH, missing=[(*PLACE, 22)]))
    assert of(lost).outcome is Outcome.MISSING_CELL and "seed 22" in of(lost).reason
    gone = held(replace(FRESH, pairs=PAIRS[:1]))
    assert {verdict.pair_method for verdict in gone.verdicts if verdict.outcome is Outcome.MISSING_CELL} == {
        (PAIRS[1], method) for method in METHODS
    }
    assert lost.exit_code == gone.exit_code == 2
    assert held(replace(FRESH, pairs=PAIRS[:1]), pair_methods=[(PAIRS[0], "kd")]).exit_code == 0, (
        "unless they are not asked for"
    )


def test_a_renamed_method_is_two_findings(held) -> None:
    found = held(replace(FRESH, methods=["scratch", "kd", "ofa2"]))
    assert of(found).outcome is Outcome.MISSING_CELL
    assert of(found, (PAIRS[0], "ofa2")).outcome is Outcome.NEW_METHOD
    assert found.exit_code == 2


def test_a_new_method_passes_and_is_told(held) -> None:
    found = held(replace(FRESH, methods=[*METHODS, "mine"]), known_methods=[*METHODS, "mine", "other"])
    assert of(found, (PAIRS[0], "mine")).outcome is Outcome.NEW_METHOD
    assert of(found, ("", "other")).outcome is Outcome.NEW_METHOD, "installed, and not trained"
    assert found.exit_code == 0


def test_a_pair_that_the_baseline_has_not(held) -> None:
    found = held(replace(FRESH, pairs=[*PAIRS, "swin-t:mixer-s"]))
    assert of(found, ("swin-t:mixer-s", "kd")).outcome is Outcome.MISSING_BASELINE
    assert found.exit_code == 3


def test_other_settings_are_not_compared(held) -> None:
    found = held(replace(FRESH, protocol="proxy/2"))
    assert outcomes(found) == {Outcome.STALE_PROTOCOL}
    assert found.exit_code == 3
    other = {(*PLACE, seed): {"hyperparameters": {"temperature": 4.0}} for seed in FRESH.seeds}
    verdict = of(held(replace(FRESH, changed=other)))
    assert verdict.outcome is Outcome.STALE_PROTOCOL
    assert "hyperparameters {'temperature': 1.0} in the baseline, {'temperature': 4.0} here" in verdict.reason
    for change in ({"split": "val"}, {"teacher": World()._cell(*PLACE, 0)["teacher"] | {"sha256": "cd" * 32}}):
        verdict = of(held(replace(FRESH, changed={(*PLACE, 20): change})))
        assert verdict.outcome is Outcome.STALE_PROTOCOL


@pytest.mark.parametrize(("factor", "outcome"), [(0.6 / 1.3, Outcome.SLOWER), (0.6 * 1.3, Outcome.FASTER)])
def test_another_speed_warns(held, factor: float, outcome: Outcome) -> None:
    world = replace(FRESH, speed={"ofa": factor})
    found = held(world)
    assert {verdict.method for verdict in found.verdicts if verdict.speed is outcome} == {"ofa"}
    assert found.exit_code == 0
    assert held(world, fail_on_speed=True).exit_code == (1 if outcome is Outcome.SLOWER else 0)


def test_the_same_speed_is_no_news(held) -> None:
    for numerics in range(20):
        found = held(replace(FRESH, seeds=range(20, 23), numerics=numerics))
        assert {verdict.speed for verdict in found.verdicts} == {None, Outcome.PASS}


def test_a_few_blocks_tell_no_speed(held, baseline: Baseline, tmp_path: Path) -> None:
    study = read_study(replace(FRESH, speed={"ofa": 0.1}).write(tmp_path / "few"))
    for blocks in ("blocks", "control_blocks"):
        study.measurements[PLACE][blocks] = study.measurements[PLACE][blocks][:5]  # type: ignore[literal-required]
    assert of(check_study(study, baseline)).speed is Outcome.MISSING_CELL


def test_unmeasured_speed_fails_only_on_request(held) -> None:
    world = replace(FRESH, throughput=False)
    assert of(held(world)).speed is Outcome.MISSING_CELL
    assert held(world).exit_code == 0
    assert held(world, fail_on_speed=True).exit_code == 2


def test_twenty_unchanged_runs_alarm_as_rarely_as_claimed(held) -> None:
    """120 cells in which nothing changed: a false alarm has .17 % a cell, three or more of them one in 800."""
    verdicts = [verdict for run in range(20) for verdict in held(replace(FRESH, numerics=10 + run)).verdicts]
    assert len(verdicts) == 120
    assert sum(verdict.outcome in (Outcome.WORSE, Outcome.BETTER) for verdict in verdicts) <= 2
    assert {verdict.outcome for verdict in verdicts} >= {Outcome.PASS, Outcome.CLEARED}


def test_a_baseline_survives_its_file(baseline: Baseline, tmp_path: Path) -> None:
    path = tmp_path / "proxy.json"
    baseline.write(path)
    first = path.read_bytes()
    assert load_baseline(path) == baseline
    load_baseline(path).write(path)
    assert path.read_bytes() == first
    assert len(first) < 40_000 and first.count(b"\n") == 3 + len(baseline.cells) - 1


def test_what_a_baseline_refuses(baseline: Baseline, tmp_path: Path) -> None:
    few, dirty = World(seeds=range(6)), World(dirty=True)
    for name, world, reason in [("few", few, "6 seeds are too few"), ("dirty", dirty, "uncommitted changes")]:
        made = make_baseline(read_study(world.write(tmp_path / name)))
        assert made.provisional and reason in (doubt(made.seeds, made.environments) or "")
    assert not baseline.provisional and doubt(baseline.seeds, baseline.environments) is None
    gap = read_study(World(missing=[(*PLACE, 3)]).write(tmp_path / "gap"))
    mixed = read_study(World().write(tmp_path / "mixed"))
    mixed.by_seed(PLACE)[3]["environment"] = "another"
    for study, reason in ((gap, "not done for every seed"), (mixed, "2 kinds of machine")):
        with pytest.raises(KdbenchError, match=reason):
            make_baseline(study)


def test_cells_that_are_too_scattered_to_judge_by_are_named(baseline: Baseline, tmp_path: Path) -> None:
    assert not scattered(baseline)
    methods, pairs = ["scratch", "kd", "rsd", "pkt", "at"], sorted({pair for pair, _ in PROXY_2})
    values = {
        (*place, seed): {"top1": float(top1)} for place, row in PROXY_2.items() for seed, top1 in enumerate(row.split())
    }
    folder = tmp_path / "results"
    made = make_baseline(read_study(World(methods=methods, pairs=pairs, changed=values).write(folder)))
    told = {
        (cell.pair, cell.method): (round(cell.spread, 1), cell.seed, round(cell.below, 1)) for cell in scattered(made)
    }
    assert told == {
        ("mixer-t:resnet-s", "pkt"): (3.2, 0, 7.6),
        ("vit-t:resnet-s", "rsd"): (15.3, 3, 68.2),
        ("vit-t:vit-s", "at"): (3.2, 19, 8.5),
    }
    file = tmp_path / "baseline.json"
    update = "baseline", "update", folder, "--out", file
    refused = kdbench(*update)
    assert refused.returncode == 3 and not file.is_file()
    assert "rsd on vit-t:resnet-s spreads by 15.3 points over its seeds, seed 3 lies 68.2 below" in refused.stderr
    assert "3 of 15 cells" in refused.stderr and "--accept-spread" in refused.stderr
    accepted = kdbench(*update, "--accept-spread", "--json")
    assert accepted.returncode == 0 and file.is_file()
    assert [cell["method"] for cell in json.loads(accepted.stdout)["scattered"]] == ["pkt", "rsd", "at"]


@pytest.fixture
def part(tmp_path: Path):
    """Makes a baseline of a world."""

    def make_part(**world: Any) -> Baseline:
        return make_baseline(read_study(World(**world).write(tmp_path / str(len(list(tmp_path.iterdir()))))))

    return make_part


def test_a_baseline_grows_by_seeds_methods_and_pairs(baseline: Baseline, part: Callable[..., Baseline]) -> None:
    early = part(seeds=range(2), pairs=PAIRS[:1], methods=METHODS[:2])
    late = part(seeds=range(2, 20), pairs=PAIRS[:1], methods=METHODS[:2], throughput=False)
    ofa = part(pairs=PAIRS[:1], methods=["scratch", "ofa"])
    other = part(pairs=PAIRS[1:])
    assert early.provisional and late.provisional
    grown = join_baselines(join_baselines(join_baselines(early, late), ofa), other)
    assert grown.model_dump(exclude={"cells"}) == baseline.model_dump(exclude={"cells"})
    whole = {cell.pair_method: cell.model_dump(exclude={"seconds"}) for cell in baseline.cells}
    assert {cell.pair_method: cell.model_dump(exclude={"seconds"}) for cell in grown.cells} == whole
    backwards = join_baselines(late, early)
    assert [cell.traces for cell in backwards.cells] == [cell.traces for cell in baseline.cells[:2]]


def test_what_does_not_join(baseline: Baseline, part: Callable[..., Baseline]) -> None:
    curves = World()._cell(*PLACE, 20)["curves"]
    curves["loss"].pop("kd")
    for reason, world in (
        ("of another protocol", {"protocol": "proxy/0"}),
        ("seed 4 of kd on .* came out differently", {"changed": {(PAIRS[0], "kd", 4): {"top1": 75.3}}}),
        ("scratch on .* would have no seed 20; run .* --seeds 20,21", {"seeds": range(20, 22), "pairs": PAIRS[1:]}),
        ("kd has other hyperparameters", {"changed": {(pair, "kd", s): OTHER for pair in PAIRS for s in range(20)}}),
        ("ofa on .* has other loss terms", {"seeds": [20], "changed": {(*PLACE, 20): {"curves": curves}}}),
    ):
        with pytest.raises(KdbenchError, match=reason):
            join_baselines(baseline, part(**world))


def test_a_pair_that_a_method_does_not_support_is_no_gap(tmp_path: Path) -> None:
    place, no = (PAIRS[1], "ofa"), {"status": "unsupported", "error": "it wants a CNN"}
    old, new = (
        replace(world, changed={(*place, seed): no for seed in world.seeds})
        for world in (World(), replace(FRESH, seeds=range(20, 23)))
    )
    baseline = make_baseline(read_study(old.write(tmp_path / "old")))
    assert place not in baseline.by_pair_method and not baseline.provisional
    found = check_study(read_study(new.write(tmp_path / "new")), baseline)
    assert outcomes(found) == {Outcome.PASS} and len(found.verdicts) == len(baseline.cells)
    new.changed.clear()
    found = check_study(read_study(new.write(tmp_path / "supported")), baseline)
    assert of(found, place).outcome is Outcome.MISSING_BASELINE


def test_what_a_file_must_be(tmp_path: Path, baseline: Baseline) -> None:
    path = tmp_path / "proxy.json"
    with pytest.raises(KdbenchError, match="MISSING_BASELINE"):
        load_baseline(path)
    baseline.write(path)
    path.write_text(path.read_text().replace('"schema":1', '"schema":0'))
    with pytest.raises(KdbenchError, match="STALE_PROTOCOL"):
        load_baseline(path)


def test_old_against_new(baseline: Baseline, tmp_path: Path) -> None:
    worse = make_baseline(read_study(World(shift={"ofa": -1.0}, numerics=3).write(tmp_path / "a")))
    rows = {(row.pair, row.method): row for row in changes(baseline, worse)}
    assert rows[PLACE].p < 0.001 and rows[PLACE].new - rows[PLACE].old == pytest.approx(-1.0, abs=SIGMA)
    assert rows[PAIRS[0], "kd"].p > 0.01
    less = make_baseline(read_study(World(methods=["scratch", "kd"]).write(tmp_path / "b")))
    row = next(row for row in changes(baseline, less) if (row.pair, row.method) == PLACE)
    assert math.isnan(row.new) and math.isnan(row.p)
