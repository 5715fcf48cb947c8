"""The rules of the closed division: one plug-in breaks each, in `build` and in `forward`, and is caught by name."""

import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from kdbench.compute.device import Compute
from kdbench.errors import KdbenchError
from kdbench.method import Batch, Method, Needs, Outputs, Pair
from kdbench.suites.schema import Suite
from kdbench.training import guard as watch
from kdbench.training.arena import Arena
from kdbench.training.selfcheck import passed
from kdbench.weights.files import weights_sha256
from tests.conftest import NO_DATA


@pytest.fixture(scope="module")
def arena(proxy: Suite) -> Arena:
    pair = proxy.select_pairs("resnet-t:resnet-s")[0]
    return Arena.enter(proxy, pair, 0, "val", Compute(torch.device("cpu"), "fp32", 1), NO_DATA)


@pytest.fixture(autouse=True)
def the_others_notice_nothing(arena: Arena) -> Iterator[None]:
    """Whatever a method of this file did, the arena's own teacher and the process are as they were."""
    settings = {name: read() for name, (read, _) in watch._GLOBALS.items()}
    states = random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    yield
    assert weights_sha256(arena.teacher.model) == arena.teacher_record["sha256"]
    assert not any(module.training for module in arena.teacher.modules())
    assert settings == {name: read() for name, (read, _) in watch._GLOBALS.items()}
    assert states == (random.getstate(), np.random.get_state()[1].tolist())  # noqa: NPY002


def cheat(act: Callable[..., Any], **attributes: Any) -> type[Method]:
    """A method that trains on the labels, as the control does, after it did what it must not do."""

    class Cheat(Method):
        student_needs = teacher_needs = Needs(frozenset({3}), pooled=True)

        def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> dict[str, Tensor]:
            loss = batch.cross_entropy(student.logits)
            with torch.no_grad():
                act(self.pair, teacher, batch)
            return {"ce": loss}

    for name, value in attributes.items():
        setattr(Cheat, name, value)
    return Cheat


def in_build(act: Callable[[Pair], Any], **attributes: Any) -> type[Method]:
    class Cheat(cheat(lambda *_: None, **attributes)):
        def build(self, pair: Pair) -> None:
            act(pair)

    return Cheat


def weight(network: Any) -> Tensor:
    return network.model.conv1.weight


TEACHER = {
    "trains it": lambda pair, *_: weight(pair.teacher).add_(1.0),
    "trains it behind autograd's back": lambda pair, *_: weight(pair.teacher).data.add_(1.0),
    "moves its statistics": lambda pair, *_: pair.teacher.model.bn1.running_mean.add_(1.0),
    "wakes it": lambda pair, *_: pair.teacher.train(),
    "wakes a part of it": lambda pair, *_: pair.teacher.model.bn1.train(),
    "thaws it": lambda pair, *_: pair.teacher.requires_grad_(True),
    "listens in on it": lambda pair, *_: pair.teacher.register_forward_hook(lambda *_: None),
}
STUDENT = {
    "trains it": lambda pair, *_: weight(pair.student).mul_(1.01),
    "trains it behind autograd's back": lambda pair, *_: weight(pair.student).data.mul_(1.01),
    "moves its statistics": lambda pair, *_: pair.student.model.bn1.running_var.mul_(2.0),
    "freezes a part of it": lambda pair, *_: weight(pair.student).requires_grad_(False),
    "stops its batch norm": lambda pair, *_: pair.student.model.bn1.eval(),
    "changes a hyperparameter of it": lambda pair, *_: setattr(pair.student.model.bn1, "momentum", 0.9),
    "changes what it computes": lambda pair, *_: pair.student.model.layer1.register_forward_hook(lambda *_: None),
    "replaces a function of it": lambda pair, *_: setattr(pair.student.model, "forward_head", lambda x: x),
    "scales its gradients": lambda pair, *_: weight(pair.student).register_hook(lambda gradient: 2 * gradient),
    "grows it": lambda pair, *_: setattr(pair.student.model, "extra", nn.Linear(2, 2)),
}
SHARED = {
    "labels": lambda pair, teacher, batch: batch.labels.zero_(),
    "index": lambda pair, teacher, batch: batch.index.add_(1),
    "the teacher's logits": lambda pair, teacher, batch: teacher.logits.div_(4.0),
    "the teacher's pooled feature": lambda pair, teacher, batch: teacher.pooled.clamp_(max=0.1),
    "the teacher's stage 3": lambda pair, teacher, batch: teacher.stages[3].map.relu_().add_(1),
}
RANDOM = {
    "seeded anew": lambda *_: torch.manual_seed(20261123),
    "numpy.random": lambda *_: np.random.rand(),  # noqa: NPY002
    "Python's random": lambda *_: random.random(),
}
SETTINGS = {
    "gradient mode": lambda *_: torch._C._set_grad_enabled(False),
    "default dtype": lambda *_: torch.set_default_dtype(torch.float64),
    "default device": lambda *_: torch.set_default_device("meta"),
    "number of threads": lambda *_: torch.set_num_threads(2),
    "precision of matrix products": lambda *_: torch.set_float32_matmul_precision("medium"),
    "deterministic algorithms": lambda *_: torch.use_deterministic_algorithms(True),
    "anomaly detection": lambda *_: torch.autograd.set_detect_anomaly(True),
    "cudnn.benchmark": lambda *_: setattr(torch.backends.cudnn, "benchmark", True),
}
CHEATS = [
    *((watch.TEACHER, "", act) for act in TEACHER.values()),
    *((watch.STUDENT, "", act) for act in STUDENT.values()),
    *((watch.SHARED, f"{name} changed", act) for name, act in SHARED.items()),
    *((watch.RANDOM, name, act) for name, act in RANDOM.items()),
    *((watch.SETTINGS, name, act) for name, act in SETTINGS.items() if name != "gradient mode"),
]
NAMES = [
    f"{rule}: {name}"
    for rule, acts in [
        ("teacher", TEACHER),
        ("student", STUDENT),
        ("shared", SHARED),
        ("random", RANDOM),
        ("settings", {n: a for n, a in SETTINGS.items() if n != "gradient mode"}),
    ]
    for name in acts
]


