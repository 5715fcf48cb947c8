"""The table of published numbers, row by row, and the labels that lead to it."""

import csv
import re
import subprocess
import sys
import zipfile
from collections import defaultdict
from collections.abc import Callable, Hashable
from pathlib import Path

import numpy as np
import pytest
from hatchling.builders.wheel import WheelBuilder

from kdbench.analysis.comparison import ALLOWANCE
from kdbench.analysis.published import Number, baselines_folder, find_published, numbers, protocols, published_name
from kdbench.errors import KdbenchError
from kdbench.registry import Registry
from kdbench.suites.loading import available, load_suite

ROOT = Path(__file__).parents[2]


def by(key: Callable[[Number], Hashable]) -> dict[Hashable, list[Number]]:
    groups: dict[Hashable, list[Number]] = defaultdict(list)
    for row in numbers():
        groups[key(row)].append(row)
    return groups


def place(row: Number) -> tuple[str, ...]:
    return row.dataset, row.protocol, row.teacher, row.student, row.method


def test_every_row() -> None:
    assert len(numbers()) == 720
    for row in numbers():
        assert all((row.dataset, row.protocol, row.student, row.method, row.source)), row
        assert row.address.startswith("https://"), row
        assert row.dataset == protocols()[row.protocol].dataset, row
        assert 20 < row.top1 < 100, row
        assert row.teacher_top1 is None or 70 < row.teacher_top1 < 100, row
        assert row.scratch_top1 is None or 60 < row.scratch_top1 < 85, row
        assert bool(row.teacher) == (row.method not in ("scratch", "teacher")) == bool(row.teacher_arch), row
        assert row.method != "scratch" or row.scratch_top1 == row.top1, row
        assert {row.teacher_arch, row.student_arch} <= {"", "cnn", "vit", "mlp", "mamba"} and row.student_arch, row


