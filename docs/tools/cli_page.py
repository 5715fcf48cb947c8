"""The command line as a page, from its own help: `python docs/tools/cli_page.py docs/cli.md`."""

import argparse
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from cyclopts import App
from cyclopts.help import HelpPanel
from rich.console import Console, ConsoleOptions

from kdbench.cli.help import CODE, explained, paragraphs, plain_description, signature
from kdbench.cli.main import EXIT_CODES, make_app
from kdbench.files import write_bytes

PAGE = """\
# Command line

What `kdbench --help` and the help of each command tell, as `python docs/tools/cli_page.py docs/cli.md` wrote it.

{commands}
## Exit codes

| code | |
| --- | --- |
{codes}
"""


class Markdown:
    """Keeps the help of a command as paragraphs and tables of Markdown."""

    def __init__(self) -> None:
        self.parts: list[str] = []

    def render_usage(self, console: Console, options: ConsoleOptions, usage: object) -> None:
        """The tables tell it."""

    def render_description(self, console: Console, options: ConsoleOptions, description: object) -> None:
        """What the command does."""
        blocks = [
            f"* {_marked(text[2:])}" if text.startswith("* ") else _marked(text)
            for text in paragraphs(plain_description(description))
        ]
        text = "\n\n".join(blocks)
        self.parts.append(re.sub(r"^(\* .*)\n\n(?=\* )", r"\1\n", text, flags=re.MULTILINE) + "\n")

    def __call__(self, console: Console, options: ConsoleOptions, panel: HelpPanel) -> None:
        """A group of arguments; commands have sections of their own."""
        if panel.format == "parameter" and panel.entries:
            rows = [f"| `{signature(entry)}` | {_cell(explained(entry))} |" for entry in panel.entries]
            self.parts.append("\n".join([f"{panel.title}:\n", "| argument | |\n| --- | --- |", *rows, ""]))


def page() -> str:
    """The page about every command."""
    app = make_app()
    rows = (f"| {code} | {meaning} |" for code, meaning in EXIT_CODES.items())
    return PAGE.format(commands="\n".join(_sections(app, app, ())), codes="\n".join(rows))


def _sections(app: App, below: App, path: tuple[str, ...]) -> Iterator[str]:
    """The parts about the commands that `below`, which is called `path`, has of its own."""
    for name in (name for name in below if not name.startswith("-")):
        words = (*path, name)
        yield f"{'#' * len(words)}# kdbench {' '.join(words)}\n"
        app.help_formatter = told = Markdown()
        app.help_print(words, console=Console(quiet=True))
        yield from told.parts
        yield from _sections(app, below[name], words)


def _cell(text: str) -> str:
    return _marked(text).replace("|", "\\|")


def _marked(text: str) -> str:
    """`text` with options as code; brackets and stars are no Markdown."""
    parts = re.split(f"({CODE})", text)
    return "".join(
        (part if part.startswith("`") else f"`{part}`") if code else re.sub(r"([*<\[])", r"\\\1", part)
        for part, code in zip(parts, [False, True] * len(parts), strict=False)
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    write_bytes(parser.parse_args(arguments).out, page().encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
