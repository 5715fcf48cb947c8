"""Does the gate see planted bugs? Real trainings, sized small: `pytest tests/benchmarks/test_gate_bugs.py -m bench -s`.

A baseline of 20 seeds on one pair, three epochs each, then each bug with fresh seeds; some ten minutes on one core. The
trainings run in this process, where the trainer can be tampered with.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from kdbench.compute.device import Compute
from kdbench.data.normalise import normalise
from kdbench.engines.channel import Channel
from kdbench.files import write_json
from kdbench.gate.baseline import Baseline, make_baseline
from kdbench.gate.check import check_study
from kdbench.gate.verdict import CheckResult, Outcome, Verdict
from kdbench.models.staged import StagedModel
from kdbench.registry import Plugin, Registry
from kdbench.results.folder import Results
from kdbench.results.study import read_study
from kdbench.study.accuracy import AccuracyJob
from kdbench.study.plan import make_plan
from kdbench.study.throughput import planned_measurements, throughput_jobs
from kdbench.suites.loading import load_suite
from kdbench.suites.schema import Augment, Suite
from kdbench.training import lockstep
from kdbench.training.arena import Arena
from kdbench.training.contender import Contender
from tests.conftest import NO_DATA

pytestmark = [pytest.mark.bench, pytest.mark.timeout(3600)]

PAIR = "resnet-t:resnet-s"
OTHER = "resnet-t:mixer-s"
"""Where a teacher in training mode is seen: what batch norm makes of a batch is little to a student with batch norm."""
EPOCHS = 3
FRESH = range(20, 26)
CHANNEL = Channel(lambda progress: None, lambda note: None)
VICTIM = '''
import time
from torch import Tensor
from torch.nn import functional as F
from kdbench.method import Batch, Method, Outputs

class Victim(Method):
    """Vanilla KD at T = 4, to plant bugs in."""

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> dict[str, Tensor]:
        T = 4
        teacher_soft, student_soft = (teacher.logits / T).softmax(1), (student.logits / T).log_softmax(1)
        soft = F.kl_div(student_soft, teacher_soft, reduction="batchmean")
        return {"ce": batch.cross_entropy(student.logits), "soft": T**2 * soft}
'''

Train = Callable[..., Results]


@pytest.fixture(scope="module")
def train(short_suite: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Train:
    """Trains the control and the victim on some seeds in this process."""
    import torch

    compute = Compute(torch.device("cpu"), "fp32", threads=1)
    suite = load_suite(str(short_suite(epochs=EPOCHS, text=lambda text: text.replace("blocks = 3", "blocks = 60"))))

    def run(
        seeds: Sequence[int], victim: str = VICTIM, suite: Suite = suite, throughput: bool = False, pair: str = PAIR
    ) -> Results:
        folder = tmp_path_factory.mktemp("trained")
        (folder / "victim.py").write_text(victim)
        plugins = [Registry.installed().plugins["scratch"], Plugin("victim", str(folder / "victim.py"), "test")]
        plan = make_plan(suite, plugins, suite.select_pairs(pair), seeds, compute=compute, data_root=NO_DATA)
        results, planned = Results(folder), planned_measurements(plan, compute) if throughput else []
        write_json(results.manifest_path, plan.manifest(planned))
        for seed in seeds:
            cells = tuple(cell for cell in plan.cells() if cell.seed == seed)
            AccuracyJob(plan.suite, plan.pairs[0], seed, cells, "test", compute, NO_DATA, folder).execute(CHANNEL)
        for task in throughput_jobs(plan, planned, compute, NO_DATA, results):
            task.execute(CHANNEL)
        return results

    run.suite = suite  # type: ignore[attr-defined]
    return run


@pytest.fixture(scope="module")
def baseline(train: Train) -> Baseline:
    return make_baseline(read_study(train(range(20))))


def seen(results: Results, baseline: Baseline, fail_on_speed: bool = False) -> dict[str, Verdict]:
    found: CheckResult = check_study(read_study(results), baseline, fail_on_speed=fail_on_speed)
    for verdict in found.verdicts:
        accuracy = verdict.accuracy
        moved = f"{accuracy.difference:+.2f} points, p {accuracy.p:.4f}" if accuracy else ""
        ratios = f"{verdict.old_ratio.value:.2f} to {verdict.new_ratio.value:.2f}"
        print(f"\n{verdict.outcome} {verdict.blame or ''} {verdict.method}: {verdict.reason} [{moved}, speed {ratios}]")
    return {verdict.method: verdict for verdict in found.verdicts}


def test_without_a_bug_it_passes(train: Train, baseline: Baseline) -> None:
    assert {verdict.outcome for verdict in seen(train([0]), baseline).values()} == {Outcome.IDENTICAL}
    outcomes = {verdict.outcome for verdict in seen(train(FRESH), baseline).values()}
    assert outcomes <= {Outcome.PASS, Outcome.CLEARED}


@pytest.mark.parametrize(
    ("right", "wrong"),
    [('"soft": T**2 * soft', '"soft": 0.0 * soft'), ("T**2 * soft", "soft"), (', "soft": T**2 * soft', "")],
    ids=["term multiplied by zero", "no T^2", "term dropped"],
)
def test_a_bug_in_the_method(train: Train, baseline: Baseline, right: str, wrong: str) -> None:
    assert right in VICTIM
    verdicts = seen(train(FRESH, VICTIM.replace(right, wrong)), baseline)
    assert (verdicts["victim"].outcome, verdicts["victim"].blame) == (Outcome.WORSE, "method")
    assert verdicts["scratch"].outcome in (Outcome.PASS, Outcome.CLEARED)


def _teacher_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the training alone, and put back: where it stays so, self-check and hash refuse the cells before any gate."""
    answer = lockstep.teacher_outputs

    def trains(teacher: StagedModel, *arguments: Any) -> Any:
        buffers = [buffer.clone() for buffer in teacher.buffers()]
        teacher.train()
        try:
            return answer(teacher, *arguments)
        finally:
            teacher.eval()
            for buffer, before in zip(teacher.buffers(), buffers, strict=True):
                buffer.copy_(before)

    monkeypatch.setattr(lockstep, "teacher_outputs", trains)


