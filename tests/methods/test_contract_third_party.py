"""The contract in a package of somebody else: as the guide shows it, and on methods with a fault each."""

import os
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.docs.commands import ROOT, Written, steps

pytestmark = pytest.mark.runs

GUIDE = "docs/guides/method.md"
PROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "kd-of-somebody"
version = "1.0"

[tool.hatch.build.targets.wheel]
only-include = ["myidea.py"]
"""
TESTS = {
    "test_it_passes_the_self_check",
    "test_without_weight_it_is_the_control",
    "test_it_ends_with_the_same_bits_alone_and_beside_others",
    "test_it_goes_on_from_a_checkpoint",
    "test_in_half_precision_all_is_finite",
    "test_few_images_few_and_many_classes",
}
FAULTS = '''
import torch
from torch import Tensor

from kdbench.method import Batch, Method, Outputs


class Faulty(Method):
    """A method that a fault is put into."""

    weight: float = 1.0

    def term(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        return (student.logits - teacher.logits).square().mean()

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> dict[str, Tensor]:
        term = self.term(student, teacher, batch)
        return {"ce": batch.cross_entropy(student.logits), "term": self.weight * term}


class DrawsElsewhere(Faulty):
    """It draws from numpy."""

    def term(self, student, teacher, batch):
        import numpy

        return super().term(student, teacher, batch) * numpy.random.rand()


class HasAnotherWeight(Faulty):
    """It has a weight that is not called so."""

    alpha: float = 1.0

    def forward(self, student, teacher, batch):
        return super().forward(student, teacher, batch) | {"alpha": self.alpha * self.term(student, teacher, batch)}


class CountsForAll(Faulty):
    """It keeps a counter on the class."""

    count = {"batches": 0}

    def term(self, student, teacher, batch):
        self.count["batches"] += 1
        return super().term(student, teacher, batch) * self.count["batches"]


class Remembers(Faulty):
    """It keeps a counter outside of its state dict."""

    def build(self, pair):
        self.count = 0

    def term(self, student, teacher, batch):
        self.count += 1
        return super().term(student, teacher, batch) * self.count


class Overflows(Faulty):
    """It is infinite in half precision."""

    def term(self, student, teacher, batch):
        return super().term(student, teacher, batch) / float(student.logits.dtype == torch.float32)


class WantsManyImages(Faulty):
    """It needs three images."""

    def term(self, student, teacher, batch):
        return super().term(student, teacher, batch) + 0 * student.logits[2].sum()
'''
FAILS = {
    "drawselsewhere": {
        "test_it_passes_the_self_check",
        "test_it_ends_with_the_same_bits_alone_and_beside_others",
        "test_it_goes_on_from_a_checkpoint",
    },
    "hasanotherweight": {"test_without_weight_it_is_the_control"},
    # What it has counted depends on what ran before.
    "countsforall": {
        "test_it_ends_with_the_same_bits_alone_and_beside_others",
        "test_it_goes_on_from_a_checkpoint",
    },
    "remembers": {"test_it_goes_on_from_a_checkpoint"},
    "overflows": {"test_in_half_precision_all_is_finite"},
    "wantsmanyimages": {"test_few_images_few_and_many_classes"},
}


def _run_pytest(folder: Path, file: str, **variables: str) -> dict[str, dict[str, list[str]]]:
    """By method and test function, what came of its calls."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--junit-xml", "tests.xml", file]
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=300, env={**os.environ, **variables}
    )
    outcomes: dict[str, dict[str, list[str]]] = {}
    assert (folder / "tests.xml").exists(), done.stdout + done.stderr
    for case in ElementTree.parse(folder / "tests.xml").iter("testcase"):
        test, _, names = case.attrib["name"].partition("[")
        outcome = next((child.tag for child in case if child.tag in ("failure", "error", "skipped")), "passed")
        method = names.rstrip("]").split("-")[-1]
        outcomes.setdefault(method, {}).setdefault(test, []).append(outcome)
    return outcomes


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package of the guide, as its files and commands say."""
    folder = tmp_path_factory.mktemp("package")
    for step in steps(GUIDE):
        if isinstance(step, Written):
            (folder / step.name).write_text(step.content)
    (entry_points,) = re.findall(r"```toml\n(.*?)```", (ROOT / GUIDE).read_text(encoding="utf-8"), re.DOTALL)
    (folder / "pyproject.toml").write_text(PROJECT + entry_points)
    return folder


def test_the_two_statements_of_the_guide_are_enough(package: Path, tmp_path: Path) -> None:
    install = ["install", "--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--target", str(tmp_path)]
    subprocess.run([sys.executable, "-m", "pip", *install, str(package)], check=True)
    ours = [str(path) for path in (tmp_path, ROOT, ROOT / "methods")]
    outcomes = _run_pytest(package, "test_myidea.py", PYTHONPATH=":".join(ours))
    assert outcomes == {
        "myidea": {test: ["passed"] * (4 if test == "test_few_images_few_and_many_classes" else 1) for test in TESTS}
    }


def test_each_fault_fails_the_test_that_is_there_for_it(tmp_path: Path) -> None:
    (tmp_path / "faults.py").write_text(FAULTS)
    classes = re.findall(r"^class (\w+)\(Faulty\)", FAULTS, re.MULTILINE)
    methods = ",".join(f"./faults.py:{name}" for name in ("Faulty", *classes))
    (tmp_path / "test_faults.py").write_text(
        "from kdbench.testing import MethodContract\n\n\n"
        f"class TestFaults(MethodContract):\n    methods = {methods!r}\n"
    )
    outcomes = _run_pytest(tmp_path, "test_faults.py", PYTHONPATH=f"{ROOT}:{ROOT / 'methods'}")
    failed = {
        method: {test for test, results in tests.items() if set(results) - {"passed"}}
        for method, tests in outcomes.items()
    }
    assert failed == {"faulty": set(), **FAILS}
