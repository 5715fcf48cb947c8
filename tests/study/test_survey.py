"""The page about methods says what is so: every method has its line, and some of them are found again."""

from pathlib import Path

import pytest
import survey_methods
import torch

from kdbench.compute.device import Compute
from kdbench.registry import Registry
from kdbench.suites.loading import load_suite
from kdbench.suites.schema import Suite
from kdbench.training.arena import Arena

DOCS = Path(__file__).parents[2] / "docs" / "methods.md"
LINES = [line for line in DOCS.read_text().splitlines() if line.startswith("| [")]


@pytest.fixture(scope="module")
def arenas(proxy: Suite) -> tuple[list[Arena], Arena]:
    compute, full = Compute(torch.device("cpu"), "fp32", 1), load_suite(survey_methods.FULL)
    small = [Arena.without_data(proxy, pair, compute) for pair in proxy.pairs if proxy.is_hetero(pair)]
    return small, Arena.without_data(full, next(pair for pair in full.pairs if full.is_hetero(pair)), compute)


def test_every_method_has_its_line() -> None:
    assert [line.split("`")[1] for line in LINES] == Registry.installed().names


@pytest.mark.runs
@pytest.mark.parametrize("name", ["mlld", "ofd", "simkd", "srrl"])
def test_a_line_found_again(arenas: tuple[list[Arena], Arena], name: str) -> None:
    """Two views, a pair that is refused, parameters that stay, the teacher's classifier."""
    cells = survey_methods.row(Registry.installed().plugins[name], *arenas, {})
    (line,) = (line for line in LINES if line.split("`")[1] == name)
    assert line.rsplit(" | ", 1)[0] == f"| {' | '.join(cells[:-1])}"
