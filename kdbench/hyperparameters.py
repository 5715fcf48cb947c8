"""Typed hyperparameters: collected from a method's annotations, validated, set from presets and the command line.

And the spaces they are drawn from where they are tuned: `search_space = {"temperature": LogUniform(1, 8)}`.
"""

import inspect
import random
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, get_args, get_origin, get_type_hints

from pydantic import BaseModel, ConfigDict, Strict, ValidationError, create_model
from pydantic.errors import PydanticUserError

from kdbench.errors import KdbenchError, unknown_name
from kdbench.files import canonical_json
from kdbench.values import first_problem

RESERVED = ("pair", "training")
"""Attributes that every method gets when it is built."""


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
    """A pydantic model of the annotated class attributes of `method`, down to but without the base class `stop`.

    Raises:
        KdbenchError: an attribute that cannot be a hyperparameter, or a search space of something else.
    """
    fields: dict[str, Any] = {}
    for cls in reversed(method.__mro__[: method.__mro__.index(stop)]):
        try:
            hints = get_type_hints(cls, include_extras=True)
        except Exception as error:  # Whatever evaluating an annotation raises.
            raise KdbenchError(f"an annotation of {_place(cls)} cannot be read: {error}") from error
        for name in inspect.get_annotations(cls):
            if name.startswith("_") or get_origin(hints[name]) is ClassVar or hints[name] is ClassVar:
                continue
            if not hasattr(cls, name):
                raise KdbenchError(f"hyperparameter {method.__name__}.{name} has no default; give it one")
            if name in {*dir(stop), *RESERVED}:
                raise KdbenchError(
                    f"{_place(cls)}: {name} is a name of {stop.__name__} itself; leave its annotation out, or choose "
                    "another name for a hyperparameter"
                )
            fields[name] = _strict(hints[name]), getattr(cls, name)
    model = _model(method, fields)
    for name, space in getattr(method, "search_space", {}).items():
        if not isinstance(space, Uniform | LogUniform | Choice):
            raise KdbenchError(f"{_place(method)}: search_space['{name}'] is neither Uniform, LogUniform nor Choice")
        for end in (0.0, 1 - 1e-9):
            validate(f"{method.__name__}.search_space", model, {name: space.at(end)})
    return model


def _strict(hint: Any) -> Any:
    """A number is given as one: True is not 1, and "2" not 2."""
    plain = get_args(hint)[0] if get_origin(hint) is Annotated else hint
    return Annotated[hint, Strict()] if plain in (int, float, bool) else hint


def _model(method: type, fields: dict[str, Any]) -> type[BaseModel]:
    def make(name: str, chosen: dict[str, Any]) -> type[BaseModel]:
        config = ConfigDict(extra="forbid", validate_default=True, frozen=True)
        return create_model(name, __config__=config, **chosen)

    try:
        return make(method.__name__, fields)
    except PydanticUserError:
        for name, one in fields.items():
            try:
                make(name, {name: one})
            except PydanticUserError as error:
                raise KdbenchError(
                    f"{_place(method)}: {name} cannot be a hyperparameter, as no suite can state a value of its type; "
                    "annotate numbers, texts, truth values and tuples of them, and make anything else in build"
                ) from error
        raise


def _place(cls: type) -> str:
    return f"{cls.__name__} in {inspect.getfile(cls)}"


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
        valid = model(**values).model_dump()
        for name, value in valid.items():
            try:
                canonical_json(value)
            except (TypeError, ValueError):
                raise KdbenchError(f"{method_name}: {name} = {value!r} is nothing that a record can hold") from None
        return valid
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
        if name in parsed.setdefault(method, {}):
            raise KdbenchError(f"--set {method}.{name} is given twice; leave one of them out")
        parsed[method][name] = _value(text.strip())
    return parsed


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        return text
