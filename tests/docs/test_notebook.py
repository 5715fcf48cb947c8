"""The notebook of the docs runs from its first cell to its last."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.docs.commands import ROOT

pytestmark = pytest.mark.runs

NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs(path: Path, tmp_path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    gains = next(cell for cell in reversed(notebook.cells) if "study.gains()" in cell.source)
    assert "gentle" in gains.outputs[-1]["data"]["text/plain"]
