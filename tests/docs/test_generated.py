"""What the docs hold that was made from the code or from records is what would be made now."""

import ast
import html
import importlib.util
import re
from pathlib import Path
from types import ModuleType

import cli_page
import pytest

from tests.docs.commands import ROOT

DOCS = ROOT / "docs"


def tool(name: str) -> ModuleType:
    """A script of docs/tools."""
    spec = importlib.util.spec_from_file_location(name, DOCS / "tools" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_command_line() -> None:
    assert (DOCS / "cli.md").read_text() == cli_page.page(), "python docs/tools/cli_page.py docs/cli.md"


@pytest.mark.parametrize("columns", ["40", "200"])
def test_the_command_line_is_that_of_any_terminal(monkeypatch: pytest.MonkeyPatch, columns: str) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setenv("KDBENCH_DATA", "elsewhere")
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    assert cli_page.page() == (DOCS / "cli.md").read_text()


@pytest.mark.runs
def test_the_picture_of_the_house() -> None:
    """Rooms and arrows are those of the code; the picture itself is Graphviz's."""
    house = tool("house")
    downward, against = house.drawn(house.imports())
    titles = [
        html.unescape(text) for text in re.findall("<title>(.*?)</title>", (DOCS / "assets/house.svg").read_text())
    ]
    arrows = {tuple(title.split("->")) for title in titles if "->" in title}
    assert arrows == {*downward.edges, *against}, "python docs/tools/house.py docs/assets/house.svg"
    assert {title for title in titles if "->" not in title} - {"house"} == set(downward)
    # What the pages about it say.
    assert not against, "nothing imports upward"
    imports = house.imports()
    assert not {"kdbench.training", "kdbench.study", "kdbench.models"} & {
        imported for room in ("kdbench.analysis", "kdbench.report") for imported in imports[room]
    }


@pytest.mark.parametrize("path", sorted((ROOT / "methods/kdbench_methods").rglob("*.py")), ids=lambda path: path.stem)
def test_a_method_imports_the_contract_and_the_parts_alone(path: Path) -> None:
    house = tool("house")
    names = {name for node in ast.walk(ast.parse(path.read_text())) for name in house._names(node)}
    extended = {"lskd": "kdbench_methods.kd.KD", "ea": "kdbench_methods.kd.KD", "spofa": "kdbench_methods.ofa.OFA"}
    assert not [
        name
        for name in names - {extended.get(path.stem)}
        if not name.startswith(("kdbench.method.", "kdbench_methods.parts."))
    ]


@pytest.mark.runs
def test_which_method_to_use() -> None:
    choosing = tool("choosing")
    folders = sorted(path.parent for path in choosing.RESULTS.glob("*/manifest.json"))
    assert folders, "there are committed records"
    assert choosing.page(folders) == (DOCS / "choosing.md").read_text(), (
        "python docs/tools/choosing.py docs/choosing.md"
    )


def test_what_was_measured() -> None:
    text = (DOCS / "measuring.md").read_text()
    assert tool("measured").page(text) == text, "python docs/tools/measured.py docs/measuring.md"
    assert text.count("| protocol |") == 1
