"""Finding and reading suite files, their variants and recipes that extend others."""

import tomllib
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from kdbench.errors import KdbenchError, unknown_name
from kdbench.suites.schema import VARIANT, Suite
from kdbench.values import first_problem

PERMITTED = ("torchvision.models:", "torchvision.models.")
"""Whose functions a suite may name; no other makes nothing but a network."""


def available() -> dict[str, Path]:
    """The suites that come with kdbench, by name."""
    return {path.stem: path for path in sorted(Path(__file__).parent.glob("*.toml"))}


def load_suite(name: str) -> Suite:
    """Load a suite by name or by the path of a TOML file; `name@variant` is one of its variants.

    Raises:
        KdbenchError: no such suite or variant, or the file does not fit the schema.
    """
    base, _, variant = name.partition(VARIANT)
    path = Path(base) if base.endswith(".toml") else available().get(base)
    if path is None:
        raise unknown_name("suite", base, available())
    try:
        content: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise KdbenchError(f"cannot read suite {path}: {error.strerror or error}") from error
    except ValueError as error:  # No TOML, no UTF-8, or a number of more digits than Python reads.
        raise KdbenchError(f"suite {path} is not TOML: {error}") from error
    except RecursionError as error:
        raise KdbenchError(f"suite {path} is nested too deeply") from error
    variants = _tables(path, content, "variants")
    if variant and variant not in variants:
        raise unknown_name(f"variant of suite {base}", variant, variants)
    if variant:
        content = _merged(content, variants[variant]) | {"name": f"{content.get('name')}{VARIANT}{variant}"}
    recipes = _tables(path, content, "recipes")
    content["recipes"] = {name: _extended(recipes, name) for name in recipes}
    if "folder" in content:
        raise KdbenchError(f"suite {path}: unknown key 'folder'")
    try:
        suite = Suite.model_validate(content | {"folder": path.resolve().parent})
    except ValidationError as error:
        raise KdbenchError(f"suite {path}: {first_problem(error)}") from error
    if problem := suite.problem or _foreign(suite):
        raise KdbenchError(f"suite {path}: {problem}")
    return suite


def _tables(path: Path, content: dict[str, Any], key: str) -> dict[str, dict[str, Any]]:
    tables = content.get(key, {})
    if not isinstance(tables, dict) or not all(isinstance(table, dict) for table in tables.values()):
        raise KdbenchError(f"suite {path}: '{key}' should be tables, as [{key}.NAME]")
    return tables


def _foreign(suite: Suite) -> str | None:
    """A model whose code a suite file may not name: it is data, and code runs only where its user names it."""
    for name, model in suite.models.items():
        if ":" in model.timm and not model.timm.startswith(PERMITTED):
            return (
                f"model {name} is made by {model.timm}, code that a suite may not name; "
                f"name it yourself, as in --pairs {model.timm}:STUDENT"
            )
    return None


def _extended(recipes: dict[str, Any], name: str) -> dict[str, Any]:
    """A recipe with what it takes over from the one that its key `extends` names."""
    recipe = dict(recipes[name])
    base = recipe.pop("extends", None)
    if base is None:
        return recipe
    if not isinstance(base, str) or base not in recipes or base == name:
        raise unknown_name(f"recipe that {name} extends", str(base), set(recipes) - {name})
    return _merged(_extended({other: recipes[other] for other in recipes if other != name}, base), recipe)


def _merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`base` with `changes`, table by table."""
    both = {
        name: _merged(base[name], value) if isinstance(value, dict) and isinstance(base.get(name), dict) else value
        for name, value in changes.items()
    }
    return base | both
