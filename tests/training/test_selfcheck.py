"""The self-check passes the shipped methods on every proxy pair and catches each fault it is there for."""

from dataclasses import replace
from types import MappingProxyType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from kdbench.compute.device import Compute
from kdbench.method import Batch, Method, Needs, Outputs, Pair, UnsupportedPair
from kdbench.registry import Registry
from kdbench.suites.schema import Suite
from kdbench.training.arena import Arena
from kdbench.training.selfcheck import passed
from tests.conftest import NO_DATA

pytestmark = pytest.mark.runs


@pytest.fixture(scope="module")
def arenas(proxy: Suite) -> dict[str, Arena]:
    compute = Compute(torch.device("cpu"), "fp32", 1)
    return {pair.name: Arena.enter(proxy, pair, 0, "val", compute, NO_DATA) for pair in proxy.pairs}


@pytest.mark.parametrize("name", Registry.installed().names)
def test_every_method_on_every_pair(arenas: dict[str, Arena], name: str) -> None:
    """Or it says why not; every one works on some pair."""
    plugin, refused = Registry.installed().plugins[name], []
    for pair, arena in arenas.items():
        try:
            contender = arena.contender(name, plugin.method, plugin.hyperparameters().model_dump())
        except UnsupportedPair as reason:
            refused.append(str(reason))
            continue
        checks = arena.check(contender)
        assert passed(checks), (pair, checks)
    assert all(refused) and len(refused) < len(arenas), refused


@pytest.mark.parametrize("name", Registry.installed().names)
def test_every_preset(arenas: dict[str, Arena], name: str) -> None:
    plugin, arena = Registry.installed().plugins[name], arenas["resnet-t:resnet-s"]
    for preset in plugin.method.presets.values():
        checks = arena.check(arena.contender(name, plugin.method, plugin.hyperparameters(**preset).model_dump()))
        assert passed(checks), (preset, checks)


@pytest.mark.parametrize(
    "options",
    [
        *({"path_weights": weights} for weights in ((1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 0, 1))),
        {"nce_weight": 0},
        {"ofa_weight": 0},
        {"nce_proj": "embed128"},
        {"teacher_tail": "trained"},
        {"share_grad": False},
    ],
    ids=str,
)
def test_every_ablation_of_the_assistant_can_be_run(arenas: dict[str, Arena], options: dict[str, Any]) -> None:
    plugin = Registry.installed().plugins["assistant"]
    for pair in ("vit-t:resnet-s", "resnet-t:swin-s", "swin-t:mixer-s"):
        checks = arenas[pair].check(
            arenas[pair].contender("assistant", plugin.method, plugin.hyperparameters(**options).model_dump())
        )
        assert passed(checks), (pair, checks)


class _Base(Method):
    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> dict[str, Tensor]:
        return {"ce": batch.cross_entropy(student.logits)}


class NaN(_Base):
    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> dict[str, Tensor]:
        return {"ce": batch.cross_entropy(student.logits) * float("nan")}


class Vector(_Base):
    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> dict[str, Tensor]:
        return {"ce": student.logits.sum(dim=1)}


class NotADict(_Base):
    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Any:
        return batch.cross_entropy(student.logits)


class Detached(_Base):
    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> dict[str, Tensor]:
        return {"ce": batch.cross_entropy(student.logits.detach())}


class Starving(_Base):
    def build(self, pair: Pair) -> None:
        self.unused = nn.Linear(2, 2)


class AsksForNothing(_Base):
    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> dict[str, Tensor]:
        return super().forward(student, teacher, batch) | {"pooled": student.pooled.sum()}


class DetachedTerm(_Base):
    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> dict[str, Tensor]:
        distance = (student.logits.detach() - teacher.logits).square().mean()
        return super().forward(student, teacher, batch) | {"kd": distance}


class LearnsBesideTheStudent(_Base):
    def build(self, pair: Pair) -> None:
        self.elsewhere = [torch.ones((), requires_grad=True)]

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> dict[str, Tensor]:
        return super().forward(student, teacher, batch) | {"kd": self.elsewhere[0] * teacher.logits.mean()}


class WithoutLabels(_Base):
    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> dict[str, Tensor]:
        noise = torch.rand_like(student.logits)
        return {"kd": (student.logits - teacher.logits + noise).square().mean()}


@pytest.mark.parametrize(
    ("method", "check", "detail"),
    [
        (NaN, "loss terms", "term 'ce' is nan"),
        (Vector, "loss terms", "must be a scalar tensor"),
        (NotADict, "loss terms", "must return a dict"),
        (Detached, "loss terms", "term 'ce' has no gradient"),
        (DetachedTerm, "loss terms", "term 'kd' has no gradient: it depends neither on the student nor on a projector"),
        (LearnsBesideTheStudent, "loss terms", "term 'kd' has no gradient"),
        (WithoutLabels, "labels make a difference", "the loss is the same under other labels"),
        (Starving, "gradient reaches every projector", "no gradient for unused.weight"),
        (AsksForNothing, "runs", "the pooled feature was not asked for: add pooled=True to student_needs"),
    ],
)
def test_faults_are_caught(proxy: Suite, cpu: Compute, method: type[Method], check: str, detail: str) -> None:
    arena = Arena.enter(proxy, proxy.pairs[0], 0, "val", cpu, NO_DATA)
    failed = [c for c in arena.check(arena.contender("faulty", method, {})) if not c.passed]
    assert [c.name for c in failed] == [check]
    assert detail in failed[0].detail


def test_a_method_may_say_what_it_starves(proxy: Suite, cpu: Compute) -> None:
    class Declares(Starving):
        starved = MappingProxyType({"unused": "kept for later"})

    arena = Arena.enter(proxy, proxy.pairs[0], 0, "val", cpu, NO_DATA)
    assert passed(arena.check(arena.contender("declares", Declares, {})))


def test_a_method_may_leave_labels_out_and_say_so(proxy: Suite, cpu: Compute) -> None:
    class Open(WithoutLabels):
        differs = "learns from the teacher alone"

    class Off(WithoutLabels):
        def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> dict[str, Tensor]:
            return super().forward(student, teacher, batch) | {"ce": 0 * batch.cross_entropy(student.logits)}

    arena = Arena.enter(proxy, proxy.pairs[0], 0, "val", cpu, NO_DATA)
    for method, detail in ((Open, "no; open division"), (Off, "no, and ce is zero here")):
        checks = arena.check(arena.contender("open", method, {}))
        assert passed(checks), checks
        assert detail in next(check.detail for check in checks if check.name == "labels make a difference")


def test_it_sees_as_many_images_as_a_loss_does(proxy: Suite, cpu: Compute) -> None:
    seen = []

    class Counts(_Base):
        def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> dict[str, Tensor]:
            seen.append(len(batch.labels))
            return super().forward(student, teacher, batch)

    arena = Arena.enter(proxy, proxy.pairs[0], 0, "val", replace(cpu, micro_batch=2), NO_DATA)
    assert passed(arena.check(arena.contender("counts", Counts, {})))
    assert set(seen) == {2}


def test_pooled_is_given_when_asked_for(proxy: Suite, cpu: Compute) -> None:
    class Asks(AsksForNothing):
        student_needs = Needs(pooled=True)

    arena = Arena.enter(proxy, proxy.pairs[0], 0, "val", cpu, NO_DATA)
    checks = arena.check(arena.contender("asks", Asks, {}))
    assert passed(checks), checks
