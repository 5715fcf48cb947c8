"""What the gate prints and writes: for people, pull requests and other programs."""

import io
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from rich.console import Console

from kdbench.gate.baseline import make_baseline
from kdbench.gate.check import check_study
from kdbench.gate.files import annotations, junit, markdown
from kdbench.gate.tables import check_as_json, print_check
from kdbench.gate.verdict import CheckResult
from kdbench.results.study import read_study
from tests.support.command import kdbench_without
from tests.support.world import METHODS, PAIRS, World

FRESH = World(seeds=range(20, 26), numerics=1)
BROKEN = {(PAIRS[0], "kd", 22): {"status": "failed", "error": "RuntimeError: a | b * 50 % \x1b[31m<tag>\nat line 3"}}
SECONDS = 5.0
"""That a check of 10,000 records may take."""


@pytest.fixture
def found(tmp_path: Path) -> Callable[..., CheckResult]:
    baseline = make_baseline(read_study(World().write(tmp_path / "baseline")))

    def hold(world: World, **arguments: bool) -> CheckResult:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        return check_study(read_study(world.write(folder)), baseline, **arguments)

    return hold


@pytest.fixture
def mixed(found: Callable[..., CheckResult]) -> CheckResult:
    """Something of everything: a worse and slower method, a failed cell, a new method."""
    world = replace(FRESH, methods=[*METHODS, "mine"], shift={"ofa": -3.0}, speed={"ofa": 0.4}, changed=BROKEN)
    return found(world, fail_on_speed=True)


def printed(check: CheckResult, width: int) -> str:
    console = Console(width=width, file=io.StringIO(), force_terminal=False)
    print_check(check, console)
    return console.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize("width", [80, 140])
def test_the_console_table_fits(mixed: CheckResult, width: int) -> None:
    text = printed(mixed, width)
    assert max(map(len, text.splitlines())) <= width and "\x1b" not in text
    for word in ("WORSE (method) ofa on vit-t:resnet-s: top-1 moved by -", "FAILED_CELL kd on vit-t:resnet-s: seed 22"):
        assert word in " ".join(text.split())
    assert "8 cells: 3 PASS, 2 WORSE, 2 SLOWER, 2 NEW_METHOD, 1 FAILED_CELL" in text
    assert "Smallest drop of top-1 found with 80 % probability" in text
    table = text.split("FAILED_CELL kd on")[0]
    rows = [line for line in table.splitlines() if any(pair in line for pair in PAIRS)]
    assert len(rows) == 8, "a cell is a line"


def test_the_comment(mixed: CheckResult) -> None:
    text = markdown(mixed)
    assert text.startswith("### kdbench check: failed\n\n8 cells: ")
    lines = text.splitlines()
    tables = [line for line in lines if line.startswith("|")]
    assert len({line.replace("\\|", "").count("|") for line in tables}) == 1, "every row has every column"
    assert "RuntimeError: a \\| b \\* 50 %" in text
    assert text.count("<details>") == text.count("</details>") == 1


def test_junit_is_what_readers_expect(mixed: CheckResult) -> None:
    """The elements and attributes of the JUnit schema that Jenkins and GitLab read."""
    root = ElementTree.fromstring(junit(mixed).encode())
    assert root.tag == "testsuites"
    (suite,) = root
    cases = suite.findall("testcase")
    assert suite.tag == "testsuite" and len(cases) == len(suite) == int(suite.attrib["tests"])
    assert {"name", "tests", "failures", "errors", "skipped", "time"} == set(suite.attrib)
    assert all({"classname", "name", "time"} == set(case.attrib) for case in cases)
    assert len({(case.attrib["classname"], case.attrib["name"]) for case in cases}) == len(cases)
    children = [child for case in cases for child in case]
    assert {child.tag for child in children} == {"failure", "error", "system-out"}
    by_tag = {tag: [child for child in children if child.tag == tag] for tag in ("failure", "error")}
    assert len(by_tag["failure"]) == int(suite.attrib["failures"]) == 4, "two pairs, accuracy and speed"
    assert [error.attrib["type"] for error in by_tag["error"]] == ["FAILED_CELL"]
    assert int(suite.attrib["errors"]) == 1
    assert all({"message", "type"} == set(child.attrib) for child in by_tag["failure"])


