"""Typed hyperparameters: wrong names and types are refused with the list of the right ones."""

from typing import Any

import pytest

from kdbench.errors import KdbenchError
from kdbench.hyperparameters import parse_settings, validate
from kdbench.registry import Registry


def _validate(method: str, *sources: dict[str, Any]) -> dict[str, Any]:
    return validate(method, Registry.installed().plugins[method].hyperparameters, *sources)


def test_later_sources_win() -> None:
    assert _validate("kd")["temperature"] == 1.0
    assert _validate("kd", {"temperature": 4.0}, {"temperature": 2})["temperature"] == 2.0


def test_inheritance_and_class_variables() -> None:
    names = set(_validate("assistant"))
    assert {"tau_init", "path_weights", "order"} <= names
    assert not {"aliases", "presets", "role", "training", "student_needs", "starved"} & names


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"temprature": 1}, "unknown hyperparameter of kd 'temprature'; did you mean temperature"),
        ({"temperature": "hot"}, "'temperature': input should be a valid number.*got 'hot'"),
        ({"temperature": 0}, "'temperature': input should be greater than 0, got 0"),
    ],
)
def test_refusals(values: dict[str, Any], message: str) -> None:
    with pytest.raises(KdbenchError, match=message):
        _validate("kd", values)


def test_choices_are_listed() -> None:
    with pytest.raises(KdbenchError, match="'auto', 'student_first' or 'teacher_first'"):
        _validate("assistant", {"order": "both"})


def test_settings_from_the_command_line() -> None:
    parsed = parse_settings(
        ["ofa.gamma=[1.5]", "ofa.ofa_weight=0.1", "assistant.order=auto", "assistant.sg_target=false"]
    )
    assert parsed == {"ofa": {"gamma": [1.5], "ofa_weight": 0.1}, "assistant": {"order": "auto", "sg_target": False}}
    assert _validate("ofa", parsed["ofa"])["gamma"] == (1.5,)


@pytest.mark.parametrize("setting", ["kd", "kd.weight", "=2", "weight=2", ".weight=2"])
def test_malformed_settings(setting: str) -> None:
    with pytest.raises(KdbenchError, match=r"not of the form method\.name=value"):
        parse_settings([setting])
