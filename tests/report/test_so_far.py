"""A run that goes on: what its finished blocks say, in the report, in the status and beside the progress."""

import io
import json
from collections.abc import Collection
from pathlib import Path

import pytest
from rich.console import Console

from kdbench.analysis.gains import group_gains
from kdbench.engines.display import Display
from kdbench.engines.progress import Progress
from kdbench.report.so_far import first_answers, reader
from kdbench.results.study import Study, load_study
from tests.support.command import kdbench
from tests.support.synthetic import PAIRS, Plan, many_methods, write_results

METHODS = many_methods(14)
BEGUN = {"scratch", "kd", "ofa"}
"""What a third block, (PAIRS[2], seed 0), has finished."""


def unfinished(blocks: Collection[tuple[str, int]], begun: Collection[tuple[str, int]] = ()) -> Plan:
    """A run of 14 methods, 3 pairs and 3 seeds that has finished some blocks, and of others only a few methods."""
    missing = [
        (pair, method, seed)
        for pair in PAIRS[:3]
        for seed in range(3)
        for method in METHODS
        if (pair, seed) not in blocks and not ((pair, seed) in begun and method in BEGUN)
    ]
    return Plan(methods=METHODS, missing=missing, throughput=False)


@pytest.fixture(scope="module")
def partial(tmp_path_factory: pytest.TempPathFactory) -> Study:
    blocks = [(PAIRS[0], 0), (PAIRS[1], 0), (PAIRS[2], 0), (PAIRS[0], 1)]
    return load_study(write_results(tmp_path_factory.mktemp("partial"), unfinished(blocks, [(PAIRS[1], 1)])))


def test_all_methods_are_compared_on_the_same_blocks(partial: Study) -> None:
    finished = partial.finished()
    assert finished is not None
    assert finished.blocks == {PAIRS[0]: [0, 1], PAIRS[1]: [0], PAIRS[2]: [0]}
    for row in group_gains(finished):
        top1 = {
            pair: [
                partial.records[pair, row.method, seed]["top1"] - partial.records[pair, "scratch", seed]["top1"]
                for seed in seeds
            ]
            for pair, seeds in finished.blocks.items()
        }
        assert row.n == row.planned == 4
        assert row.gain.value == pytest.approx(sum(sum(gains) / len(gains) for gains in top1.values()) / 3)
        assert row.gain.low != row.gain.low and row.p_control != row.p_control


def test_without_a_finished_block_there_is_no_answer(tmp_path: Path) -> None:
    study = load_study(write_results(tmp_path, unfinished([], [(PAIRS[0], 0)])))
    assert study.finished() is None and first_answers(study) is None


def test_what_a_few_methods_lack_hides_no_others(tmp_path: Path) -> None:
    missing = [(pair, "crd", seed) for pair in PAIRS[:3] for seed in range(3) if (pair, seed) != (PAIRS[0], 0)]
    study = load_study(write_results(tmp_path, Plan(methods=METHODS, missing=missing)))
    assert study.finished() is study


def test_the_report_says_of_which_blocks_it_is(tmp_path: Path) -> None:
    write_results(tmp_path, unfinished([(PAIRS[0], 0), (PAIRS[1], 0)]))
    assert "So far: seed 0 on 2 of 3 pairs." in kdbench("report", tmp_path, "--format", "md,html,json").stdout
    for name in ("report.md", "report.html"):
        page = (tmp_path / "report" / name).read_text()
        assert "So far: seed 0 on 2 of 3 pairs." in page
        assert "X (" not in page.replace("X (2/3)", "")
        assert "28 of 126 cells done, 98 missing" in page
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert report["so_far"].startswith("So far: seed 0 on 2 of 3 pairs.")


def test_status_tells_the_gains(tmp_path: Path) -> None:
    write_results(tmp_path, unfinished([(PAIRS[0], 0)]))
    shown = kdbench("status", tmp_path).stdout
    assert "So far: seed 0 on 1 of 3 pairs." in shown and "4 more" in shown
    gains = json.loads(kdbench("status", tmp_path, "--json").stdout)["so_far"]
    assert list(gains.values()) == sorted(gains.values(), reverse=True) and set(gains) == set(METHODS)
    assert gains["scratch"] == 0


class _Task:
    label, weight = "task", 1


@pytest.mark.parametrize("terminal", [False, True])
def test_the_progress_shows_them_after_a_task(tmp_path: Path, terminal: bool) -> None:
    results = write_results(tmp_path, unfinished([(PAIRS[0], 0)]))
    output = io.StringIO()
    console = Console(file=output, width=80, height=40, force_terminal=terminal, color_system=None)
    display = Display(console, "accuracy", 2, reader(results))
    with display.shown():
        display.update(_Task(), Progress("task", 0.5))
        display.finished(_Task(), None)
    shown = output.getvalue()
    if terminal:
        assert "gain over training alone" in shown and "4 more" in shown
    else:
        answers = first_answers(load_study(results))
        assert answers is not None and shown == f"{answers.line}\n"
        assert shown.startswith("so far, mean gain over 1 of 9 blocks: ")
