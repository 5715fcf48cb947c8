"""Completion as it is met in a shell: a real one on a terminal, which is typed into."""

import os
import pty
import select
import shlex
import shutil
import signal
import time
from pathlib import Path

import pytest

from tests.support.command import COMMAND, kdbench, kdbench_without

SHELLS = {
    "bash": (["bash", "--norc", "--noprofile", "-i"], 'eval "$(kdbench completion bash)"'),
    "zsh": (["zsh", "-f", "-i"], 'autoload -Uz compinit; compinit -u -D; eval "$(kdbench completion zsh)"'),
    "fish": (["fish", "--no-config", "-i"], "kdbench completion fish | source"),
}
COMPLETED = {
    "ru": "run",
    "teachers im": "teachers import",
    "run --no-th": "run --no-throughput",
    "run --device=cu": "run --device=cuda",
    "run --suite cifar100-cr": "run --suite cifar100-crd",
    "run --methods kd,srr": "run --methods kd,srrl",
    "run --pairs vit-t:resnet-s,mixer-t:sw": "run --pairs vit-t:resnet-s,mixer-t:swin-s",
    "run --suite cifar100 --pairs convnext-t:resm": "run --suite cifar100 --pairs convnext-t:resmlp-s12",
    "teachers import mix": "teachers import mixer-t",
    "report recor": "report records",
}
"""What is typed after `kdbench`, and what a tab makes of it."""
SECONDS = 60.0


class Shell:
    """An interactive shell on a terminal of its own, in which `kdbench` is a command with completion."""

    def __init__(self, name: str, folder: Path) -> None:
        words, setup = SHELLS[name]
        program = folder / "bin" / "kdbench"
        program.parent.mkdir()
        program.write_text(f'#!/bin/sh\nexec {shlex.join(COMMAND)} "$@"\n')
        program.chmod(0o755)
        environment = {**os.environ, "PATH": f"{program.parent}:{os.environ['PATH']}", "HOME": str(folder)}
        self._written = folder / "written"
        self._process, self._end = pty.fork()
        if self._process == 0:
            os.chdir(folder)
            os.execvpe(words[0], words, environment | {"TERM": "dumb"})
        self.type(f"{setup}\n")
        self.completed("")

    def type(self, keys: str) -> None:
        os.write(self._end, keys.encode())

    def completed(self, typed: str) -> str:
        """The command line after `typed` and a tab: it is made the words that `echo` writes to a file, and run."""
        self._written.unlink(missing_ok=True)
        self.type(f"kdbench {typed}\t\x01echo > {self._written.name} \n")
        shown, deadline = b"", time.monotonic() + SECONDS
        while not (self._written.is_file() and self._written.read_text().endswith("\n")):
            assert time.monotonic() < deadline, shown.decode(errors="replace")
            if select.select([self._end], [], [], 0.05)[0]:
                shown += os.read(self._end, 65536)
        return self._written.read_text().strip().removesuffix("/")

    def close(self) -> None:
        os.kill(self._process, signal.SIGKILL)
        os.waitpid(self._process, 0)
        os.close(self._end)


@pytest.mark.runs
@pytest.mark.parametrize("name", SHELLS)
def test_a_tab_completes(name: str, tmp_path: Path) -> None:
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not installed")
    (tmp_path / "records").mkdir()
    shell = Shell(name, tmp_path)
    try:
        assert {typed: shell.completed(typed) for typed in COMPLETED} == {
            typed: f"kdbench {line}" for typed, line in COMPLETED.items()
        }
    finally:
        shell.close()


def offered(line: str) -> list[str]:
    """What fish is offered at the end of a command line."""
    done = kdbench("completion", "fish", f"--line=kdbench {line}")
    assert (done.returncode, bool(done.stderr)) in [(0, False), (3, True)]
    return [text.partition("\t")[0] for text in done.stdout.splitlines()]


@pytest.mark.runs
def test_what_is_offered() -> None:
    assert {"run", "list", "new-method"} <= set(offered(""))
    assert offered("teachers ") == ["list", "train", "import", "verify"]
    assert {"--suite", "--json", "--help"} <= set(offered("run ")), "where no argument stands, options"
    assert {"all", "kd", "ofa"} <= set(offered("run --methods "))
    assert "kd,ofa" in offered("run --methods kd,") and "kd,kd" not in offered("run --methods kd,")
    assert {"proxy", "cifar100", "cifar100@yaml"} <= set(offered("run --suite "))
    assert {"hetero", "vit-t:resnet-s"} <= set(offered("run --pairs "))
    assert "swin-t:resnet18" in offered("run --suite cifar100 --pairs ")
    assert offered("run --pairs 'swin-t:resnet-s,vit-t:v") == ["swin-t:resnet-s,vit-t:vit-s"]
    assert offered("list models --stages mixer-t") == ["mixer-t"]
    assert offered("list ") == ["methods", "pairs", "suites", "models"]


@pytest.mark.parametrize(
    "line", ["report ", "run --suite none --pairs ", "run --seeds ", "nonsense --x", "run --out x/"]
)
def test_nothing_is_offered_where_a_file_may_stand_or_something_is_wrong(line: str) -> None:
    assert offered(line) == []


@pytest.mark.runs
def test_completion_loads_no_torch() -> None:
    for line in ("run --suite cifar100 --pairs ", "run --methods ", "run --", ""):
        done = kdbench_without("torch timm pandas matplotlib", "completion", "bash", f"--line=kdbench {line}")
        assert done.returncode == 0 and done.stdout, done.stderr
