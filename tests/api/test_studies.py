"""A study as data frames: the numbers of the report, without torch."""

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

import kdbench
from kdbench.report.build import build_report
from kdbench.report.content import collect
from tests.support.synthetic import PAIRS, Plan, write_results


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    plan = Plan(missing=[(PAIRS[0], "ofa", 1)])
    return write_results(tmp_path_factory.mktemp("study"), plan).folder


def test_it_has_the_numbers_of_the_report(folder: Path, tmp_path: Path) -> None:
    study = kdbench.load(folder)
    build_report(collect(study), tmp_path, ["csv"])
    frames = {
        "cells": study.cells,
        "curves": study.curves,
        "gains": study.gains("pair"),
        "gains_by_seed": study.gains("seed"),
        "gains_by_group": study.gains(),
        "throughput": study.costs("pair"),
        "throughput_by_group": study.costs(),
    }
    for name, frame in frames.items():
        written = pd.read_csv(tmp_path / "csv" / f"{name}.csv")
        again = pd.read_csv(_csv(frame, tmp_path / f"{name}.csv"))
        keys = [key for key in ("group", "pair", "method", "seed", "epoch") if key in written]
        written, again = (table.sort_values(keys, ignore_index=True) for table in (written, again))
        pd.testing.assert_frame_equal(written, again)


def _csv(frame: pd.DataFrame, path: Path) -> Path:
    frame.to_csv(path, index=False)
    return path


def test_a_part_is_analysed_too(folder: Path) -> None:
    part = kdbench.load(str(folder)).only(["scratch", "kd"])
    assert set(part.gains()["method"]) == {"scratch", "kd"}


def test_a_folder_without_results(tmp_path: Path) -> None:
    with pytest.raises(kdbench.KdbenchError, match="no results in"):
        kdbench.load(tmp_path)


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("import kdbench; kdbench.list_methods()", {"torch", "timm", "pandas", "numpy"}),
        ("import kdbench; kdbench.load; dir(kdbench)", {"torch", "timm", "pandas"}),
    ],
)
def test_what_is_not_used_is_not_loaded(code: str, absent: set[str]) -> None:
    check = f"{code}; import sys; assert not {absent!r} & set(sys.modules), {absent!r} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_methods_are_listed_by_pattern() -> None:
    assert kdbench.list_methods()[:2] == ["scratch", "kd"]
    assert {"kd", "dkd", "pkt"} & set(kdbench.list_methods("*kd")) == {"kd", "dkd"}


def test_what_is_not_there() -> None:
    with pytest.raises(AttributeError, match="no attribute 'lod'"):
        kdbench.lod  # noqa: B018
