"""What a report tells of the environments of its records."""

from collections.abc import Mapping
from typing import Any

FIELDS = (
    "kdbench",
    "git",
    "device",
    "cores",
    "threads",
    "precision",
    "python",
    "torch",
    "timm",
    "cuda",
    "variables",
)
"""In this order, where the records have it."""


def told(environment: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What to tell of an environment, by field."""
    known = [(field, environment[field]) for field in FIELDS if environment.get(field) not in (None, {})]
    return [(field, _value(value)) for field, value in known]


def _value(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {part}" for key, part in sorted(value.items()) if part is not None)
    return str(value)
