"""Where output goes: into a pipe that closes, onto a full device, to names that look like markup."""

import subprocess
from pathlib import Path

import pytest

from kdbench.report.text import plural
from tests.support.command import COMMAND, kdbench
from tests.support.synthetic import Plan, write_results
from tests.support.world import World

ODD = "vit-t:resnet18[layers=[1,1,1,1]]"


def _piped(shell: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """`kdbench ARGUMENTS` followed by what the shell does with its output; the exit code is that of kdbench."""
    script = f'"$@" {shell}; exit ${{PIPESTATUS[0]}}'
    words = ["bash", "-c", script, "kdbench", *COMMAND, *map(str, arguments)]
    return subprocess.run(words, capture_output=True, text=True, timeout=120)


@pytest.mark.runs
@pytest.mark.parametrize("more", [(), ("--json",)])
@pytest.mark.parametrize("shift", [0.0, -9.0])
def test_a_check_whose_reader_leaves_keeps_its_exit_code(tmp_path: Path, shift: float, more: tuple[str, ...]) -> None:
    baseline = tmp_path / "baseline.json"
    World().write(tmp_path / "old")
    World(seeds=range(100, 120), shift={"ofa": shift}).write(tmp_path / "new")
    made = kdbench("baseline", "update", tmp_path / "old", "--out", baseline, "--provisional")
    assert made.returncode == 0, made.stderr
    words = ("check", tmp_path / "new", "--baseline", baseline, *more)
    expected = kdbench(*words)
    assert expected.returncode == (1 if shift else 0), expected.stdout + expected.stderr
    done = _piped("| true", *words)
    assert (done.returncode, done.stderr) == (expected.returncode, "")


@pytest.mark.runs
def test_a_report_is_written_although_nobody_reads_the_table(tmp_path: Path) -> None:
    write_results(tmp_path, Plan())
    done = _piped("| true", "report", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "report" / "report.html").is_file()


@pytest.mark.parametrize("words", [("list", "suites"), ("list", "suites", "--json"), ("--help",)])
def test_a_full_device_is_named(words: tuple[str, ...]) -> None:
    done = _piped("> /dev/full", *words)
    told = "kdbench: cannot write standard output: No space left on device; free some and run it again\n"
    assert (done.returncode, done.stderr) == (3, told)


@pytest.mark.runs
def test_no_name_is_markup(tmp_path: Path) -> None:
    write_results(tmp_path, Plan(pairs=[ODD], missing=[(ODD, "ofa", 0)]))
    for words in (("status", tmp_path), ("report", tmp_path), ("compare", tmp_path, tmp_path)):
        done = kdbench(*words)
        assert "layers=[1,1,1,1]" in done.stdout.replace("\n", ""), words


def test_one_thing_is_no_plural() -> None:
    assert [plural(1, "pair"), plural(2, "pair"), plural(0, "pair")] == ["1 pair", "2 pairs", "0 pairs"]
