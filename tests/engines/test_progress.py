"""The time left is right from early on: the recorded run of the reference, simulated with its own durations."""

import math
from collections.abc import Iterator, Sequence

import pytest

from kdbench.engines.progress import Pace
from kdbench.results.folder import Results
from kdbench.results.study import load_study
from tests.docs.commands import ROOT

WORKERS = 2


@pytest.fixture(scope="module")
def durations() -> list[float]:
    """Seconds of each group of the reference, in the order in which they ran."""
    study = load_study(Results(ROOT / "results" / "reference" / "proxy"))
    seconds: dict[tuple[int, str, float], None] = {}
    for cell in study.manifest["cells"]:
        record = study.records[cell["pair"], cell["method"], cell["seed"]]
        if "seconds" in record:
            seconds[cell["seed"], cell["pair"], record["seconds"]["group"]] = None
    return [duration for _, _, duration in seconds]


def looked_at(durations: Sequence[float], restored: Sequence[float]) -> Iterator[tuple[float, float | None, float]]:
    """Moments of a run: the time so far, the time left that is told, and the true one.

    Args:
        durations: of the groups, of which `WORKERS` run side by side.
        restored: the share of each that is done when it begins.
    """
    ends = [0.0] * WORKERS
    spans = []
    for length, share in zip(durations, restored, strict=True):
        worker = ends.index(min(ends))
        begin = ends[worker]
        ends[worker] = begin + length * (1 - share)
        spans.append((begin, ends[worker], length, share))
    whole, pace, ended = max(ends), Pace(len(durations)), set()
    for moment in range(int(whole)):
        for number, (begin, end, length, share) in enumerate(spans):
            if begin <= moment < end:
                pace.update(str(number), 1, share + (moment - begin) / length, moment)
            elif end <= moment and number not in ended:
                ended.add(number)
                pace.finished(str(number), 1)
        yield moment, pace.seconds_left(moment), whole - moment


def check(moments: Sequence[tuple[float, float | None, float]]) -> None:
    """Within 30 % of the truth but for the moments at which a last task has just begun, and then within 40 %."""
    errors = [math.inf if told is None else abs(told - truth) / max(truth, 5.0) for _, told, truth in moments]
    errors = errors[len(errors) // 10 :]
    assert max(errors) <= 0.4
    assert sum(error > 0.3 for error in errors) <= 0.005 * len(errors)


def test_from_a_tenth_of_the_run_on(durations: list[float]) -> None:
    check(list(looked_at(durations, [0.0] * len(durations))))


def test_after_a_resume(durations: list[float]) -> None:
    """Groups that go on from a checkpoint are no sign of speed."""
    left = durations[len(durations) // 3 :]
    check(list(looked_at(left, [0.9, 0.8, *[0.0] * (len(left) - 2)])))


def test_what_others_do_is_no_sign_of_speed() -> None:
    pace = Pace(10)
    pace.dropped(8)
    pace.update("a", 1, 0.0, 0)
    pace.update("a", 1, 0.5, 10)
    assert pace.share == pytest.approx(0.85)
    assert pace.seconds_left(10) == pytest.approx(10 + 20), "the rest of this task, and another one"


def test_nothing_is_told_before_anything_is_done() -> None:
    pace = Pace(10)
    pace.update("a", 1, 0.9, 10)
    assert pace.seconds_left(10) is None