def test_annotations_are_one_line_each(mixed: CheckResult, found: Callable[..., CheckResult]) -> None:
    lines = annotations(mixed)
    assert sum(line.startswith("::error title=kdbench WORSE::ofa on ") for line in lines) == 2
    assert sum(line.startswith("::error title=kdbench SLOWER::ofa on ") for line in lines) == 2
    assert any(line.startswith("::error title=kdbench FAILED_CELL::kd on vit-t:resnet-s: ") for line in lines)
    assert sum(line.startswith("::notice title=kdbench NEW_METHOD::mine") for line in lines) == 2
    assert all("\n" not in line and "50 %25" in line for line in lines if "FAILED_CELL" in line)
    warned = annotations(found(replace(FRESH, speed={"ofa": 0.4})))
    assert [line.split("::")[1] for line in warned] == ["warning title=kdbench SLOWER"] * 2


def test_json_holds_everything(mixed: CheckResult) -> None:
    content = json.loads(json.dumps(check_as_json(mixed), allow_nan=False))
    assert content["exit_code"] == 1
    assert {cell["outcome"] for cell in content["cells"]} == {"PASS", "WORSE", "FAILED_CELL", "NEW_METHOD"}
    worse = next(cell for cell in content["cells"] if cell["outcome"] == "WORSE")
    assert worse["accuracy"]["n_new"] == 6 and worse["speed"] == "SLOWER"


def test_repeated_it_gives_the_same_bytes(mixed: CheckResult, found: Callable[..., CheckResult]) -> None:
    world = replace(FRESH, methods=[*METHODS, "mine"], shift={"ofa": -3.0}, speed={"ofa": 0.4}, changed=BROKEN)
    again = found(world, fail_on_speed=True)
    for write in (markdown, junit, check_as_json, annotations, lambda one: printed(one, 100)):
        assert write(mixed) == write(again)


@pytest.mark.runs
def test_reading_loads_no_torch(tmp_path: Path) -> None:
    World(seeds=range(3)).write(tmp_path / "results")
    folder, file = tmp_path / "results", tmp_path / "baseline.json"
    update = "baseline", "update", folder, "--out", file, "--provisional"
    for words, code, told in (
        (update, 0, "provisional"),
        ((*update, "--json", "--add"), 0, "provisional"),
        (("baseline", "show", file), 2, "provisional"),
        (("check", folder, "--baseline", file), 0, "6 IDENTICAL"),
    ):
        done = kdbench_without("torch timm kdbench.study kdbench.training", *words)
        assert done.returncode == code, done.stderr
        assert told in done.stdout


@pytest.mark.runs
def test_ten_thousand_records_in_seconds(tmp_path: Path) -> None:
    """Reading, testing and writing, in the time of this process (the machine may be busy)."""
    methods = [*METHODS, *(f"m{number}" for number in range(22))]
    pairs = [f"t{number}:s{number}" for number in range(20)]
    grid = World(methods=methods, pairs=pairs, seeds=range(6))
    baseline = make_baseline(read_study(grid.write(tmp_path / "baseline")))
    world = replace(grid, seeds=range(20, 40), numerics=1)
    results = world.write(tmp_path / "results")
    assert len(list((tmp_path / "results" / "cells").rglob("*.json"))) == 10_000
    started = time.process_time()
    found = check_study(read_study(results), baseline)
    texts = [printed(found, 140), markdown(found), junit(found), json.dumps(check_as_json(found))]
    spent = time.process_time() - started
    print(f"10,000 records: {spent:.2f} s")
    assert len(found.verdicts) == 500 and all(texts)
    assert spent < SECONDS
