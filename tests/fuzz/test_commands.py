"""Command lines of real options with odd values, for every command: an answer or one line, never a training.

Commands that train get a suite whose data is not there, so that they end with their plan; `data download` only meets
names that it does not know.
"""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdbench.suites.loading import available
from tests.support.command import arguments_of, kdbench
from tests.support.harness import TEXTS, answer, drawn

TRAINING = {("run",), ("bench",), ("tune",), ("teachers", "train"), ("teachers", "import"), ("check",)}
WORDS = [
    *(
        "kd",
        "all",
        "proxy",
        "hetero",
        "homo",
        "vit-t:resnet-s",
        "resnet-t",
        "3",
        "0",
        "-1",
        "0,1",
        "1.5",
        "99999999999",
    ),
    *(
        "kd.temperature=2",
        "kd.temperature=x",
        "kd.x=1",
        "a=b",
        "kd.temperature=[[",
        "test",
        "val",
        "md",
        "csv,json",
        "mdd",
    ),
    *("./evil.py", "evil.py:Evil", "evil.py:build:resnet-s", "json.decoder:JSONDecoder", "os:system", "__main__:x"),
    *("vit-t:resnet18[layers=[1,1,1,1]]", "resnet18[", "resnet-t:resnet18[checkpoint_path='x']", "torch:nn:resnet-s"),
    *(
        "suite.toml",
        "suite.toml@x",
        "proxy@x",
        "@",
        "evil.py",
        "folder",
        "manifest.json",
        "none",
        "cifar100",
        "reader:x",
    ),
    *("folder:..", "reader:wds/..", "fashion-mnist", "OFA", "Swin-T:ResNet18", "MyIdea", "class", "1x", ":", "a:b:c:d"),
    *("9" * 400, "nan", "inf", "1e400", "2,,3", ",", "--help", "-x", "\udc80"),
]
SLOW = ("verify",)
"""What checks methods for seconds where all that is asked for is there."""


COMMANDS = {words: own for words, own in arguments_of().items() if own}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a suite without data, a file of methods that leaves a mark when run, and odd things."""
    place = tmp_path_factory.mktemp("commands") / "deep" / "deeper"
    place.mkdir(parents=True)
    text = available()["proxy"].read_text().replace('source = "fashion-mnist-5k2k"', 'source = "folder:not-there"')
    (place / "suite.toml").write_text(text)
    (place / "evil.py").write_text("from pathlib import Path\nPath('mark').touch()\n")
    (place / "folder").mkdir()
    (place / "manifest.json").write_text("{}")
    return place


@st.composite
def command_lines(draw: st.DrawFn) -> list[str]:
    name = draw(st.sampled_from(sorted(COMMANDS)))
    words, values = list(name), st.one_of(st.sampled_from(WORDS), st.sampled_from(WORDS), _texts())
    for argument in COMMANDS[name]:
        if not draw(st.booleans()):
            continue
        if argument.name.startswith("-"):
            words.append(draw(st.sampled_from(argument.names)))
        if not argument.is_flag():
            known = list(argument.get_choices() or ())
            words += draw(
                st.lists(st.sampled_from(known) if known and draw(st.booleans()) else values, min_size=1, max_size=2)
            )
    if name in TRAINING:
        words += ["--suite", "suite.toml"]
    if name in {("verify",), ("data", "download")}:
        words += ["--set", "nothing.x=1"] if name == ("verify",) else ["nothing"]
    return words


def _texts() -> st.SearchStrategy[str]:
    # What the system hands on has no NUL, and its paths are no longer than they may be.
    return st.sampled_from([text for text in TEXTS if "\0" not in text and not text.startswith("/")]) | st.text(
        st.characters(exclude_characters="\0/", exclude_categories=["Cs"]), max_size=8
    )


@pytest.mark.runs
@drawn(80)
@given(words=command_lines())
def test_command_lines(place: Path, words: list[str]) -> None:
    answer(*words, cwd=place)
    assert not list(place.parents[1].rglob("*.safetensors")), "nothing was trained"


@pytest.mark.parametrize("name", sorted(COMMANDS), ids=" ".join)
def test_every_command_has_help(name: tuple[str, ...]) -> None:
    done = kdbench(*name, "--help")
    assert done.returncode == 0 and done.stdout.startswith("Usage: kdbench")


def test_an_error_nobody_foresaw(place: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("kdbench.suites.loading.load_suite", lambda name: {}[name])
    done = kdbench("list", "pairs", cwd=place)
    assert done.returncode == 2 and done.stderr.startswith(
        "kdbench: unforeseen KeyError: 'proxy'; please report it with "
    )
    (log,) = tmp_path.glob("kdbench-*.log")
    assert str(log) in done.stderr and done.stderr.count("\n") == 1 and "Traceback" in log.read_text()
