"""`kdbench teachers` as a user meets it: by exit code and output."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import timm
import torch

from kdbench.cli.main import main
from kdbench.cli.teachers import _class_map, published_top1
from kdbench.errors import KdbenchError
from kdbench.suites.loading import load_suite
from kdbench.suites.schema import Suite
from tests.conftest import NO_DATA
from tests.support.command import kdbench

Short = Callable[..., Path]
Run = Callable[..., tuple[int, str, str]]
PRETRAINED = "test_resnet.r160_in1k"
"""The smallest model that timm has pretrained weights of."""


def fine_tuning(text: str) -> str:
    """The proxy with a teacher that starts from timm's pretrained weights, trained on what is embedded."""
    text = text.replace('teacher_source = "fashion-mnist"\n', "")
    return re.sub(
        r'(?s)(\[models\.resnet-t\]\n)timm = "resnet18"(.*?)kwargs = \{.*?\}\n',
        rf'\1timm = "{PRETRAINED}"\npretrained = true\2',
        text,
        count=1,
    )


@pytest.fixture
def suite(short_suite: Short) -> Path:
    path = short_suite(text=fine_tuning)
    assert load_suite(str(path)).models["resnet-t"].pretrained
    # Its teacher is another model than the shipped one of that name.
    (path.parent / "teachers").unlink()
    return path


