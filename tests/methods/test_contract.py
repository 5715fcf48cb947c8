"""The contract of a method holds for all of this repository, and the harness names none of them.

Methods are found, not listed: those that are registered, and every subclass of `Method` in a file of
`methods/kdbench_methods`. One that comes later is covered by being there.
"""

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import kdbench_methods

import kdbench
from kdbench.method import Method
from kdbench.registry import Registry
from kdbench.testing import MethodContract


def _unregistered() -> Iterator[str]:
    """The methods, as `module:Class`, that stand in a file and are not registered as an entry point."""
    registered = {plugin.target for plugin in Registry.installed().plugins.values()}
    for path in sorted(Path(kdbench_methods.__path__[0]).glob("*.py")):
        module = importlib.import_module(f"kdbench_methods.{path.stem}")
        for name, value in vars(module).items():
            if isinstance(value, type) and issubclass(value, Method) and value.__module__ == module.__name__:
                target = f"{module.__name__}:{name}"
                if target not in registered and not name.startswith("_"):
                    yield target


class TestMethods(MethodContract):
    methods = ",".join(["all", *_unregistered()])
    weights: ClassVar = {"dist": ("beta", "gamma"), "dkd": ("alpha", "beta"), "rld": ("alpha", "beta")}


def test_the_harness_names_no_method() -> None:
    """Invariant 6: no string in `kdbench/` is a method's name or alias, and nothing of the methods is imported."""
    registry = Registry.installed()
    names = {word for name in registry.names for word in (name, *registry.plugins[name].source.aliases)}
    assert len(names) >= 7
    for path in Path(kdbench.__file__).parent.rglob("*.py"):
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                assert node.value not in names, f"{path}:{node.lineno} names the method {node.value}"
            imported = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            imported += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            assert not any(name.startswith("kdbench_methods") for name in imported), path


def test_every_method_says_what_it_is() -> None:
    for plugin in Registry.installed().plugins.values():
        assert plugin.source.summary, plugin.name
        documented = plugin.method.__doc__ or ""
        for name in plugin.hyperparameters.model_fields:
            assert name in documented, f"{plugin.name} does not document its hyperparameter {name}"
