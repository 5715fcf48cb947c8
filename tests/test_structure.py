"""The structure of the code: no circle, nothing imports upward, records need no torch, functions stay small."""

import ast
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import networkx as nx
import pytest

from kdbench.cli.main import GROUPS

ROOT = Path(__file__).parents[1]
FILES = {
    ".".join(path.relative_to(base).with_suffix("").parts).removesuffix(".__init__"): path
    for base in (ROOT, ROOT / "methods")
    for path in sorted((base / ("kdbench" if base == ROOT else "kdbench_methods")).rglob("*.py"))
}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in FILES.items()}
LONGEST_FUNCTION = 60
MOST_POSITIONAL = 6
WITHOUT_TORCH = [
    "kdbench.results.folder",
    "kdbench.results.schema",
    "kdbench.results.study",
    "kdbench.results.status",
    "kdbench.results.leftovers",
    "kdbench.results.tuned",
    "kdbench.analysis.gains",
    "kdbench.analysis.cost",
    "kdbench.analysis.comparison",
    "kdbench.analysis.runs",
    "kdbench.report.build",
    "kdbench.report.terminal",
    "kdbench.gate.baseline",
    "kdbench.gate.check",
    "kdbench.gate.joining",
    "kdbench.gate.tables",
    "kdbench.gate.files",
]
"""What reads results, statistics and pages."""
SHARED_NAMES = {
    "run": "both run what is missing of a grid: one from a plan, the other for Python",
    "notes": "both write the notes of a page: of a report, and of a comparison of two runs",
    "locate": "each kind of data source has one: where its files are, for `kdbench.data.sources`",
    "read": "each kind of data source has one: its images, for `kdbench.data.sources`",
    "refuse_bomb": "both refuse what would fill the memory when unpacked: an archive of weights, and one of images",
}
"""Names of public functions that several modules may define, with the reason."""


def _imported(name: str) -> Iterator[str]:
    """The modules of the project that a module imports, at its top or in its functions.

    `kdbench` itself imports what it names when that is used; what it imports for type checkers makes no circle.
    """
    if name == "kdbench":
        return
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield full if full in FILES else node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def _functions() -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    for name, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield f"{name}.{node.name}", node


def test_no_module_imports_in_a_circle() -> None:
    graph = nx.DiGraph((name, other) for name in FILES for other in _imported(name) if other in FILES and other != name)
    assert not [circle for circle in nx.strongly_connected_components(graph) if len(circle) > 1]


def test_no_package_imports_upward() -> None:
    def package(name: str) -> str:
        return ".".join(name.split(".")[:2]) if name.startswith("kdbench.") else name.split(".")[0]

    pairs = {(package(name), package(other)) for name in FILES for other in _imported(name) if other in FILES}
    graph = nx.DiGraph(pair for pair in pairs if pair[0] != pair[1] and "kdbench" not in pair)
    assert nx.is_directed_acyclic_graph(graph), nx.find_cycle(graph)


@pytest.mark.parametrize("name", WITHOUT_TORCH)
def test_reading_needs_no_torch(name: str) -> None:
    code = f"import sys, {name}; assert not {{'torch', 'timm'}} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_functions_are_short_and_take_few_positional_arguments() -> None:
    for name, function in _functions():
        lines = (function.end_lineno or function.lineno) - function.lineno + 1
        assert lines <= LONGEST_FUNCTION, f"{name} has {lines} lines"
        positional = [argument.arg for argument in (*function.args.posonlyargs, *function.args.args)]
        own = positional[1:] if positional[:1] in (["self"], ["cls"]) else positional
        assert len(own) <= MOST_POSITIONAL, f"{name} takes {len(own)} positional arguments"


def test_no_class_has_the_name_of_another() -> None:
    homes = defaultdict(list)
    for name, tree in TREES.items():
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                homes[node.name].append(name)
    assert not {cls: names for cls, names in homes.items() if len(names) > 1}


def test_no_function_has_the_name_of_another() -> None:
    """A command of the command line is named after the word that calls it, and may share it with what it calls."""
    groups = [command for commands in GROUPS.values() for command in commands]
    below = [command for group in groups for command in getattr(group, "COMMANDS", [group])]
    commands = {(command.__module__, command.__name__) for command in below}
    homes = defaultdict(list)
    for name, tree in TREES.items():
        for node in tree.body:
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                homes[node.name] += [name] if (name, node.name) not in commands else []
    shared = {function: names for function, names in homes.items() if len(names) > 1}
    assert shared.keys() == SHARED_NAMES.keys(), shared


def test_every_module_says_what_it_is_in_a_whole_sentence() -> None:
    for name, tree in TREES.items():
        if tree.body:
            sentence = (ast.get_docstring(tree) or "").partition("\n\n")[0]
            assert len(sentence.split()) > 2 and sentence.endswith((".", ":", "?")), f"{name}: {sentence!r}"


def test_plans_and_trainings_fit_in_a_dozen_files() -> None:
    assert len(list((ROOT / "kdbench" / "study").glob("*.py"))) <= 12
