"""The page about models says what is so: some of its lines, found again."""

import dataclasses
from pathlib import Path

import pytest
import survey_models

DOCS = Path(__file__).parents[2] / "docs" / "models.md"
SAMPLE = ["convnext", "ghostnet", "levit", "mlp_mixer", "pit", "swin_transformer", "vision_transformer"]
"""Small ones of every kind: maps, tokens, class tokens apart, three stages."""


def test_every_family_has_its_line() -> None:
    lines = [line for line in DOCS.read_text().splitlines() if line.startswith("| ")]
    assert len({line.split(" | ")[0] for line in lines}) - 2 >= 98, "head, rule and families"


@pytest.mark.runs
@pytest.mark.parametrize("family", SAMPLE)
def test_a_line_found_again(family: str) -> None:
    lines = [line for line in DOCS.read_text().splitlines() if line.startswith(f"| {family} |")]
    name = lines[0].split("`")[1]
    row, _ = survey_models.look(family, name)
    assert survey_models.table([row]).splitlines()[-1] == lines[0]


@pytest.mark.runs
def test_what_differs_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A staged pass that is not the plain one shows in the line."""
    forward = survey_models.StagedModel.forward

    def off(*arguments: object) -> object:
        outputs = forward(*arguments)  # type: ignore[arg-type]
        return dataclasses.replace(outputs, logits=outputs.logits + 1e-6)

    monkeypatch.setattr(survey_models.StagedModel, "forward", off)
    row, _ = survey_models.look("mlp_mixer", "gmlp_ti16_224")
    assert (row.equal, row.gradients, row.channels_last) == ("differs", "yes", "differs")
