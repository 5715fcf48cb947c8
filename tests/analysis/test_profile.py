"""Performance profiles: distances from the best of each run, and who takes part."""

from pathlib import Path

import numpy as np

from kdbench.analysis.gains import pair_gains
from kdbench.analysis.profile import Profile, profiles
from kdbench.results.study import load_study
from tests.support.synthetic import PAIRS, Plan, write_results


def found(folder: Path, plan: Plan) -> list[Profile]:
    study = load_study(write_results(folder, plan))
    return profiles({(row.pair, row.method): row for row in pair_gains(study)}, study.groups)


def test_distances_are_those_of_top1(tmp_path: Path) -> None:
    plan = Plan(pairs=PAIRS[:2], epochs=2)
    (profile,) = found(tmp_path, plan)
    cells = load_study(write_results(tmp_path, plan)).cells
    top1 = cells.pivot_table(index=["pair", "seed"], columns="method", values="top1")
    below = top1.rsub(top1.max(axis=1), axis=0)
    assert sorted(profile.methods) == sorted(plan.methods), "the control takes part"
    assert np.allclose(np.sort(profile.distances, axis=0), np.sort(below[list(profile.methods)].to_numpy(), axis=0))
    means = profile.distances.mean(axis=0)
    assert (np.diff(means) >= 0).all(), "nearest to the best first"


def test_shares_rise_from_how_often_a_method_is_the_best_to_one(tmp_path: Path) -> None:
    (profile,) = found(tmp_path, Plan(pairs=PAIRS[:3], epochs=2))
    points = np.array([0.0, profile.distances.max()])
    shares = np.array([profile.share(number, points) for number in range(len(profile.methods))])
    assert shares[:, 0].sum() == 1, "one method is the best of a run"
    assert (shares[:, 1] == 1).all()


def test_an_incomplete_method_takes_no_part(tmp_path: Path) -> None:
    plan = Plan(pairs=PAIRS[:2], epochs=2, missing=[(PAIRS[1], "ofa", 0)])
    (profile,) = found(tmp_path, plan)
    assert sorted(profile.methods) == ["assistant", "fitnet", "kd", "scratch"]
    every = [(pair, method, 0) for pair in PAIRS[:2] for method in Plan().methods[1:]]
    assert not found(tmp_path / "one", Plan(pairs=PAIRS[:2], epochs=2, missing=every)), "a control alone is no profile"