BESIDES = {"runs", "loss terms", "student keeps timm's keys"}
"""What else may fail: autograd, for one, refuses to go back through what was changed."""


def failures(arena: Arena, method: type[Method]) -> dict[str, str]:
    stage = arena.with_own_teacher()
    return {check.name: check.detail for check in stage.check(stage.contender("cheat", method, {})) if not check.passed}


@pytest.mark.parametrize(("rule", "detail", "act"), CHEATS, ids=NAMES)
def test_it_is_caught_in_forward(arena: Arena, rule: str, detail: str, act: Callable[..., Any]) -> None:
    found = failures(arena, cheat(act))
    assert rule in found and detail in found[rule], found
    assert set(found) <= {rule, *BESIDES}, found


IN_BUILD = [(rule, act) for rule, _, act in CHEATS if rule != watch.SHARED]


@pytest.mark.parametrize(("rule", "act"), IN_BUILD, ids=[name for name in NAMES if not name.startswith("shared")])
def test_it_is_caught_in_build(arena: Arena, rule: str, act: Callable[..., Any]) -> None:
    with pytest.raises(KdbenchError, match=f"breaks a rule in build, '{rule}'"):
        arena.with_own_teacher().contender("cheat", in_build(lambda pair: torch.no_grad()(act)(pair)), {})


def test_gradients_that_are_switched_off_for_good(arena: Arena) -> None:
    class Off(cheat(lambda *_: None)):
        def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> dict[str, Tensor]:
            loss = batch.cross_entropy(student.logits)
            torch.set_grad_enabled(False)
            return {"ce": loss}

    assert "gradient mode changed from True to False" in failures(arena, Off)[watch.SETTINGS]


def test_soft_targets_are_shared_too(proxy: Suite, arena: Arena) -> None:
    name = proxy.models["resnet-s"].recipe
    augment = proxy.recipes[name].augment.model_copy(update={"mixup": 0.8})
    recipes = {**proxy.recipes, name: proxy.recipes[name].model_copy(update={"augment": augment})}
    suite = proxy.model_copy(update={"recipes": recipes})
    mixed = Arena.enter(suite, arena.pair, 0, "val", arena.compute, NO_DATA)
    found = failures(mixed, cheat(lambda pair, teacher, batch: batch.targets.fill_(0.1)))
    assert found[watch.SHARED] == "targets changed" and set(found) <= {watch.SHARED, *BESIDES}, found


def test_the_second_view_is_shared_too(arena: Arena) -> None:
    found = failures(arena, cheat(lambda pair, teacher, batch: teacher.second.logits.zero_(), second_view=True))
    assert found == {watch.SHARED: "the teacher's logits of the second view changed"}


@pytest.mark.parametrize("end", ["teacher", "student"])
def test_a_method_owns_no_parameter_of_a_network(arena: Arena, end: str) -> None:
    class Owner(cheat(lambda *_: None)):
        def build(self, pair: Pair) -> None:
            self.network = getattr(pair, end)

    with pytest.raises(KdbenchError, match=r"owns a parameter of a network \(network.model"):
        arena.with_own_teacher().contender("owner", Owner, {})


@pytest.mark.parametrize("act", STUDENT.values(), ids=STUDENT)
def test_in_the_open_division_the_student_is_the_methods(arena: Arena, act: Callable[..., Any]) -> None:
    method = cheat(act, differs="does as it likes with the student")
    stage = arena.with_own_teacher()
    checks = stage.check(stage.contender("open", method, {}))
    failed = {check.name for check in checks if not check.passed}
    assert failed <= BESIDES, checks
    assert failed or any(
        c.name == watch.STUDENT and c.detail == "open division: does as it likes with the student" for c in checks
    )


@pytest.mark.parametrize("act", [*TEACHER.values(), *SHARED.values()], ids=[*TEACHER, *SHARED])
def test_in_the_open_division_the_rest_is_not(arena: Arena, act: Callable[..., Any]) -> None:
    assert set(failures(arena, cheat(act, differs="says so"))) & {watch.TEACHER, watch.SHARED}


def test_what_is_allowed_is_not_caught(arena: Arena) -> None:
    """Looking at everything, running both networks again, random masks from torch, scribbling on one's own outputs."""

    class Honest(cheat(lambda *_: None)):
        def build(self, pair: Pair) -> None:
            self.project = nn.Linear(pair.student.pooled_width, pair.teacher.pooled_width)
            self._tail = pair.teacher.tail(3)

        def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> dict[str, Tensor]:
            mask = torch.rand_like(student.pooled) > 0.5
            again = self._tail(teacher.stages[3].map).pooled
            loss = nn.functional.mse_loss(self.project(student.pooled * mask), again)
            teacher.logits.clone().softmax(dim=1).zero_()
            return {"ce": batch.cross_entropy(student.logits.mul_(1.0)), "mse": loss}

    stage = arena.with_own_teacher()
    checks = stage.check(stage.contender("honest", Honest, {}))
    assert passed(checks), checks
