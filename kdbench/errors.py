"""Errors meant for users: one line that says what is wrong and what to do, and the exit code of the command."""

import traceback
from collections.abc import Iterable
from difflib import get_close_matches

EXIT_OK = 0
EXIT_REGRESSION = 1
EXIT_INCOMPLETE = 2
EXIT_USAGE = 3
EXIT_INTERRUPTED = 130


LONGEST_WORD = 200
"""Characters of a mistyped word that are looked at."""
MOST_NAMES = 80
"""Known names that are told."""


class KdbenchError(Exception):
    """A problem the user can mend; the message is one line and `exit_code` is what the command returns."""

    exit_code = EXIT_USAGE


class UnsupportedPair(Exception):
    """Raised by a method (or a model) that cannot work on a pair; the message is the reason shown as `n/a`."""


def unknown_name(what: str, name: str, choices: Iterable[str]) -> KdbenchError:
    """The error for a mistyped `name`: the near names first, else all the known ones."""
    names = sorted(choices)
    # Of a long word no name is a near one, and to look for one would take minutes.
    near = get_close_matches(name, names, n=3, cutoff=0.5) if len(name) <= LONGEST_WORD else []
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    listed = f"known: {', '.join(names[:MOST_NAMES]) or 'none'}{more}"
    shown = name if len(name) <= LONGEST_WORD else f"{name[:LONGEST_WORD]}..."
    hint = f"did you mean {' or '.join(near)}?" if near else listed
    return KdbenchError(f"unknown {what} '{shown}'; {hint}")


def one_line(text: str) -> str:
    """`text` in one line, without the control characters that a terminal, a table or XML would choke on."""
    return "".join(sign if sign.isprintable() else " " for sign in " ".join(text.split()))


def describe(error: BaseException) -> str:
    """An error in a few lines: what it is, and the innermost calls; one line where it is meant for users."""
    if isinstance(error, KdbenchError):
        return str(error)
    if "more than 1 value per channel when training" in str(error):
        return "batch norm cannot train on a batch, or a part of one, that has a single value a channel: make it larger"
    calls = "".join(traceback.format_tb(error.__traceback__)[-3:])
    return f"{type(error).__name__}: {error}\n{calls}".strip()