def test_the_file_is_clean() -> None:
    with (baselines_folder() / "published.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0][-3:] == ["source", "source_address", "note"]
    assert all(len(row) == len(rows[0]) and all(cell == cell.strip() for cell in row) for row in rows)


def test_no_source_says_two_things_of_one_place() -> None:
    for rows in by(lambda row: (*place(row), row.source)).values():
        assert len(rows) == 1 or all(row.note.startswith("conflict:") for row in rows), rows


def test_who_contradicts_another_says_why() -> None:
    contradicted = [rows for rows in by(place).values() if len({row.top1 for row in rows}) > 1]
    assert len(contradicted) > 20
    for rows in contradicted:
        without = {row.top1 for row in rows if not row.note}
        assert len(without) <= 1, rows


def test_one_teacher_and_one_scratch_accuracy_in_a_protocol() -> None:
    teachers: dict[tuple[str, str], set[float]] = defaultdict(set)
    scratch: dict[tuple[str, str], set[float]] = defaultdict(set)
    for row in numbers():
        if "conflict:" in row.note:
            continue
        if row.teacher_top1 is not None:
            teachers[row.protocol, row.teacher].add(row.teacher_top1)
        if row.method == "teacher":
            teachers[row.protocol, row.student].add(row.top1)
        if row.scratch_top1 is not None:
            scratch[row.protocol, row.student].add(row.scratch_top1)
    assert all(len(values) == 1 for values in (*teachers.values(), *scratch.values()))


@pytest.mark.parametrize("column", ["teacher", "student", "method", "protocol", "source"])
def test_no_name_is_spelt_in_two_ways(column: str) -> None:
    names = {getattr(row, column) for row in numbers()}
    assert len({re.sub(r"[^a-z0-9+]", "", name.casefold()) for name in names}) == len(names)


def test_architectures_belong_to_models() -> None:
    kinds: dict[str, set[str]] = defaultdict(set)
    for row in numbers():
        kinds[row.student].add(row.student_arch)
        if row.teacher:
            kinds[row.teacher].add(row.teacher_arch)
    assert all(len(found) == 1 for found in kinds.values())


def test_every_protocol_and_exception_is_used() -> None:
    assert set(protocols()) == {row.protocol for row in numbers()}
    sources = {row.source for row in numbers()}
    for protocol in protocols().values():
        assert protocol.epoch in ("best", "last", "unknown") and protocol.summary
        assert set(protocol.epoch_of) <= sources and set(protocol.epoch_of.values()) <= {"best", "last"}
        assert bool(protocol.basis) == (protocol.epoch != "unknown" or bool(protocol.epoch_of))


def test_whose_control_a_gain_is_over() -> None:
    """A borrowed scratch accuracy is one that another source tells, too, to the hundredth."""
    sources = {row.source for row in numbers()}
    tellers: dict[tuple[str, str, float | None], set[str]] = defaultdict(set)
    for row in numbers():
        tellers[row.protocol, row.student, row.scratch_top1].add(row.source)
    for row in numbers():
        if row.control == "borrowed" and row.scratch_top1 is not None and row.method != "scratch":
            assert len(tellers[row.protocol, row.student, row.scratch_top1]) > 1, row
    for protocol in protocols().values():
        assert set(protocol.control_of) <= sources
        assert {protocol.control, *protocol.control_of.values()} <= {"own", "borrowed", "unknown"}
        assert bool(protocol.control_basis) == (protocol.control != "unknown" or bool(protocol.control_of))
    fbt = find_published(protocol="ofa-300ep-224px", pairs=[("ConvNeXt-T", "ResMLP-S12")], methods=["FBT"])
    rerun = find_published(protocol="ofa-300ep-224px@1gpu", pairs=[("ConvNeXt-T", "ResMLP-S12")], methods=["PAT"])
    assert [(row.control, row.gain) for row in fbt] == [("borrowed", 11.47)]
    assert [(row.control, row.gain) for row in rerun if row.epoch == "best"] == [("own", 4.05)]


def test_the_epoch_depends_on_protocol_and_source() -> None:
    assert {row.epoch for row in find_published(protocol="ofa-300ep-224px")} == {"best"}
    crd = find_published(protocol="crd-240ep-32px", pairs=[("resnet56", "resnet20")], methods=["KD"])
    assert {row.origin: row.epoch for row in crd}["RepDistiller"] == "last"
    assert {row.origin: row.epoch for row in crd}["mdistiller"] == "best"


def test_numbers_published_twice_are_what_the_allowance_rests_on() -> None:
    differences = []
    for rows in by(place).values():
        readme = [row.top1 for row in rows if row.source == "LogitStd (CVPR 2024), README"]
        logs = [row.top1 for row in rows if row.source == "LogitStd (CVPR 2024), released logs"]
        differences += [log - told for told in readme for log in logs]
    assert len(differences) == 18
    spread = float(np.sqrt(np.mean(np.square(differences))))
    assert 1.96 * spread / np.sqrt(2) < ALLOWANCE < 1.96 * spread
    assert sum(abs(difference) < 0.7 for difference in differences) == 17


@pytest.mark.parametrize("name", available())
def test_labels_of_the_suites_are_in_the_table(name: str) -> None:
    suite = load_suite(name)
    assert not suite.published or suite.published in protocols()
    models = {end for row in numbers() for end in (row.teacher, row.student)}
    assert {model.published for model in suite.models.values() if model.published} <= models
    if suite.published:
        pairs = [(suite.models[pair.teacher].published, suite.models[pair.student].published) for pair in suite.pairs]
        assert find_published(protocol=suite.published, pairs=[(t, s) for t, s in pairs if t and s])


def test_labels_of_the_methods_are_in_the_table() -> None:
    methods = {row.method for row in numbers()}
    registry = Registry.installed()
    labels = {name: registry.plugins[name].source.published for name in registry.names}
    for name, published in labels.items():
        assert published == registry.plugins[name].method.published
        assert not published or methods & set(published), name
    assert labels["kd"][0] == "KD" and labels["assistant"] == ("FBT", "TAS")


def test_names_in_whatever_case() -> None:
    assert published_name("teacher", "swin-t", ["Swin-T", "ViT-S"]) == "Swin-T"
    with pytest.raises(KdbenchError, match="unknown teacher 'Swint'; did you mean Swin-T"):
        published_name("teacher", "Swint", ["Swin-T", "ViT-S"])


def test_the_wheel_brings_the_table_along(tmp_path: Path) -> None:
    (wheel,) = WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    code = "from kdbench.analysis.published import *; print(baselines_folder(), len(numbers()), len(protocols()))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path / "site", capture_output=True, text=True, check=True
    )
    folder, rows, kinds = done.stdout.split()
    assert Path(folder) == tmp_path / "site" / "kdbench" / "baselines"
    assert (int(rows), int(kinds)) == (len(numbers()), len(protocols()))
    assert baselines_folder() == ROOT / "baselines"
