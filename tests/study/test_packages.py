"""A third party's package, installed with pip into a virtual environment of its own, takes part by its entry point."""

import json
import os
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest

from kdbench.results.folder import Results
from tests.study.test_run import GROUP, _plugin

pytestmark = pytest.mark.runs

PROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "kd-of-tomorrow"
version = "1.0"

[project.entry-points."kdbench.methods"]
tomorrow = "kd_of_tomorrow.methods:Tomorrow"
broken = "kd_of_tomorrow.broken:Broken"
raising = "kd_of_tomorrow.raising:Raising"
"""


@pytest.fixture(scope="module")
def third_party(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of a virtual environment that has kdbench (this one's) and the package, installed by pip."""
    folder = tmp_path_factory.mktemp("third-party")
    package = folder / "project" / "kd_of_tomorrow"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package.parent / "pyproject.toml").write_text(PROJECT)
    _plugin(package, "Tomorrow", "pass").rename(package / "methods.py")
    (package / "broken.py").write_text("import a_package_nobody_has\n\nclass Broken:\n    pass\n")
    _plugin(package, "Raising", "pass")
    (package / "raising.py").write_text("1 / 0\n" + (package / "raising.py").read_text())
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True)
    python = folder / "venv" / "bin" / "python"
    site = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    # kdbench and what it needs come from the environment that runs the tests, editable installs included.
    (Path(site) / "parent.pth").write_text(f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n")
    install = ["install", "--quiet", "--no-deps", "--no-index", "--no-build-isolation", str(package.parent)]
    subprocess.run([sys.executable, "-m", "pip", "--python", str(python), *install], check=True)
    return python


def _kdbench(python: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(python), "-m", "kdbench.cli.main", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=dict(os.environ), timeout=300)


def test_it_is_listed_and_so_is_what_is_broken(third_party: Path) -> None:
    done = _kdbench(third_party, "list", "methods", "--json")
    rows = {row["method"]: row for row in json.loads(done.stdout)}
    assert rows["tomorrow"]["from"] == "kd-of-tomorrow"
    assert rows["broken"]["from"] == "BROKEN"
    assert "imports a_package_nobody_has, which is not installed" in rows["broken"]["summary"]
    assert {"scratch", "kd"} <= set(rows)


def test_it_takes_part_in_a_run(third_party: Path, short_suite: Callable[..., Path], tmp_path: Path) -> None:
    folder = tmp_path / "results"
    arguments = ["--suite", str(short_suite()), "--out", str(folder), "--no-throughput", "--no-report", *GROUP]
    done = _kdbench(third_party, "run", *arguments, "--methods", "kd,tomorrow")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "method broken is left out" in done.stdout
    assert {cell["method"]: cell["status"] for cell in Results(folder).cells()} == {
        "scratch": "done",
        "kd": "done",
        "tomorrow": "done",
    }


def test_one_that_raises_at_import_is_left_out_of_all(third_party: Path) -> None:
    named = _kdbench(third_party, "verify", "raising", "--pairs", "vit-t:resnet-s")
    assert named.returncode == 3
    assert "fails to import: ZeroDivisionError" in named.stderr and "Traceback" not in named.stderr
    everything = _kdbench(third_party, "verify", "all", "--pairs", "vit-t:resnet-s")
    assert everything.returncode == 0, everything.stdout + everything.stderr
    assert "raising" in everything.stdout and "ZeroDivisionError" in everything.stdout
    assert "passed tomorrow on vit-t:resnet-s" in everything.stdout
