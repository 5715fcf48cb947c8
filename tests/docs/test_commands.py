"""Every command of README, CONTRIBUTING and docs runs, page by page in their order, on a proxy that is cut short.

What `commands.PARSED` names is parsed instead, and its methods, pairs and settings are looked up.
"""

import importlib.util
import re
import shlex
import shutil
import subprocess
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from torch.distributed.run import get_args_parser

from kdbench.api.selection import look_up
from kdbench.cli.main import HELP_FLAGS, make_app
from kdbench.errors import EXIT_INCOMPLETE, EXIT_OK
from tests.docs.commands import PAGES, PARSED, ROOT, Command, Written, mentions, steps
from tests.support.command import COMMAND, arguments_of, kdbench

pytestmark = pytest.mark.runs

ALL = [step for page in PAGES for step in steps(page) if isinstance(step, Command)]
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
TUTORIAL = "docs/tutorial.md"
PAIR = ("vit-t", "resnet-s")
FEW = "kd,ofa"
SUITED = ("run", "plan", "bench", "tune", "verify", "list")
"""Commands that are shortened; `kdbench teachers` is about the real ones."""


@pytest.fixture(scope="module")
def short(short_suite: Callable[..., Path]) -> Path:
    """The proxy with one pair, one seed, 100 images and little of everything that is timed."""

    def cut(text: str) -> str:
        text = text.partition("[[pairs]]")[0] + '[[pairs]]\nteacher = "{}"\nstudent = "{}"\n'.format(*PAIR)
        for old, new in (
            ("seeds = 3", "seeds = 1"),
            ("[data]\n", "[data]\nlimit = 100\ntest_limit = 100\n"),
            ("curve_limit = 1000", "curve_limit = 100"),
            ("blocks = 3\n", "blocks = 6\n"),
            ("block_seconds = 0.05", "block_seconds = 0.001"),
            ("warmup_steps = 10", "warmup_steps = 2"),
        ):
            assert old in text, f"the proxy has no {old!r}"
            text = text.replace(old, new)
        return text

    return short_suite(text=cut)


