"""Typed hyperparameters: wrong names and types are refused with the list of the right ones."""

from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import nn

from kdbench.errors import KdbenchError
from kdbench.hyperparameters import Choice, LogUniform, Uniform, draw, parse_settings, schema, validate
from kdbench.method import Method
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


def test_only_annotated_attributes_are_hyperparameters() -> None:
    class Mine(Method):
        kind = "feature"
        paper: ClassVar[str] = "arXiv 1503.02531"
        presets = {"crd": {"weight": 2.0}}  # noqa: RUF012
        second_view = True
        weight: float = 1.0

    assert set(schema(Mine, Method).model_fields) == {"weight"}


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


class Tables(Method):
    table: torch.Tensor = torch.zeros(2)


class Arrays(Method):
    weight: float = 1.0
    array: NDArray[Any] = np.zeros(2)


class Layers(Method):
    layer: nn.Module = nn.Identity()


class Unreadable(Method):
    where: "NoSuchType" = 1  # type: ignore[name-defined] # noqa: F821


class Home(Method):
    where: Path = Path()


class Taken(Method):
    pair: int = 3


class Spaced(Method):
    weight: float = 1.0
    search_space = {"wieght": Uniform(0, 1)}  # noqa: RUF012


class Nothing(Method):
    weight: float = 1.0
    search_space = {"weight": None}  # type: ignore[assignment] # noqa: RUF012


class Beyond(Method):
    weight: Annotated[float, Field(le=1)] = 1.0
    search_space = {"weight": Uniform(0, 2)}  # noqa: RUF012


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (Tables, r"Tables in .*test_hyperparameters\.py: table cannot be a hyperparameter"),
        (Arrays, r"Arrays in .*test_hyperparameters\.py: array cannot be a hyperparameter"),
        (Layers, r"Layers in .*test_hyperparameters\.py: layer cannot be a hyperparameter"),
        (Unreadable, r"an annotation of Unreadable in .*\.py cannot be read: name 'NoSuchType' is not defined"),
        (Home, r"Home: where = .*Path.* is nothing that a record can hold"),
        (Taken, r"Taken in .*: pair is a name of Method itself"),
        (Spaced, r"unknown hyperparameter of Spaced\.search_space 'wieght'; did you mean weight"),
        (Nothing, r"search_space\['weight'\] is neither Uniform, LogUniform nor Choice"),
        (Beyond, r"Beyond\.search_space: 'weight': input should be less than or equal to 1"),
    ],
)
def test_what_cannot_be_a_hyperparameter_is_named(method: type[Method], message: str) -> None:
    with pytest.raises(KdbenchError, match=message):
        validate(method.__name__, schema(method, Method))


@pytest.mark.parametrize("value", [True, "2"])
def test_numbers_are_given_as_numbers(value: object) -> None:
    with pytest.raises(KdbenchError, match="'kd_weight': input should be a valid number"):
        _validate("kd", {"kd_weight": value})


def test_a_setting_given_twice_is_refused() -> None:
    with pytest.raises(KdbenchError, match=r"--set kd\.temperature is given twice"):
        parse_settings(["kd.temperature=2", "kd.kd_weight=1", "kd.temperature=3"])


@pytest.mark.parametrize("setting", ["kd", "kd.weight", "=2", "weight=2", ".weight=2"])
def test_malformed_settings(setting: str) -> None:
    with pytest.raises(KdbenchError, match=r"not of the form method\.name=value"):
        parse_settings([setting])


def test_draws_depend_on_trial_and_name_alone() -> None:
    one = draw({"temperature": LogUniform(1, 8), "weight": Uniform(0, 1)}, 1)
    other = draw({"gamma": Choice((1, 2)), "temperature": LogUniform(1, 8)}, 1)
    assert one["temperature"] == other["temperature"]
    assert one == draw({"weight": Uniform(0, 1), "temperature": LogUniform(1, 8)}, 1)
    assert one != draw({"temperature": LogUniform(1, 8), "weight": Uniform(0, 1)}, 2)
    # Pinned: a file of tuned values can be drawn again, on any machine and by any later version.
    assert one == {"temperature": 1.69, "weight": 0.328}


@pytest.mark.parametrize("space", [Uniform(2, 3), LogUniform(0.01, 100), Choice(("a", "b", "c"))], ids=str)
def test_draws_follow_their_distribution(space: Uniform | LogUniform | Choice) -> None:
    """In a thousand trials every third of the space comes up in a third of them, within four standard deviations."""
    drawn = [draw({"x": space}, trial)["x"] for trial in range(1, 1001)]
    if isinstance(space, Choice):
        thirds = [drawn.count(option) for option in space.options]
    else:
        assert all(space.low <= value <= space.high for value in drawn)
        first, second = space.at(1 / 3), space.at(2 / 3)
        below, above = sum(x <= first for x in drawn), sum(x > second for x in drawn)
        thirds = [below, 1000 - below - above, above]
    assert all(abs(count - 1000 / 3) < 4 * 15 for count in thirds)


def test_a_logarithm_of_nothing() -> None:
    with pytest.raises(ValueError, match="has no logarithm"):
        LogUniform(0, 1)
