"""Which values a file may hold, and the checks of them.

Suites, records, baselines and tuned files come from other people and other machines. What they hold ends up in sums,
tables, paths and on terminals, so names and numbers are looked at where they are read, and nowhere else.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field, TypeAdapter, ValidationError

from kdbench.errors import one_line
from kdbench.names import pair_name, plain_name, printable

LARGEST = 2**53
"""Whole numbers up to here survive a float; nothing that is counted comes near."""
SHOWN = 60
"""Characters of a wrong value that a message shows."""


def inside(path: str) -> str:
    """`path`, which stays below the folder that it is relative to.

    Raises:
        ValueError: it does not.
    """
    if Path(path).is_absolute() or ".." in Path(path).parts or "\0" in path:
        raise ValueError("leads out of its folder")
    return path


Line = Annotated[str, AfterValidator(printable)]
"""One line of text."""
Title = Annotated[str, AfterValidator(pair_name)]
"""The name of a pair, or of a model with its overrides."""
Name = Annotated[str, AfterValidator(plain_name)]
"""A name that may be a part of a path as it is."""
Inside = Annotated[str, AfterValidator(inside)]
"""The path of a file in the folder that speaks of it."""
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Number = Annotated[float, Field(allow_inf_nan=False, strict=True)]
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False, strict=True)]
Rate = Annotated[float, Field(gt=0, allow_inf_nan=False, strict=True)]
Percent = Annotated[float, Field(ge=0, le=100)]
Count = Annotated[int, Field(ge=0, le=LARGEST)]


def misfit(kind: Any, value: Any) -> str | None:
    """Why a value read from JSON is not of the type `kind` (a TypedDict, say); None where it is."""
    try:
        _adapter(kind).validate_python(value, strict=True)
    except ValidationError as error:
        return first_problem(error)
    return None


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def first_problem(error: ValidationError) -> str:
    """The first problem of a pydantic error in one line: where, what is wrong, what was given."""
    problem = error.errors()[0]
    where = ".".join(one_line(str(part)) for part in problem["loc"] if part != "[key]")
    if problem["type"] == "extra_forbidden":
        return f"unknown key '{_short(where)}'"
    if problem["type"] == "missing":
        return f"'{_short(where)}' is missing"
    message = problem["msg"].removeprefix("Value error, ")
    if not where:
        return message
    return f"'{_short(where)}': {message[:1].lower()}{message[1:]}, got {_short(repr(problem.get('input')))}"


def _short(text: str) -> str:
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def unequal(lists: Mapping[str, Sequence[Any]]) -> str | None:
    """Why `lists` do not belong together: they are not of one length; None where they are."""
    lengths = {name: len(values) for name, values in lists.items()}
    if len(set(lengths.values())) <= 1:
        return None
    return ", ".join(f"{name} has {length} values" for name, length in lengths.items())
