"""What holds for every registered method, also for those of third parties."""

import ast
from pathlib import Path

import kdbench
from kdbench.registry import Registry


def test_the_harness_names_no_method() -> None:
    """Invariant 7: no string in `kdbench/` is a method's name or alias, and nothing of the methods is imported."""
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
            assert f"{name}" in documented, f"{plugin.name} does not document its hyperparameter {name}"
