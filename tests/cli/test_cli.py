"""The command line as a user meets it: exit codes and output."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.command import arguments_of, kdbench, kdbench_without


@pytest.mark.parametrize(
    "arguments",
    [
        "--help",
        "--version",
        "list methods",
        "list pairs",
        "list suites",
        "run --help",
        "list methods --json",
        "check --help",
    ],
)
def test_help_and_lists_load_no_torch(arguments: str) -> None:
    done = kdbench_without("torch timm pandas matplotlib", *arguments.split())
    assert done.returncode == 0, done.stderr
    assert done.stdout


@pytest.mark.runs
@pytest.mark.parametrize("columns", [80, 140])
def test_help_fits_the_terminal(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    for words in arguments_of():
        done = kdbench(*words, "-h")
        assert done.returncode == 0 and max(map(len, done.stdout.splitlines())) <= columns, words


def test_options_stand_in_groups() -> None:
    shown = kdbench("run", "--help").stdout
    titles = [line for line in shown.splitlines() if line and not line.startswith((" ", "Usage", "Train"))]
    assert titles == ["What to run", "How to compute", "Where", "How long", "Output"]


def test_plain_kdbench_shows_help() -> None:
    done = kdbench()
    assert (done.returncode, done.stdout) == (0, kdbench("--help").stdout) and "Train and measure" in done.stdout


def test_the_last_of_two_values_counts() -> None:
    assert kdbench("list", "pairs", "--suite", "none", "--suite", "proxy").returncode == 0


def test_list_json() -> None:
    rows = json.loads(kdbench("list", "methods", "--json").stdout)
    assert [row["method"] for row in rows][:2] == ["scratch", "kd"]
    pairs = json.loads(kdbench("list", "pairs", "--json").stdout)
    assert {"pair", "kind", "teacher", "student"} == set(pairs[0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("rnu", "did you mean run"),
        ("run --methods kdd", "unknown method 'kdd'; did you mean kd"),
        ("run --pairs vit:resnet", "unknown model of suite proxy or of timm 'resnet'; did you mean"),
        ("run --pairs vit-t", "unknown pair of suite proxy 'vit-t'; did you mean vit-t:"),
        ("run --pairs vit-t:resnet18[layers=]", "overrides of 'resnet18[layers=]' are not TOML"),
        ("run --pairs vit-t:resnet18]", "'resnet18]' is not of the form NAME or NAME[key=value,...]"),
        ("run --pairs vit-t:resnet18[depth=3]", "cannot build resnet18 with {'depth': 3}: "),
        ("run --pairs vit-t:./mine.py:build", "model ./mine.py:build cannot be imported: FileNotFoundError"),
        ("run --pairs all --teacher-checkpoint none.pth", "the pairs have 4 (mixer-t, resnet-t, swin-t, vit-t)"),
        ("run --pairs vit-t:resnet-s --teacher-checkpoint none.pth", "cannot read weights none.pth"),
        ("list methods --stages resnet18", "--stages and --size are about models"),
        (
            "list models --stages resnet18x",
            "unknown model of suite proxy or of timm 'resnet18x'; did you mean resnet18",
        ),
        ("run --suite proxxy", "unknown suite 'proxxy'; did you mean proxy"),
        ("run --sseds 3", "unknown option of kdbench run '--sseds'; did you mean --seeds"),
        ("run --seed 3", "unknown option of kdbench run '--seed'; did you mean --seeds"),
        ("run --no-json", "unknown option of kdbench run '--no-json'; did you mean --json"),
        ("run --seeds", "--seeds needs a value"),
        ("run --workers 0", "--workers: 0 is not from 1 to 1024"),
        ("run --workers 1.5", "--workers: '1.5' is no whole number"),
        ("run --json=maybe", "--json"),
        ("run extra", "kdbench run does not take 'extra'"),
        ("--json list methods", "unknown command of kdbench '--json'"),
        ("check --run --minutes soon", "--minutes: 'soon' is no number"),
        ("check --run --minutes 0", "--minutes: 0 is not from 0.01 to"),
        ("report", "DIR is missing"),
        ("export x --out y", "--to is missing"),
        ("baseline", "kdbench baseline needs a command: update, show"),
        ("list method", "unknown value of WHAT 'method'; did you mean methods"),
        ("run --seeds none", "neither a number of seeds nor a list"),
        ("run --seeds 1_0", "neither a number of seeds nor a list"),
        ("run --seeds 0,0", "--seeds '0,0' names seed 0 twice"),
        ("run --workers 1_0", "--workers: '1_0' is no whole number"),
        ("run --limit 1_0_0", "--limit '1_0_0' is not TRAIN or TRAIN,TEST images"),
        ("run --set kd.temperature=1 --set kd.temperature=2 --methods kd", "--set kd.temperature is given twice"),
        ("verify ./a.py ./b.py", "does not take './b.py'; several names are one word, with commas between"),
        ("run --device tpu", "unknown value of --device 'tpu'; did you mean cpu"),
        ("run --set kd.temp=1 --methods kd", "unknown hyperparameter of kd 'temp'; did you mean temperature"),
        ("run --set ofa.gamma=2 --methods kd", "not among --methods"),
        ("run --set gamma", "not of the form method.name=value"),
        ("run --methods ./missing.py", "cannot read missing.py"),
        ("run --device cuda", "no CUDA device"),
        ("run --precision bf16 --device cpu", "no bf16 units"),
        ("report no-such-folder", "no results in no-such-folder"),
        ("verify nothing", "unknown method 'nothing'"),
        ("teachers train", "no train-images-idx3-ubyte"),
        ("teachers train --data no-such-folder", "no train-images-idx3-ubyte"),
        ("teachers list --only vit", "unknown model of suite proxy or of timm 'vit'"),
        ("new-method 1st", "is no class name"),
    ],
)
def test_mistakes_are_one_line_and_exit_3(arguments: str, message: str, tmp_path: Path) -> None:
    import torch

    if "cuda" in arguments and torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    if "bf16" in arguments and any(torch.cpu.get_capabilities().get(n) for n in ("avx512_bf16", "amx_bf16")):
        pytest.skip("this processor has bf16 units")
    done = kdbench(*arguments.split(), cwd=tmp_path)
    assert done.returncode == 3, done.stdout + done.stderr
    assert message in done.stderr
    assert done.stderr.count("\n") == 1 and done.stderr.startswith("kdbench: ")
    assert "Traceback" not in done.stdout + done.stderr


def test_an_unwritable_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = kdbench("run", "--out", str(tmp_path / "file" / "results"))
    assert done.returncode == 3
    assert "cannot write" in done.stderr and "--out" in done.stderr


@pytest.mark.runs
def test_a_full_disk(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    code = (
        "import errno, os, sys\nimport kdbench.files as files\nfrom kdbench.cli.main import main\n"
        # The kernel's own error for a full disk, from the device that always is one.
        "def full(*_):\n"
        "    with open('/dev/full', 'wb', buffering=0) as file:\n        file.write(b'x')\n"
        "files.os.fsync = full\n"
        f"main(['run', '--out', {str(tmp_path / 'r')!r}])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 3
    assert "No space left on device" in done.stderr
    assert not list((tmp_path / "r").rglob("*.part")), "no torn file is left"


def test_new_method_makes_a_file_that_verifies(tmp_path: Path) -> None:
    assert kdbench("new-method", "MyIdea", cwd=tmp_path).returncode == 0
    done = kdbench("verify", "./myidea.py", "--pairs", "vit-t:resnet-s,vit-t:vit-s", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("passed myidea on") == 2
    again = kdbench("new-method", "MyIdea", cwd=tmp_path)
    assert again.returncode == 3 and "myidea.py exists" in again.stderr


def test_verify_tells_what_is_wrong(tmp_path: Path) -> None:
    kdbench("new-method", "Bad", cwd=tmp_path)
    path = tmp_path / "bad.py"
    path.write_text(path.read_text().replace("teacher.pooled),", 'teacher.pooled) * float("inf"),'))
    done = kdbench("verify", "./bad.py", "--pairs", "vit-t:resnet-s", "--json", cwd=tmp_path)
    assert done.returncode == 2
    (verdict,) = json.loads(done.stdout)
    assert verdict["status"] == "failed"
    assert verdict["checks"][0]["detail"] == "term 'feature' is inf"
