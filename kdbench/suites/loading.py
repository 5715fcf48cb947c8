"""Finding and reading suite files, their variants and recipes that extend others."""

import tomllib
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from kdbench.errors import KdbenchError, unknown_name
from kdbench.hyperparameters import first_problem
from kdbench.suites.schema import VARIANT, Suite


def available() -> dict[str, Path]:
    """The suites that come with kdbench, by name."""
    return {path.stem: path for path in sorted(Path(__file__).parent.glob("*.toml"))}


def load(name: str) -> Suite:
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
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise KdbenchError(f"suite {path} is not TOML: {error}") from error
    variants = content.get("variants", {})
    if variant and variant not in variants:
        raise unknown_name(f"variant of suite {base}", variant, variants)
    if variant:
        content = _merged(content, variants[variant]) | {"name": f"{content.get('name')}{VARIANT}{variant}"}
    content["recipes"] = {name: _extended(content["recipes"], name) for name in content.get("recipes", {})}
    try:
        suite = Suite(**content, folder=path.resolve().parent)
    except ValidationError as error:
        raise KdbenchError(f"suite {path}: {first_problem(error)}") from error
    if suite.problem:
        raise KdbenchError(f"suite {path}: {suite.problem}")
    return suite


def _extended(recipes: dict[str, Any], name: str) -> dict[str, Any]:
    """A recipe with what it takes over from the one that its key `extends` names."""
    recipe = dict(recipes[name])
    base = recipe.pop("extends", None)
    if base is None:
        return recipe
    if base not in recipes or base == name:
        raise unknown_name(f"recipe that {name} extends", str(base), set(recipes) - {name})
    return _merged(_extended({other: recipes[other] for other in recipes if other != name}, base), recipe)


def _merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`base` with `changes`, table by table."""
    both = {
        name: _merged(base[name], value) if isinstance(value, dict) and isinstance(base.get(name), dict) else value
        for name, value in changes.items()
    }
    return base | both