@pytest.fixture(scope="module")
def started(short: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder after the tutorial, each command in a process of its own, throughput and report as it stands there."""
    folder = tmp_path_factory.mktemp("started")

    def run(arguments: list[str]) -> subprocess.CompletedProcess[str]:
        arguments += ["--suite", str(short)] if arguments[0] == "run" else []
        return subprocess.run([*COMMAND, *arguments], cwd=folder, capture_output=True, text=True, timeout=300)

    run_page(TUTORIAL, folder, run)
    return folder


def shortened(words: list[str], suite: Path) -> list[str]:
    """The command on the short suite, with few methods, seeds and draws; a run without speed, unless it goes by that.

    Reports are left to the tutorial and to `kdbench report`.
    """
    verb = words[0]
    if "--plan" in words:
        return [*words, "--no-throughput"]
    if "--suite" not in words:
        words = [*words, *(["--suite", str(suite)] if verb in SUITED else [])]
    elif words[words.index("--suite") + 1].endswith(".toml"):
        words = [*words, "--epochs", "1", "--limit", "100,100"]
    if verb == "run":
        words = [*words, "--no-report", *([] if "--equal-time" in words else ["--no-throughput"])]
    if verb == "plan" and "--pairs" in words:
        # Each pair is timed in a process of its own.
        words[words.index("--pairs") + 1] = "resnet-t:mixer-s"
    if verb in ("run", "plan"):
        words += [] if "--methods" in words else ["--methods", FEW]
    for option in ("--seeds", "--trials"):
        if option in words:
            words[words.index(option) + 1] = "1"
    return [re.sub(r"^all(?=,|$)", FEW, word) if words[i - 1] != "--pairs" else word for i, word in enumerate(words)]


def _runs(page: str) -> list[Command]:
    return [one for one in ALL if one.page == page and one.program == "kdbench" and not one.unrun]


def run_page(page: str, folder: Path, run: Callable[[list[str]], subprocess.CompletedProcess[str]]) -> int:
    """Do what a page says, in `folder`; returns how many commands ran."""
    count = 0
    for step in steps(page):
        if isinstance(step, Written):
            (folder / step.name).write_text(step.content)
        elif step.program == "kdbench" and not step.unrun:
            done = run(list(step.words[1:]))
            codes = (EXIT_OK, EXIT_INCOMPLETE) if step.words[1:3] == ("baseline", "show") else (EXIT_OK,)
            assert done.returncode in codes, f"{step.text}\n{done.stdout}{done.stderr}"
            assert done.stdout, step.text
            count += 1
    return count


def test_the_tutorial_ends_with_a_figure(started: Path) -> None:
    words = [step.words for step in ALL if step.page == TUTORIAL]
    assert len([word for word in words if word[0] != "."]) <= 4, "more commands than the page promises"
    report = started / "results" / "proxy" / "report"
    assert "| myidea |" in (report / "report.md").read_text()
    promised = re.findall(r"^\| `([^`]+)` \|", (ROOT / TUTORIAL).read_text(), re.MULTILINE)
    assert "figures/tradeoff.svg" in promised
    for name in promised:
        assert (report / name).exists(), f"{name} is promised and not there"


@pytest.mark.parametrize("page", [page for page in PAGES if page != TUTORIAL and _runs(page)])
def test_commands_run(page: str, short: Path, started: Path, tmp_path: Path) -> None:
    """Results of the tutorial are there, so that pages about reports, seeds and reruns go on from them."""
    shutil.copytree(started / "results", tmp_path / "results", ignore=shutil.ignore_patterns("checkpoints"))
    ran = run_page(page, tmp_path, lambda words: kdbench(*shortened(words, short), cwd=tmp_path))
    assert ran == len(_runs(page))


@pytest.mark.parametrize("command", [one for one in ALL if one.unrun], ids=lambda one: one.text)
def test_what_does_not_run_parses(command: Command) -> None:
    words = list(command.words)
    if command.program == "torchrun":
        launch = get_args_parser().parse_args(words[1:])
        assert (launch.module, launch.training_script) == (True, "kdbench")
        words = ["kdbench", *launch.training_script_args]
    _, bound, _ = make_app().parse_args(words[1:], exit_on_error=False, print_error=False)
    bound.apply_defaults()
    given, suite = bound.arguments, bound.arguments.get("suite")
    if words[1] in ("run", "bench") and ".py:" not in command.text:
        selection = given["grid"].look_up()
        assert selection.plugins and selection.pairs
    elif words[1] == "verify" and ".py:" not in command.text:
        selection = look_up(suite, given["method"], given["pairs"])
        assert selection.plugins and selection.pairs
    elif suite or "grid" in given:
        from kdbench.suites.loading import load_suite

        assert load_suite(suite or given["grid"].suite).pairs


@pytest.mark.parametrize("pattern", PARSED)
def test_no_exception_is_left_over(pattern: str) -> None:
    assert any(re.fullmatch(pattern, command.text) for command in ALL), f"no page has a command like {pattern}"


@pytest.mark.parametrize("command", [one for one in ALL if one.program not in ("kdbench", "torchrun")], ids=str)
def test_other_commands_name_what_there_is(command: Command) -> None:
    """Python's own tools and the repository's: nothing is installed or built here, but what they name exists."""
    words = [word.removeprefix(".venv/bin/") for word in command.words if not re.match(r"[A-Z_]+=", word)]
    match words:
        case [".", ".venv/bin/activate" | "activate"] | ["python3", "-m", "venv", ".venv"] | ["pre-commit", "install"]:
            pass
        case ["python", "docs/tools/estimate.py", *_]:
            pass  # tests/study/test_estimate.py runs it
        case ["python", "-m", module, page]:
            assert importlib.util.find_spec(module) and (ROOT / page).is_file()
        case ["python" | "bash", *files]:
            assert files and all((ROOT / file).is_file() for file in files)
        case ["pip", "install", *arguments]:
            named = re.findall(r"\.\[(\w+)\]", arguments[-1])
            assert set(named) <= set(EXTRAS) and arguments[-2] == "-e"
            assert "-c" not in arguments or (ROOT / arguments[arguments.index("-c") + 1]).is_file()
        case ["ray", "start", *arguments]:
            pytest.importorskip("ray.scripts.scripts").start.make_context("start", arguments)
        case ["sbatch", script]:
            assert any(isinstance(step, Written) and step.name == script for step in steps(command.page))
        case ["mkdocs", "serve"]:
            assert (ROOT / "mkdocs.yml").is_file() and "docs" in EXTRAS
        case ["pytest", *arguments]:
            files = [word for word in arguments if word.startswith("tests")]
            assert files and all((ROOT / file).exists() for file in files)
        case _:
            pytest.fail(f"a command of a kind that no test knows: {shlex.join(words)}")


@pytest.mark.parametrize("page", PAGES)
def test_what_the_text_mentions_exists(page: str) -> None:
    known = {
        " ".join(("kdbench", *words)): {*HELP_FLAGS, *(option for argument in own for option in argument.names)}
        for words, own in arguments_of().items()
    }
    known["kdbench"].add("--version")
    everywhere = set.union(*known.values())
    for mention in mentions(page):
        words = mention.split()
        if words[0] == "kdbench":
            path = max((name for name in known if f"{mention} ".startswith(f"{name} ")), key=len)
            rest = words[len(path.split()) :]
            # A command that has commands of its own is followed by one of them, by alternatives (a|b), or by nothing.
            assert path != "kdbench" or rest[0].startswith("--") or "|" in rest[0], f"{mention}: no such command"
        else:
            path, rest = "", words
        for option in (word for word in rest if word.startswith("--")):
            assert option in (known[path] if path else everywhere), f"{mention}: no option {option}"


def test_pages_are_found() -> None:
    assert {"README.md", "CONTRIBUTING.md", TUTORIAL, "docs/guides/gpu.md"} <= set(PAGES)
    assert len(ALL) > 50