def _spoil(monkeypatch: pytest.MonkeyPatch, change: Callable[[Arena], object]) -> None:
    """Every arena is changed when it is entered."""
    enter = Arena.enter

    def spoiled(*arguments: Any) -> Arena:
        arena = enter(*arguments)
        change(arena)
        return arena

    monkeypatch.setattr(Arena, "enter", spoiled)


def _labels_shift(monkeypatch: pytest.MonkeyPatch) -> None:
    def shift(arena: Arena) -> None:
        labels: Any = arena.stream.labels.clone()
        labels[::50] = (labels[::50] + 1) % arena.task.num_classes
        arena.stream.labels = labels

    _spoil(monkeypatch, shift)


def test_a_teacher_in_training_mode(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    baseline = make_baseline(read_study(train(range(20), pair=OTHER)))
    _teacher_trains(monkeypatch)
    verdicts = seen(train(FRESH, pair=OTHER), baseline)
    assert (verdicts["victim"].outcome, verdicts["victim"].blame) == (Outcome.WORSE, "method")
    assert verdicts["scratch"].outcome in (Outcome.PASS, Outcome.CLEARED)


def test_shifted_labels(train: Train, baseline: Baseline, monkeypatch: pytest.MonkeyPatch) -> None:
    _labels_shift(monkeypatch)
    verdict = seen(train(FRESH), baseline)["victim"]
    assert (verdict.outcome, verdict.blame) == (Outcome.WORSE, "trainer")


def test_a_teacher_that_stays_in_train_mode_is_refused(
    train: Train, baseline: Baseline, monkeypatch: pytest.MonkeyPatch
) -> None:
    _spoil(monkeypatch, lambda arena: arena.teacher.train())
    verdict = seen(train(FRESH[:3]), baseline)["victim"]
    assert verdict.outcome is Outcome.FAILED_CELL
    assert "teacher is frozen" in verdict.reason


def test_a_student_that_learns_on_the_teachers_view(
    train: Train, baseline: Baseline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One normalised batch for both, as ImageNet's mean and spread have it; it is evaluated on its own view.

    Trained *and* evaluated on another view it would be as good, and rightly so: batch norm undoes the difference.
    """
    learn = Contender.learn

    def anothers(contender: Contender, views: Sequence[Tensor], *arguments: Any) -> None:
        ((mean,), (std,)) = contender.student.normalisation
        changed = [normalise(255 * (images * std + mean), ((0.449,), (0.226,))) for images in views]
        learn(contender, changed, *arguments)

    monkeypatch.setattr(Contender, "learn", anothers)
    verdicts = seen(train(FRESH), baseline)
    assert {(verdict.outcome, verdict.blame) for verdict in verdicts.values()} == {(Outcome.WORSE, "trainer")}


def test_training_without_augmentation(train: Train, baseline: Baseline) -> None:
    suite: Suite = train.suite  # type: ignore[attr-defined]
    recipes = {name: recipe.model_copy(update={"augment": Augment()}) for name, recipe in suite.recipes.items()}
    verdicts = seen(train(FRESH, suite=suite.model_copy(update={"recipes": recipes})), baseline)
    blamed = {verdict.outcome: verdict.blame for verdict in verdicts.values()}
    assert (blamed.get(Outcome.WORSE) or blamed.get(Outcome.BETTER)) == "trainer"


def test_a_slower_method(train: Train) -> None:
    """1.3 times the step: the method works for .3 of the time that it took."""
    baseline = make_baseline(read_study(train([0], throughput=True)))
    results = train([0], throughput=True)
    (own,) = (record for record in results.throughput() if record["method"] == "victim")
    step = sum(own.get("phases", {}).values())
    # Processor time, which other load stretches as it stretches the rest of the step.
    work = f"T, end = 4, time.thread_time() + {0.3 * step}\n        while time.thread_time() < end: pass\n"
    slow = VICTIM.replace("T = 4\n", work, 1)
    assert slow != VICTIM
    assert seen(results, baseline)["victim"].speed is Outcome.PASS
    verdict = seen(train([0], slow, throughput=True), baseline, fail_on_speed=True)["victim"]
    assert (verdict.outcome, verdict.speed) == (Outcome.IDENTICAL, Outcome.SLOWER)
