"""`kdbench published` as a user meets it: in a process of its own, by exit code and output."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from kdbench.results.folder import Results
from tests.support.command import kdbench, kdbench_without


def rows(*arguments: str) -> list[dict[str, object]]:
    done = kdbench("published", *arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.runs
def test_everything() -> None:
    assert len(rows()) == 720
    done = kdbench("published", COLUMNS="80")
    assert "720 published numbers." in done.stdout and "…" not in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_names_of_the_papers_in_any_case() -> None:
    found = rows("--pair", "swin-t:resnet18", "--protocol", "OFA-300ep-224px")
    assert {(row["teacher"], row["student"]) for row in found} == {("Swin-T", "ResNet18")}
    assert {row["protocol"] for row in found} == {"ofa-300ep-224px"}
    best = next(row for row in found if row["method"] == "OFA")
    assert (best["top1"], best["gain"], best["teacher_top1"], best["epoch"]) == (80.54, 6.53, 89.26, "best")
    assert str(best["address"]).startswith("https://")


@pytest.mark.parametrize(
    ("method", "labels"),
    [("ofa", {"OFA"}), ("assistant", {"FBT"}), ("tas", {"FBT"}), ("kd", {"KD", "KD(T=4)"}), ("rsd", {"RSD"})],
)
def test_methods_by_our_names_aliases_and_theirs(method: str, labels: set[str]) -> None:
    assert {row["method"] for row in rows("--method", method)} == labels


def test_the_names_of_a_suite() -> None:
    everything = rows("--suite", "cifar100")
    assert {row["protocol"] for row in everything} == {"ofa-300ep-224px"}
    pair = rows("--suite", "cifar100", "--pair", "convnext-t:resmlp-s12", "--method", "ofa")
    assert {row["top1"] for row in pair} == {75.21, 81.22}
    elsewhere = rows("--suite", "cifar100", "--pair", "swin-t:resnet18", "--protocol", "ofa-imagenet")
    assert {row["dataset"] for row in elsewhere} == {"imagenet1k"}


def test_the_table_tells_epoch_and_conflicts() -> None:
    done = kdbench("published", "--pair", "ConvNeXt-T:ResMLP-S12", "--method", "OFA", COLUMNS="100")
    assert "ofa-300ep-224px (cifar100): heterogeneous pairs at 224 px" in done.stdout
    assert "(1) conflict: PAT and RSD quote 81.22" in done.stdout
    line = next(line for line in done.stdout.splitlines() if line.startswith("ConvNeXt-T  ResMLP-S12  OFA"))
    assert line.split()[3:] == ["75.21", "+8.65", "-", "best", "FBT", "(1)"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--pair swint:resnet18", "unknown published teacher 'swint'; did you mean Swin-T"),
        ("--pair swin-t:resnet81", "unknown published student 'resnet81'; did you mean"),
        ("--pair swin-t", "not of the form teacher:student"),
        ("--method odfa", "unknown published method 'odfa'; did you mean ofa"),
        ("--protocol ofa-imagnet", "unknown protocol 'ofa-imagnet'; did you mean ofa-imagenet"),
        ("--suite proxxy", "unknown suite 'proxxy'; did you mean proxy"),
        ("--suite proxy", "nothing published is like suite proxy"),
    ],
)
def test_mistakes_are_one_line_and_exit_3(arguments: str, message: str) -> None:
    done = kdbench("published", *arguments.split())
    assert done.returncode == 3, done.stdout + done.stderr
    assert message in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.runs
def test_a_run_records_the_names_and_the_report_uses_them(short_suite: Callable[..., Path], tmp_path: Path) -> None:
    def labelled(text: str) -> str:
        text = text.replace("seeds = 3", 'seeds = 3\npublished = "ofa-300ep-224px"', 1)
        for name, label in (("swin-t", "Swin-T"), ("resnet-s", "ResNet18")):
            text = text.replace(f"[models.{name}]", f'[models.{name}]\npublished = "{label}"')
        return text + '\n[[pairs]]\nteacher = "swin-t"\nstudent = "resnet-s"\n'

    arguments = ["--suite", str(short_suite(text=labelled)), "--pairs", "swin-t:resnet-s", "--methods", "kd"]
    done = kdbench("run", *arguments, "--seeds", "1", "--no-throughput", "--out", str(tmp_path), "--best")
    assert done.returncode == 0, done.stdout + done.stderr
    assert Results(tmp_path).manifest().get("published") == {
        "protocol": "ofa-300ep-224px",
        "models": {"swin-t": "Swin-T", "resnet-s": "ResNet18"},
        "methods": {"scratch": ["scratch"], "kd": ["KD", "KD(T=4)"]},
    }
    assert "Published top-1 (ofa-300ep-224px, best epoch) and ours minus it" in done.stdout
    assert "kd (FBT)" in done.stdout and "78.74" in done.stdout


def test_nothing_heavy_is_loaded() -> None:
    words = ["published", "--suite", "cifar100", "--pair", "swin-t:resnet18", "--method", "ofa"]
    done = kdbench_without("torch timm pandas numpy scipy matplotlib", *words)
    assert done.returncode == 0, done.stderr
    assert "80.54" in done.stdout
