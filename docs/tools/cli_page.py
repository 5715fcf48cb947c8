"""The command line as a page, from its own parsers: `python docs/tools/cli_page.py docs/cli.md`."""

import argparse
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from kdbench.cli.main import EPILOG, build_parser
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


def page() -> str:
    """The page about every command."""
    codes = EPILOG.partition("exit codes:")[2].split(",")
    rows = (f"| {code} | {meaning} |" for code, meaning in (text.strip().split(" ", 1) for text in codes))
    return PAGE.format(commands="\n".join(_commands(build_parser(), 2)), codes="\n".join(rows))


def _commands(parser: argparse.ArgumentParser, level: int) -> Iterator[str]:
    """The lines about the commands of a parser, and about theirs."""
    for group in (action for action in parser._actions if isinstance(action, argparse._SubParsersAction)):
        summaries = {choice.dest: choice.help for choice in group._choices_actions}
        for name, command in group.choices.items():
            summary = command.description or summaries[name] or ""
            yield f"{'#' * level} {command.prog}\n\n{_sentence(summary)}\n"
            yield from _own(command)
            yield from _commands(command, level + 1)


def _own(command: argparse.ArgumentParser) -> Iterator[str]:
    """The lines about the arguments of a command, by group, and what its help says below them."""
    # argparse's own two groups hold what belongs to none.
    usual = (command._positionals, command._optionals)
    groups = {"": [action for group in usual for action in group._group_actions]}
    groups |= {str(group.title): group._group_actions for group in command._action_groups if group not in usual}
    for title, actions in groups.items():
        rows = [f"| {_signature(action)} | {_help(command, action)} |" for action in actions if _is_argument(action)]
        if rows:
            yield "\n".join([f"{title.capitalize()}:\n"] * bool(title) + ["| argument | |\n| --- | --- |", *rows, ""])
    if command.epilog:
        yield from (f"{_sentence(' '.join(part.split()))}\n" for part in command.epilog.split("\n\n"))


def _is_argument(action: argparse.Action) -> bool:
    return not isinstance(action, argparse._SubParsersAction | argparse._HelpAction)


def _signature(action: argparse.Action) -> str:
    """How an argument is written: `--seeds SEEDS`, `FILE`, `[DIR]`, `{cifar10,cifar100}`."""
    choices = f"{{{','.join(map(str, action.choices))}}}" if action.choices else action.dest.upper()
    value = action.metavar if isinstance(action.metavar, str) else choices
    if action.option_strings:
        return f"`{' '.join([', '.join(action.option_strings), *([value] if action.nargs != 0 else [])])}`"
    return f"`{value}...`" if action.nargs == "+" else f"`[{value}]`" if action.nargs == "?" else f"`{value}`"


def _help(command: argparse.ArgumentParser, action: argparse.Action) -> str:
    """The help of an argument with its default, if neither tells it is only its name."""
    text = command._get_formatter()._expand_help(action) if action.help else ""
    if "default" not in text and action.default not in (None, False, True, []) and action.nargs != 0:
        text = f"{text} (default: {action.default})".strip()
    return _marked(text).replace("|", "\\|")


def _marked(text: str) -> str:
    """`text` with options as code; brackets and stars are no Markdown."""
    parts = re.split(r"(`[^`]*`)", text)
    plain = re.compile(r"(?<![\w-])--[a-z][a-z-]*")
    return "".join(
        part if part.startswith("`") else plain.sub(r"`\g<0>`", re.sub(r"([*<\[])", r"\\\1", part)) for part in parts
    )


def _sentence(text: str) -> str:
    text = _marked(text)
    return f"{text[0].upper()}{text[1:]}{'' if text.endswith('.') else '.'}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    write_bytes(parser.parse_args(arguments).out, page().encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
