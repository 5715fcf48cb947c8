"""Typed hyperparameters: collected from a method's annotations, validated, set from presets and the command line.

And the spaces they are drawn from where they are tuned: `search_space = {"temperature": LogUniform(1, 8)}`.
"""

import inspect
import random
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, get_origin, get_type_hints

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from kdbench.errors import KdbenchError, unknown_name
from kdbench.values import first_problem


@dataclass(frozen=True)
class Uniform:
    """A number between `low` and `high`."""

    low: float
    high: float

    def at(self, u: float) -> float:
        """The quantile of `u` in [0, 1)."""
        return _rounded(self.low + u * (self.high - self.low))


@dataclass(frozen=True)
class LogUniform:
    """A number between `low` and `high`, both positive, its logarithm uniform."""

    low: float
    high: float

    def __post_init__(self) -> None:
        if min(self.low, self.high) <= 0:
            raise ValueError(f"{self} has no logarithm; use Uniform")

    def at(self, u: float) -> float:
        """The quantile of `u` in [0, 1)."""
        return _rounded(self.low * (self.high / self.low) ** u)


@dataclass(frozen=True)
class Choice:
    """One of some values, all as likely."""

    options: tuple[Any, ...]

    def at(self, u: float) -> Any:
        """The quantile of `u` in [0, 1)."""
        return self.options[int(u * len(self.options))]


SearchSpace = Mapping[str, Uniform | LogUniform | Choice]
"""A distribution a hyperparameter."""


def _rounded(value: float) -> float:
    """Three digits: what a person would type, and more than a search can tell apart."""
    return float(f"{value:.3g}")


def draw(space: SearchSpace, trial: int) -> dict[str, Any]:
    """The values of a trial: a function of its number and of each hyperparameter's name, so that methods which have a
    hyperparameter in common try the same values of it."""
    return {name: space[name].at(random.Random(f"{trial}/{name}").random()) for name in space}


def schema(method: type, stop: type) -> type[BaseModel]:
    """A pydantic model of the annotated class attributes of `method`, down to but without the base class `stop`."""
    fields: dict[str, Any] = {}
    for cls in reversed(method.__mro__[: method.__mro__.index(stop)]):
        hints = get_type_hints(cls, include_extras=True)
        for name in inspect.get_annotations(cls):
            if name.startswith("_") or get_origin(hints[name]) is ClassVar or hints[name] is ClassVar:
                continue
            if not hasattr(cls, name):
                raise KdbenchError(f"hyperparameter {method.__name__}.{name} has no default; give it one")
            fields[name] = (hints[name], getattr(cls, name))
    return create_model(
        method.__name__, __config__=ConfigDict(extra="forbid", validate_default=True, frozen=True), **fields
    )


def validate(method_name: str, model: type[BaseModel], *sources: dict[str, Any]) -> dict[str, Any]:
    """Defaults overridden by `sources` in order, as JSON-able values.

    Raises:
        KdbenchError: an unknown name or a value of the wrong type, with the list of the right ones.
    """
    values: dict[str, Any] = {}
    for source in sources:
        for name in source:
            if name not in model.model_fields:
                raise unknown_name(f"hyperparameter of {method_name}", name, model.model_fields)
        values |= source
    try:
        return model(**values).model_dump()
    except ValidationError as error:
        raise KdbenchError(f"{method_name}: {first_problem(error)}") from error


def parse_settings(settings: list[str]) -> dict[str, dict[str, Any]]:
    """`["kd.temperature=2", ...]` as {method: {name: value}}; values are read as TOML, bare words as strings.

    Raises:
        KdbenchError: a setting is not of the form `method.name=value`.
    """
    parsed: dict[str, dict[str, Any]] = {}
    for setting in settings:
        target, equals, text = setting.partition("=")
        method, dot, name = target.strip().partition(".")
        if not (equals and dot and method and name):
            raise KdbenchError(f"--set {setting!r} is not of the form method.name=value, as in --set kd.temperature=2")
        parsed.setdefault(method, {})[name] = _value(text.strip())
    return parsed


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        return text
