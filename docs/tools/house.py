"""The picture of the house, from the imports of the code: `python docs/tools/house.py docs/assets/house.svg`.

It needs Graphviz's `dot`. An arrow leads from what imports to what is imported; one that a longer way implies is left
out, so that everything below that can be reached may be imported.
"""

import ast
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from textwrap import wrap

import networkx as nx

ROOT = Path(__file__).parents[2]
PACKAGES = (ROOT / "kdbench", ROOT / "methods" / "kdbench_methods")
ROOMS = {"kdbench_methods": "#fdebd3"} | dict.fromkeys(("kdbench.analysis", "kdbench.report"), "#dcefe3")
"""Colours of those that are apart: plug-ins, and what reads records only."""
STYLE = """
  bgcolor="#ffffff"; rankdir=TB; nodesep=.2; ranksep=.35; pad=.3;
  node [shape=box, style="filled,rounded", fillcolor="#e3eaf6", color="#8a97ad", fontname="Helvetica,Arial,sans-serif"];
  edge [color="#6b7789", arrowsize=.7];
"""


def imports() -> nx.DiGraph:
    """What imports what, packages and single modules as rooms; `count` says how often."""
    counts = Counter(
        (room(module), room(name))
        for path, module in _modules()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        for name in _names(node)
    )
    graph = nx.DiGraph()
    for (importer, imported), count in counts.items():
        if importer != imported and "kdbench" not in (importer, imported):
            graph.add_edge(importer, imported, count=count)
    return graph


def room(module: str) -> str:
    """The room that a module stands in: a package, or a module beside the packages."""
    parts = module.split(".")
    if parts[0] == "kdbench_methods":
        return parts[0]
    place = ROOT / "kdbench" / Path(*parts[1:2])
    there = len(parts) > 1 and (place.is_dir() or place.with_suffix(".py").is_file())
    return ".".join(parts[:2]) if there and parts[1] != "__main__" else "kdbench"


def drawn(graph: nx.DiGraph) -> tuple[nx.DiGraph, list[tuple[str, str]]]:
    """The arrows that no longer way implies, and those against the grain: the weakest one of every circle."""
    downward, against = graph.copy(), []
    while not nx.is_directed_acyclic_graph(downward):
        circle = nx.find_cycle(downward)
        against.append(min(circle, key=lambda edge: downward.edges[edge]["count"]))
        downward.remove_edge(*against[-1])
    return nx.transitive_reduction(downward), against


def dot() -> str:
    """The picture in the language of Graphviz."""
    downward, against = drawn(imports())
    boxes = (f'"{name}" [label=<{_label(name)}>, fillcolor="{ROOMS.get(name, "#e3eaf6")}"];' for name in downward)
    arrows = [f'"{a}" -> "{b}";' for a, b in sorted(downward.edges)]
    arrows += [f'"{a}" -> "{b}" [style=dashed, constraint=false];' for a, b in sorted(against)]
    return "digraph house {" + STYLE + "\n".join(["", *sorted(boxes), *arrows]) + "\n}\n"


def _modules() -> Iterator[tuple[Path, str]]:
    """All modules but `kdbench` itself, which names what `kdbench.api` offers and imports it when it is used."""
    for package in PACKAGES:
        for path in sorted({*package.rglob("*.py")} - {ROOT / "kdbench" / "__init__.py"}):
            yield path, ".".join(path.relative_to(package.parent).with_suffix("").parts)


def _names(node: ast.AST) -> Iterator[str]:
    """The modules of the house that a statement imports; of `from kdbench import a` that is kdbench.a."""
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
        names = [f"{node.module}.{alias.name}" for alias in node.names]
    else:
        return
    yield from (name for name in names if name.partition(".")[0] in ("kdbench", "kdbench_methods"))


def _label(name: str) -> str:
    """The name, and the first sentence of what the code says of itself."""
    package = PACKAGES[1] if name == "kdbench_methods" else ROOT / Path(*name.split("."))
    file = package / "__init__.py" if package.is_dir() else package.with_suffix(".py")
    text = (ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or "").partition("\n\n")[0]
    sentence = " ".join(text.replace("`", "").split()).partition(". ")[0].rstrip(".")
    lines = "".join(f'<br/><font point-size="12">{line}</font>' for line in wrap(sentence.replace("&", "and"), 34))
    return f"<b>{name.removeprefix('kdbench.')}</b>{lines}"


if __name__ == "__main__":
    Path(sys.argv[1]).write_bytes(subprocess.run(["dot", "-Tsvg"], input=dot().encode(), stdout=-1, check=True).stdout)
