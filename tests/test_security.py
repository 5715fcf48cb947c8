"""What kdbench reads is never run: no pickles, no code that the user did not name, no path outside its roots."""

import ast
import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import kdbench_methods
import pytest

import kdbench
from kdbench.registry import Plugin, Registry
from tests.support.command import kdbench as command
from tests.support.synthetic import Plan, write_results

SOURCES = sorted(
    path for module in (kdbench, kdbench_methods) for path in Path(str(module.__file__)).parent.rglob("*.py")
)
PERMITTED = {
    ("data/sources/unpickle.py", "pickle.Unpickler"),  # knows five names, all code of its own
    ("targets.py", "exec_module"),  # what the user named
}


def _calls(tree: ast.Module) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def _is(call: ast.Call, name: str, value: object) -> bool:
    return any(k.arg == name and isinstance(k.value, ast.Constant) and k.value.value is value for k in call.keywords)


def _danger(name: str, call: ast.Call) -> bool:
    last = name.rpartition(".")[2]
    return (
        name in ("eval", "exec", "compile", "__import__", "os.system", "os.popen", "yaml.load", "np.load_pickle")
        or last in ("exec_module", "extractall", "extract", "load_state_dict_from_url", "pickle_load")
        or name.split(".")[0] in ("pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve")
        or (name == "torch.load" and not _is(call, "weights_only", True))
        or (name in ("np.load", "numpy.load") and not _is(call, "allow_pickle", False))
        or any(keyword.arg in ("shell", "trust_remote_code") for keyword in call.keywords)
    )


def _found(path: Path, text: str) -> set[tuple[str, str]]:
    where = path.as_posix().rpartition("/kdbench/")[2]
    tree = ast.parse(text)
    found = {name for name, call in _calls(tree) if _danger(name, call)}
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            found |= {ast.unparse(base) for base in node.bases if ast.unparse(base).startswith("pickle.")}
    return {(where, name.rpartition(".")[2] if name.endswith("exec_module") else name) for name in found}


def test_no_source_reads_pickles_or_runs_text() -> None:
    found = set().union(*(_found(path, path.read_text()) for path in SOURCES))
    assert {one for one in found if not one[1].startswith("pickle.UnpicklingError")} == PERMITTED


@pytest.mark.parametrize(
    "line",
    [
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "pickle.loads(content)",
        "eval(text)",
        "np.load(path, allow_pickle=True)",
        "subprocess.run(text, shell=True)",
        "archive.extractall(folder)",
        "class Reader(pickle.Unpickler): pass",
    ],
)
def test_the_scan_finds(line: str) -> None:
    assert _found(Path("x.py"), line)


@pytest.mark.runs
def test_code_beside_the_data_is_never_imported(tmp_path: Path) -> None:
    """Files that Python would import, were a folder of results, of a suite or of data on its path.

    The `kdbench` command starts with a safe path; `python -m` would look into the folder it is called in.
    """
    results = write_results(tmp_path / "results", Plan(methods=["scratch", "kd"], seeds=2, throughput=False)).folder
    suite = tmp_path / "suite" / "proxy.toml"
    suite.parent.mkdir()
    text = (Path(kdbench.__file__).parent / "suites" / "proxy.toml").read_text()
    suite.write_text(text.replace('source = "fashion-mnist-5k2k"', 'source = "folder:images"'))
    mark = tmp_path / "imported"
    for folder in (results, results / "cells", suite.parent, tmp_path / "data" / "images"):
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("sitecustomize", "conftest", "kd", "scratch", "torch", "timm", "json", "proxy", "__init__"):
            (folder / f"{name}.py").write_text(f"open({str(mark)!r}, 'w').close()\n")
    for words in (
        ["report", results, "--format", "json"],
        ["list", "pairs", "--suite", suite],
        ["run", "--suite", suite, "--methods", "scratch", "--data", tmp_path / "data"],
        ["data", "list", "--data", tmp_path / "data"],
    ):
        done = command(*words, cwd=results, PYTHONSAFEPATH="1")
        assert done.returncode in (0, 3), done.stderr
        assert not mark.exists(), words
    (tmp_path / "own.py").write_text(f"open({str(mark)!r}, 'w').close()\nclass Own(Method): pass\n")
    command("run", "--suite", suite, "--methods", tmp_path / "own.py", cwd=tmp_path)
    assert mark.exists(), "what the user names is run"


HOSTILE = "a|b`*<script>alert(1)</script>[x](y)\\input{z}$_#"


def test_text_from_records_is_escaped(tmp_path: Path) -> None:
    """Names and messages of records are words in the tables, neither markup nor commands."""
    name = "m|`*<b>[x](y)_$#&%{}~^"
    pair = f"vit<t>|:{name}"
    plan = Plan(
        methods=["scratch", "kd", name],
        pairs=[pair],
        seeds=2,
        broken={(pair, "kd", 1): ("failed", f"{HOSTILE}\n\n# heading\x1b[31m")},
        differs={name: f"{HOSTILE}\n# second line"},
    )
    results = write_results(tmp_path / "results", plan).folder
    manifest = json.loads((results / "manifest.json").read_text())
    manifest["command"] = "kdbench run\n```\n# injected"
    (results / "manifest.json").write_text(json.dumps(manifest))
    done = command("report", results, "--format", "md,latex,html")
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout
    page = (results / "report" / "report.md").read_text()
    lines = page.splitlines()
    assert not [line for line in lines if line.startswith(("# heading", "# injected", "# second"))]
    assert lines.count("```") == 2
    assert "<script>" not in page.replace("\\<script>", "") and "<b>" not in page.replace("\\<b>", "")
    assert "[x](y)" not in page.replace("\\[x](y)", "")
    head = 0
    for before, line in pairwise(lines):
        # Every row of a table has as many cells as its head.
        cells = line.replace("\\\\", "").replace("\\|", "").count("|") if line.startswith("|") else 0
        assert not cells or not before.startswith("|") or cells == head, line
        head = cells
    assert "<script>alert" not in (results / "report" / "report.html").read_text()
    for path in (results / "report" / "latex").glob("*.tex"):
        source = path.read_text()
        assert "\\input{z}" not in source and "<script>" not in source and "$_" not in source


def test_methods_whose_name_is_a_path_are_left_out(tmp_path: Path) -> None:
    registry = Registry()
    for name in ("../../evil", "a/b", ".hidden", "a\nb", "x" * 300, "-x"):
        registry.add(Plugin(name, "kdbench_methods.kd:KD", "a package"))
        assert "rename the entry point" in registry.errors[name]
    assert not registry.names


@pytest.mark.parametrize("name", ["../../evil", "/evil", "..", "a/../../b", "evil\n"])
def test_a_record_cannot_be_of_another_folder(name: str, tmp_path: Path) -> None:
    """A manifest that names its suite, a method or a pair by a path makes nothing outside of its folder."""
    results = write_results(tmp_path / "deep" / "results", Plan(methods=["scratch", "kd"], seeds=2)).folder
    original = json.loads((results / "manifest.json").read_text())
    for changed in (
        original | {"suite": name},
        original | {"methods": ["scratch", name], "roles": {"scratch": "control", name: "baseline"}},
    ):
        (results / "manifest.json").write_text(json.dumps(changed))
        for words in (["baseline", "update", results, "--provisional"], ["report", results], ["check", results]):
            done = command(*words, cwd=tmp_path)
            assert done.returncode == 3 and "manifest.json is broken" in done.stderr
    assert not list(tmp_path.rglob("*evil*"))