@pytest.fixture
def teachers(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """`kdbench teachers ...` in this process: exit code, output and error output, on a terminal of 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")

    def run(*arguments: str) -> tuple[int, str, str]:
        try:
            code = main(["teachers", *arguments])
        except SystemExit as end:
            code = int(end.code or 0)
        return code, *capsys.readouterr()

    return run


def test_list_fits_a_narrow_terminal_and_says_how_to_get_what_is_missing(
    suite: Path, teachers: Run, tmp_path: Path
) -> None:
    code, output, _ = teachers("list")
    assert code == 0
    for name, top1 in {"vit-t": "86.25", "mixer-t": "88.20", "resnet-t": "90.80", "swin-t": "87.50"}.items():
        assert re.search(rf"{name} .* {top1} ", output)
    assert max(map(len, output.splitlines())) <= 80 and "is not there" not in output
    data = tmp_path / "my data"
    code, output, _ = teachers("list", "--suite", str(suite), "--only", "vit-t", "--data", str(data))
    assert code == 0
    assert "vit-t is not there: train or import it" in output
    assert f"  kdbench teachers train --only vit-t --suite {suite} --data '{data}'\n" in output
    assert f"  kdbench teachers import vit-t FILE --suite {suite} --data '{data}'\n" in output
    rows = json.loads(teachers("list", "--suite", str(suite), "--data", str(data), "--json")[1])
    assert len(rows) == 4 and all(len(row["commands"]) == 2 for row in rows)


def test_published_accuracies_stand_beside(proxy: Suite) -> None:
    assert published_top1(proxy, "vit-t") == []
    suite = load_suite("cifar100")
    assert published_top1(suite, "swin-t") == [89.26]
    assert published_top1(suite, "vit-s")[0] == 92.04 and 92.44 in published_top1(suite, "vit-s"), "papers differ"


@pytest.mark.runs
def test_import_then_verify(proxy: Suite, teachers: Run, tmp_path: Path) -> None:
    shipped, data = str(proxy.teacher_path("mixer-t", NO_DATA)), str(tmp_path)
    code, output, _ = teachers("import", "mixer-t", shipped, "--data", data, "--json")
    assert code == 0
    (row,) = json.loads(output)
    path = tmp_path / "teachers" / "proxy" / "mixer-t.safetensors"
    assert (row["top1"], row["file"], row["published"]) == (88.2, str(path), [])
    code, output, _ = teachers("verify", "--only", "mixer-t", "--data", data)
    assert code == 0 and re.search(r"mixer-t +88\.20 +88\.20 +ok", output)
    path.write_bytes(path.read_bytes()[:-1])
    code, output, _ = teachers("verify", "--only", "mixer-t,resnet-t", "--data", data)
    assert code == 2
    assert re.search(r"mixer-t +- +- +OFF", output) and re.search(r"resnet-t +90\.80 +90\.80 +ok", output)
    assert f"mixer-t: {path} is not a whole safetensors file" in output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("", "kdbench teachers needs a command: list, train, import, verify"),
        ("imprt", "unknown command of kdbench teachers 'imprt'; did you mean import"),
        ("import", "NAME is missing"),
        ("import vit-t,swin-t", "'vit-t,swin-t' is not one teacher"),
        ("import vit", "unknown model of suite proxy or of timm 'vit'; did you mean vit-t"),
        ("import vit-t none.pth", "cannot read weights none.pth: No such file"),
        ("import vit-t {shipped} --normalisation imagenet", "3 channels"),
        ("import vit-t {shipped}", "does not fit the model VisionTransformer"),
        ("import resnet-t --normalisation cifar", "unknown value of --normalisation 'cifar'; known: "),
        ("import resnet-t", "has 1000 classes, suite proxy has 10; to fine-tune these weights run"),
        ("train --from none.pth", "say which with --only NAME"),
        ("train --from none.pth --only vit-t,swin-t", "say which with --only NAME"),
        ("import resnet-t {shipped} --mean 0.5", "--mean and --std belong together"),
        ("import resnet-t {shipped} --mean 0.5 --std 0", "--std '0' is not a number for each channel"),
        ("import resnet-t {shipped} --normalisation timm", "--normalisation timm is for 3 channels"),
        ("import resnet-t {shipped} --weights ema", "holds no moving average of the weights"),
        ("import resnet-t --weights ema", "are about a FILE of weights"),
        ("import resnet-t {shipped} --class-map none.txt", "cannot read --class-map none.txt"),
        ("verify --only vit", "unknown model of suite proxy or of timm 'vit'"),
    ],
)
def test_mistakes_are_one_line_and_exit_3(
    arguments: str, message: str, proxy: Suite, teachers: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = arguments.format(shipped=proxy.teacher_path("resnet-t", NO_DATA)).split()
    code, output, error = teachers(*words)
    assert (code, output) == (3, "")
    assert message in error and error.startswith("kdbench: ") and error.count("\n") == 1, error
    assert list(tmp_path.iterdir()) == []


def test_nothing_stored_is_nothing_to_verify(suite: Path, teachers: Run, tmp_path: Path) -> None:
    code, _, error = teachers("verify", "--suite", str(suite), "--data", str(tmp_path))
    assert code == 3 and "no teacher of suite proxy is stored" in error


@pytest.mark.runs
def test_without_a_network_the_ways_out_are_named(suite: Path, tmp_path: Path) -> None:
    done = kdbench(
        *("teachers", "train", "--suite", str(suite), "--only", "resnet-t", "--data", str(tmp_path)),
        HF_HUB_OFFLINE="1",
        HF_HOME=str(tmp_path / "cache"),
    )
    assert done.returncode == 3, done.stdout + done.stderr
    assert f"cannot get timm's pretrained weights timm/{PRETRAINED}" in done.stderr
    assert "--from FILE" in done.stderr and "HF_HOME" in done.stderr and done.stderr.count("\n") == 1
    assert not (tmp_path / "teachers").exists()


@pytest.mark.runs
def test_fine_tuning_from_the_cache_and_from_a_file(suite: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    state = timm.create_model(PRETRAINED).state_dict()
    # The layout of a Hugging Face cache: HF_HOME/hub/models--OWNER--NAME, a reference and a snapshot.
    repository = tmp_path / "cache" / "hub" / f"models--timm--{PRETRAINED}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    file = repository / "snapshots" / ("0" * 40) / "model.safetensors"
    file.parent.mkdir(parents=True)
    safetensors.torch.save_file(state, file)
    words = ("teachers", "train", "--suite", str(suite), "--only", "resnet-t", "--data", str(tmp_path), "--json")
    done = kdbench(*words, HF_HUB_OFFLINE="1", HF_HOME=str(tmp_path / "cache"))
    assert done.returncode == 0, done.stdout + done.stderr
    (row,) = json.loads(done.stdout)
    assert row["started_from"] == {"timm": f"timm/{PRETRAINED}"} and row["top1"] > 30
    # A file for three channels does not fit images of one, and what was stored stays.
    before = Path(row["file"]).read_bytes()
    done = kdbench(*words, "--from", str(file))
    assert done.returncode == 3 and "conv1.0.weight is (16, 3, 3, 3), not (16, 1, 3, 3)" in done.stderr, done.stderr
    assert Path(row["file"]).read_bytes() == before
    # Its own weights fit, and going on from them is a head start.
    done = kdbench(*words, "--from", row["file"])
    assert done.returncode == 0, done.stdout + done.stderr
    (later,) = json.loads(done.stdout)
    assert later["started_from"]["file"] == "resnet-t.safetensors" and later["top1"] > row["top1"]


def test_class_maps(tmp_path: Path) -> None:
    file = tmp_path / "map.txt"
    file.write_text("hen\nFox\n\n")
    assert _class_map(file) == ("hen", "Fox")
    file = tmp_path / "map.json"
    for content, names in (({"Fox": 1, "hen": 0}, ("hen", "Fox")), (["hen", "Fox"], ("hen", "Fox"))):
        file.write_text(json.dumps(content))
        assert _class_map(file) == names
    for wrong in ({"Fox": 1, "hen": 2}, {"Fox": "x"}, [1, 2], 3):
        file.write_text(json.dumps(wrong))
        with pytest.raises(KdbenchError, match="is neither a list of names nor a mapping"):
            _class_map(file)


def test_list_shows_teachers_that_the_suite_does_not_name(
    proxy: Suite, teachers: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    # The network of the suite's ResNet, asked for by its timm name.
    word = "resnet18[layers=[1,1,1,1],channels=[32,48,80,96]]"
    code, output, error = teachers("import", word, str(proxy.teacher_path("resnet-t", NO_DATA)))
    assert code == 0, error
    assert "measuring resnet-t.safetensors on 2,000 images" in output
    rows = {row["teacher"]: row for row in json.loads(teachers("list", "--json")[1])}
    assert rows[word]["top1"] == 90.8 and len(rows) == 5
    assert "90.80" in teachers("list")[1]
