"""A batch that is accumulated in parts trains as the whole batch does, where nothing looks across the images."""

from dataclasses import replace

import pytest
import torch

from kdbench.compute.device import Compute
from tests.support.course import RECIPE, Course

RECIPES = {
    "sgd": RECIPE.model_copy(update={"optimizer": "sgd", "lr": 0.05, "ema": 0.0}),
    "adamw": RECIPE,
}


@pytest.mark.runs
@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("micro_batch", [4, 3, 8, 100])
def test_parts_add_up_to_the_batch(cpu: Compute, recipe: str, micro_batch: int) -> None:
    names = ["scratch", "kd", "fitnet", "ofa"]
    whole = Course("plain", cpu, RECIPES[recipe]).train(*names)
    parts = Course("plain", replace(cpu, micro_batch=micro_batch), RECIPES[recipe]).train(*names)
    for name in names:
        expected, found = (run[name].student.model.state_dict() for run in (whole, parts))
        for key, tensor in expected.items():
            torch.testing.assert_close(found[key], tensor, rtol=1e-3, atol=1e-4, msg=f"{name} {key}")
        for term, values in whole[name].losses.items():
            assert parts[name].losses[term] == pytest.approx(values, rel=1e-4)


def test_losses_across_the_batch_see_the_part(cpu: Compute) -> None:
    """InfoNCE has fewer negatives in a part: its first value is near log(4), not log(8)."""
    whole = Course("plain", cpu).train("assistant")["assistant"]
    parts = Course("plain", replace(cpu, micro_batch=4)).train("assistant")["assistant"]
    (term,) = [name for name in whole.losses if "nce" in name][:1]
    assert parts.losses[term][0] < whole.losses[term][0] - 0.3


def test_micro_batch_is_part_of_what_determines_a_result(cpu: Compute) -> None:
    assert cpu.identity == {"precision": "fp32"}
    assert replace(cpu, micro_batch=4).identity == {"precision": "fp32", "micro_batch": 4}
