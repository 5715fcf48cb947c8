"""Tuning from the draws to a run with what was chosen, on the proxy's real data and models, one epoch."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from kdbench.errors import KdbenchError
from kdbench.hyperparameters import draw
from kdbench.registry import Registry
from kdbench.results.folder import Results
from kdbench.results.tuned import read_tuned
from tests.study.test_run import Short, records, run
from tests.support.command import kdbench

pytestmark = pytest.mark.runs

GRID = ["--pairs", "vit-t:resnet-s", "--limit", "250,300"]


@pytest.fixture(scope="module")
def tuned(short_suite: Short, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, dict[str, Any]]:
    """Three draws of two methods; the folder, the suite, the file."""
    folder, suite = tmp_path_factory.mktemp("tune") / "results", short_suite()
    done = _tune(folder, suite)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, suite, json.loads(done.stdout)


def _tune(folder: Path, suite: Path) -> Any:
    arguments = ["--suite", str(suite), "--out", str(folder), "--methods", "ofa", "--set", "ofa.gamma=[1.2]", "--json"]
    return kdbench("tune", *arguments, *GRID, "--trials", "3", "--seeds", "2", "--device", "cpu")


def test_every_method_with_a_space_has_as_many_draws(tuned: tuple[Path, Path, dict[str, Any]]) -> None:
    folder, _, content = tuned
    assert {name: len(method["trials"]) for name, method in content["methods"].items()} == {
        "scratch": 1,
        "kd": 1 + 3,
        "ofa": 1 + 3,
    }
    space = Registry.installed().plugins["kd"].method.search_space
    drawn = [trial["values"] for trial in content["methods"]["kd"]["trials"][1:]]
    assert drawn == [draw(space, trial) for trial in (1, 2, 3)]
    # Equal names draw equal values, whatever the method; what is set is not drawn.
    ofa = [trial["values"] for trial in content["methods"]["ofa"]["trials"]]
    assert [values["kd_weight"] for values in ofa[1:]] == [values["kd_weight"] for values in drawn]
    assert all(values["gamma"] == [1.2] for values in ofa)
    for cell in Results(folder).cells():
        assert cell["split"] == "val"
        assert cell["evaluated"] == 300


def test_the_best_on_the_validation_split_is_chosen(tuned: tuple[Path, Path, dict[str, Any]]) -> None:
    folder, _, content = tuned
    for name, method in content["methods"].items():
        for trial in method["trials"]:
            label = name if trial["trial"] == 0 else f"{name}#{trial['trial']}"
            cells = [cell for (_, its, _), cell in records(folder).items() if its == label]
            assert [cell["hyperparameters"] | _tuples(trial["values"]) for cell in cells] == [
                cell["hyperparameters"] for cell in cells
            ]
            assert trial["top1"] == pytest.approx(sum(cell["top1"] for cell in cells) / 2)
        scores = [trial["top1"] for trial in method["trials"]]
        assert method["chosen"] == scores.index(max(scores))
        assert method["values"] == method["trials"][method["chosen"]]["values"]


def _tuples(values: dict[str, Any]) -> dict[str, Any]:
    return json.loads(json.dumps(values))


def test_tuning_again_trains_nothing_and_says_the_same(tuned: tuple[Path, Path, dict[str, Any]]) -> None:
    folder, suite, content = tuned
    before = {path: path.stat().st_mtime_ns for path in (folder / "cells").rglob("*.json")}
    done = _tune(folder, suite)
    assert json.loads(done.stdout) == content == json.loads((folder / "tuned.json").read_text())
    assert before == {path: path.stat().st_mtime_ns for path in (folder / "cells").rglob("*.json")}


def test_a_run_uses_and_records_what_was_chosen(tuned: tuple[Path, Path, dict[str, Any]], tmp_path: Path) -> None:
    """On the validation split it comes out as it did beside the other trials; --set goes before what was tuned."""
    folder, suite, content = tuned
    file = folder / "tuned.json"
    arguments = [*GRID, "--methods", "ofa", "--tuned", str(file), "--no-throughput", "--seeds", "2"]
    done = run(tmp_path / "results", suite, *arguments, "--split", "val", "--set", "kd.kd_weight=0")
    assert done.returncode == 0, done.stdout + done.stderr
    cells = records(tmp_path / "results")
    ofa = content["methods"]["ofa"]
    mine = [cells["vit-t:resnet-s", "ofa", seed] for seed in (0, 1)]
    assert sum(cell["top1"] for cell in mine) / 2 == pytest.approx(max(trial["top1"] for trial in ofa["trials"]))
    note = Results(tmp_path / "results").manifest().get("tuned")
    assert note is not None and (note["file"], note["trials"]) == ("tuned.json", 3)
    chosen = content["methods"]["kd"]["values"]["temperature"]
    for (_, method, _), cell in cells.items():
        label = None if method == "scratch" else f"tuned.json {note['sha256'][:12]}"
        assert cell.get("tuned") == label
        if method == "kd":
            used = {name: cell["hyperparameters"][name] for name in ("temperature", "ce_weight", "kd_weight")}
            assert used == {"temperature": chosen, "ce_weight": 1.0, "kd_weight": 0.0}
    # What came out as the suite has it anyway is not altered.
    altered = ["kd_weight=0.0"] if chosen == 1.0 else [f"temperature={chosen}", "kd_weight=0.0"]
    assert Results(tmp_path / "results").manifest().get("altered", {})["kd"] == altered
    report = (tmp_path / "results/report/report.md").read_text().replace("\\_", "_")
    assert "Hyperparameters: tuned on held-out images, 3 draws a method" in report
    assert f"Hyperparameters of kd that are not the suite's: {', '.join(altered)}." in report


def test_what_was_tuned_for_something_else_is_refused(tuned: tuple[Path, Path, dict[str, Any]], tmp_path: Path) -> None:
    folder, _, content = tuned
    file, protocol = folder / "tuned.json", content["protocol"]
    assert read_tuned(file, protocol, ["kd"]).values == {"kd": content["methods"]["kd"]["values"]}
    with pytest.raises(KdbenchError, match=rf"was tuned under {re.escape(protocol)}, this run is of proxy/0;"):
        read_tuned(file, "proxy/0", ["kd"])
    with pytest.raises(KdbenchError, match=r"tells nothing of fitnet, .* --methods scratch,kd,ofa,fitnet"):
        read_tuned(file, protocol, ["kd", "fitnet"])
    with pytest.raises(KdbenchError, match="is not a file that `kdbench tune` wrote"):
        read_tuned(folder / "manifest.json", protocol, ["kd"])
    done = run(tmp_path / "results", tuned[1], "--tuned", str(file))
    assert done.returncode == 3 and "tune again" in done.stderr and done.stderr.count("\n") == 1


def test_a_space_of_what_there_is_not(short_suite: Short, tmp_path: Path) -> None:
    path = tmp_path / "odd.py"
    path.write_text(
        "from kdbench.method import Method, Uniform\n\n\nclass Odd(Method):\n"
        '    """Odd."""\n\n    weight: float = 1.0\n    search_space = {"wieght": Uniform(0, 1)}\n'
    )
    done = kdbench("tune", "--suite", str(short_suite()), "--methods", str(path), *GRID, cwd=tmp_path)
    assert done.returncode == 3
    assert "unknown hyperparameter of Odd.search_space 'wieght'; did you mean weight?" in done.stderr
