"""`kdbench check --run` and `kdbench baseline` as a user meets them: real trainings of an epoch."""

import json
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest

from kdbench.files import read_json, write_json
from kdbench.results.folder import Results
from tests.support.command import kdbench

pytestmark = pytest.mark.runs

Short = Callable[..., Path]
PAIR = "resnet-t:resnet-s"
VICTIM = '''
from torch import Tensor
from torch.nn import functional as F
from kdbench.method import Batch, Method, Outputs

class Victim(Method):
    """A method to plant bugs in."""

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> dict[str, Tensor]:
        soft = F.kl_div(student.logits.log_softmax(1), teacher.logits.softmax(1), reduction="batchmean")
        return {"ce": batch.cross_entropy(student.logits), "soft": 1.0 * soft}
'''


@pytest.fixture(scope="module")
def made(short_suite: Short, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """Suite, method file and baseline of five seeds."""
    folder = tmp_path_factory.mktemp("gate")
    victim, suite, baseline = folder / "victim.py", short_suite(), folder / "short.json"
    victim.write_text(VICTIM)
    done = kdbench(
        *("run", "--suite", suite, "--pairs", PAIR, "--methods", f"scratch,{victim}", "--seeds", "5"),
        *("--out", folder / "results", "--no-report", "--workers", "1"),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    refused = kdbench("baseline", "update", folder / "results", "--out", baseline)
    assert refused.returncode == 3 and "5 seeds are too few" in refused.stderr
    done = kdbench("baseline", "update", folder / "results", "--out", baseline, "--provisional", "--accept-spread")
    assert done.returncode == 0 and str(baseline.name) in done.stdout, done.stderr
    return suite, victim, baseline


def check(made: tuple[Path, Path, Path], folder: Path, *arguments: object, methods: str = "all"):
    suite, victim, baseline = made
    words = f"{methods},{victim}" if victim.is_file() else methods
    return kdbench(
        *("check", "--run", folder, "--suite", suite, "--baseline", baseline, "--methods", words, "--workers", "1"),
        *arguments,
    )


def trained(folder: Path) -> set[tuple[str, int]]:
    return {(cell["method"], cell["seed"]) for cell in Results(folder).cells()}


def test_some_of_the_methods(made: tuple[Path, Path, Path], tmp_path: Path) -> None:
    """Without the baseline method, which throughput is else measured beside, too."""
    done = check(made, tmp_path, methods="scratch")
    assert done.returncode == 0, done.stdout + done.stderr
    assert {one["method"]: one["status"] for one in Results(tmp_path).throughput()} == {
        "scratch": "done",
        "victim": "done",
    }


def test_nothing_changed(made: tuple[Path, Path, Path], tmp_path: Path) -> None:
    folder = tmp_path / "results"
    done = check(made, folder, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    cells = json.loads(done.stdout)["cells"]
    assert [(cell["method"], cell["outcome"]) for cell in cells if cell["outcome"] != "NEW_METHOD"] == [
        ("scratch", "IDENTICAL"),
        ("kd", "IDENTICAL"),
        ("victim", "IDENTICAL"),
    ]
    assert all(cell["new_ratio"]["value"] > 0 for cell in cells if cell["method"] in ("kd", "victim"))
    assert trained(folder) == {("scratch", 0), ("kd", 0), ("victim", 0)}, "one seed is enough"
    # Reading alone says the same of what is there.
    again = kdbench("check", folder, "--baseline", made[2])
    assert again.returncode == 0 and "3 IDENTICAL" in again.stdout, again.stdout + again.stderr
    assert "fails where nothing changed" not in " ".join(again.stdout.split()), "what is identical is not tested"


def test_a_lost_term_is_found_and_blamed_on_the_method(made: tuple[Path, Path, Path], tmp_path: Path) -> None:
    suite, _, baseline = made
    broken = tmp_path / "victim.py"
    broken.write_text(VICTIM.replace("1.0 * soft", "0.0 * soft"))
    folder, junit, comment = tmp_path / "results", tmp_path / "junit.xml", tmp_path / "comment.md"
    files = ("--no-throughput", "--github", "--junit", junit, "--markdown", comment)
    done = check((suite, broken, baseline), folder, *files)
    assert done.returncode == 1, done.stdout + done.stderr
    assert trained(folder) == {
        *(("kd", seed) for seed in (0,)),
        *((method, seed) for method in ("scratch", "victim") for seed in (0, 5, 6, 7, 8, 9, 10)),
    }, "what is identical is not trained again, but for the control"
    assert f"::error title=kdbench WORSE::victim on {PAIR}: the loss term soft moved" in done.stdout
    text = " ".join(done.stdout.split())
    assert f"WORSE (method) victim on {PAIR}" in text and "2 IDENTICAL" in text
    assert len(ElementTree.parse(junit).findall(".//failure")) == 1
    assert comment.read_text().startswith("### kdbench check: failed")
    repeated = check((suite, broken, baseline), folder, *files)
    assert repeated.returncode == 1
    assert " ".join(repeated.stdout.split()).count(" 0 to run") == 3


def test_a_method_that_is_gone(made: tuple[Path, Path, Path], tmp_path: Path) -> None:
    done = check((made[0], tmp_path / "gone.py", made[2]), tmp_path / "results", "--json", "--no-throughput")
    cells = {cell["method"]: cell["outcome"] for cell in json.loads(done.stdout)["cells"]}
    assert cells["victim"] == "MISSING_CELL" and cells["ofa"] == "NEW_METHOD"
    assert done.returncode == 2


def test_another_machine_is_told_and_goes_to_fresh_seeds(made: tuple[Path, Path, Path], tmp_path: Path) -> None:
    content = read_json(made[2])
    for environment in content["environments"].values():
        environment["torch"] = "1.0"
    elsewhere = tmp_path / "baseline.json"
    write_json(elsewhere, content)
    arguments = ("--no-throughput", "--pairs", PAIR, "--first-seed", "30")
    done = check((made[0], tmp_path / "none", elsewhere), tmp_path / "r", *arguments, methods="kd")
    assert "level 0 is left out, this is not the machine of the baseline: torch" in " ".join(done.stdout.split())
    assert done.returncode == 0, done.stdout + done.stderr
    assert {("kd", seed) for seed in (30, 31, 32)} <= trained(tmp_path / "r")
    taken = check((made[0], tmp_path / "none", elsewhere), tmp_path / "r", "--first-seed", "4", methods="kd")
    assert taken.returncode == 3 and "partly the baseline's" in taken.stderr


def timed(baseline: Path, path: Path, seconds: dict[str, float]) -> dict:
    """Another baseline, whose cells take as long as that."""
    content = read_json(baseline)
    for cell in content["cells"]:
        cell["seconds"] = seconds[cell["method"]]
    write_json(path, content)
    return content


def test_a_subset_by_time(made: tuple[Path, Path, Path], tmp_path: Path) -> None:
    known = tmp_path / "baseline.json"
    timed(made[2], known, {"scratch": 1.0, "kd": 5.0, "victim": 50.0})
    # To judge kd takes 30 s to start two passes, and 6 seeds of 6 s.
    done = check((made[0], made[1], known), tmp_path / "results", "--minutes", "2.3", "--no-throughput")
    assert "2 of 3 cells can be compared in half of 2.3 minutes" in done.stdout, done.stdout + done.stderr
    assert trained(tmp_path / "results") == {("scratch", 0), ("kd", 0)}
    assert "Smallest drop of top-1 found with 80 % probability" in " ".join(done.stdout.split())
    few = check(made, tmp_path / "results", "--minutes", "0.1")
    assert few.returncode == 3 and "0.1 minutes are too few" in few.stderr


def test_more_differs_than_there_is_time_to_judge(made: tuple[Path, Path, Path], tmp_path: Path) -> None:
    known, folder = tmp_path / "baseline.json", tmp_path / "results"
    content = timed(made[2], known, {"scratch": 0.1, "kd": 10.0, "victim": 10.0})
    for cell in content["cells"]:
        if cell["method"] != "scratch":
            cell["top1"][0] += 0.1
    write_json(known, content)
    # 91 s to judge either, 151 s for both; comparing took 35 s of 182.
    done = check((made[0], made[1], known), folder, "--minutes", "3.03", "--no-throughput")
    text = " ".join(done.stdout.split())
    assert "3 of 3 cells can be compared" in text, done.stdout + done.stderr
    assert f"2 cells differ, and there is time to judge 1; not judged: victim on {PAIR}" in text
    assert {("kd", 5), ("scratch", 7)} <= trained(folder) and ("victim", 5) not in trained(folder)
    assert done.returncode == 0 and "1 IDENTICAL, 1 PASS" in text, done.stdout
    assert "Probability that any of 1 cell fails where nothing changed" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("check", "name a results folder to check, or train one with --run"),
        ("check --minutes 8 no-such-folder", "no results in no-such-folder"),
        ("check no-such-folder", "no results in no-such-folder"),
        ("check --run --baseline no.json", "MISSING_BASELINE: no no.json"),
        ("baseline show no.json", "MISSING_BASELINE: no no.json"),
        ("baseline update no-such-folder", "no results in no-such-folder"),
    ],
)
def test_mistakes_are_one_line_and_exit_3(arguments: str, message: str, tmp_path: Path) -> None:
    done = kdbench(*arguments.split(), cwd=tmp_path)
    assert done.returncode == 3 and message in done.stderr, done.stdout + done.stderr
    assert done.stderr.count("\n") == 1


def test_mistyped_names_and_other_suites(made: tuple[Path, Path, Path], tmp_path: Path) -> None:
    done = kdbench("check", "--run", tmp_path / "r", "--baseline", made[2], "--methods", "victm")
    assert done.returncode == 3 and "did you mean victim" in done.stderr
    content = read_json(made[2])
    write_json(tmp_path / "other.json", content | {"protocol": "proxy/0"})
    done = kdbench("check", "--run", tmp_path / "r", "--suite", made[0], "--baseline", tmp_path / "other.json")
    assert done.returncode == 3 and "STALE_PROTOCOL" in done.stderr
    shown = kdbench("baseline", "show", made[2])
    assert shown.returncode == 2 and "provisional" in shown.stdout
