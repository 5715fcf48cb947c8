"""What holds for every registered method, also for those of third parties."""

import ast
from pathlib import Path

import kdbench
from kdbench.registry import Registry


def test_the_harness_names_no_method() -> None:
    """Invariant 7: no string constant or name in `kdbench/` is a method's name or alias."""
    registry = Registry.installed()
    names = {word for name in registry.names for word in (name, *registry.plugins[name].source.aliases)}
    assert len(names) >= 7
    for path in Path(kdbench.__file__).parent.rglob("*.py"):
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            word = None
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                word = node.value
            elif isinstance(node, ast.Name):
                word = node.id
            elif isinstance(node, ast.Attribute):
                word = node.attr
            assert word not in names, f"{path}:{getattr(node, 'lineno', '?')} names the method {word}"


def test_every_method_says_what_it_is() -> None:
    for plugin in Registry.installed().plugins.values():
        assert plugin.source.summary, plugin.name
        documented = plugin.method.__doc__ or ""
        for name in plugin.hyperparameters.model_fields:
            assert f"{name}" in documented, f"{plugin.name} does not document its hyperparameter {name}"
