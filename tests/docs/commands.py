"""The commands of README, CONTRIBUTING and docs: which run in the tests, and which are only parsed, and why.

`python -m tests.docs.commands` lists them.
"""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

ROOT = Path(__file__).parents[2]
GENERATED = "docs/cli.md"
PAGES = sorted(
    page
    for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"))
    if (page := path.relative_to(ROOT).as_posix()) != GENERATED
)

_BLOCK = re.compile(r"^( *)```(\w+)(?: title=\"([^\"]+)\")?\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"(?<!`)`([^`]+)`(?!`)")
SHELLS = ("sh", "bash", "console")

DATA = "wants data that is not in the repository"
HOURS = "trains for hours"
PARSED = {
    r"kdbench data (download|import|check) .*": DATA,
    r"kdbench (run|bench|verify|teachers) .*--suite (cifar100|cifar100-(32|crd)|imagenet1k|folder)\b.*": DATA,
    r"kdbench .*best\.pt": "wants a checkpoint of the reader's own",
    r"kdbench run --pairs swin_tiny_patch4_window7_224.*": "wants a teacher that is not in the repository",
    r"kdbench export .*": "wants the students of a run, which are not in the repository",
    r"kdbench track .* --to wandb .*": "would upload where somebody is logged in",
    r"kdbench compare results/before .*": "wants the results of two runs",
    r"kdbench (check|baseline update) .*": HOURS,
    r"kdbench run .*--out results/baseline .*": HOURS,
    r"torchrun .*": "wants several GPUs",
}
"""Commands of kdbench, as patterns of the whole line, that are parsed and not run, with the reason."""


@dataclass(frozen=True)
class Command:
    """One command of a page, without its comment."""

    page: str
    words: tuple[str, ...]
    text: str

    @property
    def program(self) -> str:
        return self.words[0].removeprefix(".venv/bin/")

    @property
    def unrun(self) -> str | None:
        """Why it is only parsed; None where it runs."""
        return next((reason for pattern, reason in PARSED.items() if re.fullmatch(pattern, self.text)), None)


@dataclass(frozen=True)
class Written:
    """A file that a page tells the reader to write."""

    name: str
    content: str


def steps(page: str) -> Iterator[Command | Written]:
    """What a reader of a page does, in order."""
    for _, language, title, content in _BLOCK.findall((ROOT / page).read_text(encoding="utf-8")):
        if title:
            yield Written(title, content)
        elif language in SHELLS:
            for line in content.replace("\\\n", " ").splitlines():
                yield from _commands(page, line.removeprefix("$ "))


def mentions(page: str) -> Iterator[str]:
    """Commands and options of kdbench that stand in the running text."""
    text = _BLOCK.sub("", (ROOT / page).read_text(encoding="utf-8"))
    spans = (" ".join(span.split()) for span in _INLINE.findall(text))
    yield from (span for span in spans if span.startswith(("kdbench ", "--")))


def _commands(page: str, line: str) -> Iterator[Command]:
    words = shlex.split(line, comments=True)
    for chained, part in groupby(words, key=lambda word: word == "&&"):
        if not chained:
            own = tuple(part)
            yield Command(page, own, shlex.join(own))


if __name__ == "__main__":
    for step in (step for page in PAGES for step in steps(page)):
        if isinstance(step, Command):
            how = f"parsed, {step.unrun}" if step.unrun else "run" if step.program == "kdbench" else "looked at"
            print(f"{step.page:26}{how:56}{step.text}")
