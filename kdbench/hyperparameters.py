"""Typed hyperparameters: collected from a method's annotations, validated, set from presets and the command line."""

import inspect
import tomllib
from typing import Any, ClassVar, get_origin, get_type_hints

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from kdbench.errors import KdbenchError, unknown_name


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


def first_problem(error: ValidationError) -> str:
    """The first problem of a pydantic error in one line: where, what is wrong, what was given."""
    problem = error.errors()[0]
    where = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        return f"unknown key '{where}'"
    return f"'{where}': {problem['msg'].lower()}, got {problem.get('input')!r}"


def parse_settings(settings: list[str]) -> dict[str, dict[str, Any]]:
    """`["ofa.eps=1.5", ...]` as {method: {name: value}}; values are read as TOML, bare words as strings.

    Raises:
        KdbenchError: a setting is not of the form `method.name=value`.
    """
    parsed: dict[str, dict[str, Any]] = {}
    for setting in settings:
        target, equals, text = setting.partition("=")
        method, dot, name = target.strip().partition(".")
        if not (equals and dot and method and name):
            raise KdbenchError(f"--set {setting!r} is not of the form method.name=value, as in `--set kd.weight=2`")
        parsed.setdefault(method, {})[name] = _value(text.strip())
    return parsed


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
