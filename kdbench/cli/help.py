"""How help is written: plain columns, each group of options below its title, in lines that a narrow terminal holds."""

import re
from textwrap import wrap
from typing import TYPE_CHECKING, get_origin

if TYPE_CHECKING:
    from cyclopts.help import HelpEntry, HelpPanel
    from rich.console import Console, ConsoleOptions

WIDEST = 110
"""Columns that are used of a wide terminal; longer lines are hard to read."""
INDENT = 2
NAMES = {"command": 12, "parameter": 24}
"""Columns of names; what has a longer one is explained from the next line on."""
CODE = r"`[^`]+`|(?<![\w-])--[a-z][a-z-]*"
"""What of an explanation is code."""


class TerminalHelp:
    """Writes the help of a command to a terminal."""

    def render_usage(self, console: "Console", options: "ConsoleOptions", usage: object) -> None:
        """How the command is called."""
        from rich.text import Text

        console.print(Text.assemble(("Usage: ", "bold"), str(usage).strip()), soft_wrap=True)

    def render_description(self, console: "Console", options: "ConsoleOptions", description: object) -> None:
        """What the command does."""
        for paragraph in paragraphs(plain_description(description)):
            hanging = "  " if paragraph.startswith("* ") else ""
            if not hanging:
                console.print()
            self._print(console, wrap(paragraph, _width(console), subsequent_indent=hanging, break_on_hyphens=False))

    def __call__(self, console: "Console", options: "ConsoleOptions", panel: "HelpPanel") -> None:
        """A group of options, or of commands."""
        from rich.text import Text

        if not panel.entries:
            return
        console.print()
        console.print(Text(str(panel.title), style="bold"))
        column = INDENT + NAMES[panel.format] + 2
        for entry in panel.entries:
            name = f"{'':{INDENT}}{signature(entry)}"
            lines = wrap(explained(entry), _width(console) - column, break_on_hyphens=False)
            head = f"{name:{column}}{lines.pop(0)}" if lines and len(name) <= column - 2 else name
            self._print(console, [head, *(f"{'':{column}}{line}" for line in lines)], len(name))

    def _print(self, console: "Console", lines: list[str], name: int = 0) -> None:
        """Print lines with their code in colour, and as much of the first one as the name takes."""
        from rich.text import Text

        for line in lines:
            text = Text(line)
            text.stylize("cyan", 0, name)
            text.highlight_regex(CODE, "cyan")
            console.print(text, soft_wrap=True)
            name = 0


def _width(console: "Console") -> int:
    return min(console.width, WIDEST)


def plain_description(description: object) -> str:
    """The text of what cyclopts hands on as a description, in the format `plaintext`."""
    return str(getattr(description, "primary_renderable", description) or "")


def paragraphs(text: str) -> list[str]:
    """The paragraphs of a docstring, each in one line; an item of a list is one."""
    parts = re.split(r"\n\s*\n|\n(?=\* )", text.strip())
    return [" ".join(part.split()) for part in parts if part.strip()]


def signature(entry: "HelpEntry") -> str:
    """How an argument is written: `--seeds SEEDS`, `--device {auto,cpu,cuda}`, `DIR`, `[DIR]`, `FILE...`."""
    if label := entry.positional_label:
        label = f"{label}..." if get_origin(entry.type) is list else label
        return label if entry.required else f"[{label}]"
    names = ", ".join(sorted(entry.all_options, key=len))
    if not entry.metavar:
        return names
    if entry.choices:
        return f"{names} {{{','.join(entry.choices)}}}"
    # The name says more than the type of a text.
    return f"{names} {names.lstrip('-').upper() if entry.metavar == 'STR' else entry.metavar}"


def explained(entry: "HelpEntry") -> str:
    """What an argument is for, with its default, and with its values where the signature does not tell them."""
    text = plain_description(entry.description)
    if entry.positional_label and entry.choices:
        text = f"{text} One of {', '.join(entry.choices)}."
    if entry.default not in (None, "False", "()"):
        text = f"{text} Default: {entry.default}."
    return " ".join(text.split())
