"""`kdbench`: the parser and the exit codes. Commands import torch only when they train."""

import argparse
import sys
import tempfile
import traceback
from collections.abc import Sequence
from difflib import get_close_matches
from io import TextIOWrapper
from typing import NoReturn

from kdbench import __version__
from kdbench.cli import (
    baseline,
    bench,
    check,
    clean,
    compare,
    data,
    export,
    list_,
    new_method,
    published,
    report,
    run,
    status,
    teachers,
    track,
    tune,
    verify,
)
from kdbench.errors import EXIT_INCOMPLETE, EXIT_INTERRUPTED, EXIT_USAGE, KdbenchError, one_line
from kdbench.targets import short

EPILOG = """\
examples:
  kdbench run                                      the proxy suite: all methods, heterogeneous pairs, 3 seeds
  kdbench run --methods all,./mine.py --pairs all  with your own method beside the others
  kdbench report results/proxy                     tables and plots again, from the records
  kdbench check --run                              is everything still as accurate and as fast as the baseline?

exit codes: 0 all done, 1 regression found, 2 some cell not done, 3 bad usage or config, 130 interrupted"""


LONGEST_LINE = 2000
"""Characters of a message; a word on the command line may have a hundred thousand."""


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, with the near names, and exits with the code for bad usage."""

    def error(self, message: str) -> NoReturn:
        fail(f"{message}; see `{self.prog} --help`")

    def _check_value(self, action: argparse.Action, value: object) -> None:
        if action.choices is not None and value not in action.choices:
            raise argparse.ArgumentError(action, f"unknown: '{value}'{_near(str(value), map(str, action.choices))}")


def _near(word: str, known: object) -> str:
    names = sorted(known)  # type: ignore[call-overload]
    near = get_close_matches(word, names, n=2, cutoff=0.5)
    return f"; did you mean {' or '.join(near)}?" if near else f"; known: {', '.join(names)}"


def build_parser() -> argparse.ArgumentParser:
    """The whole parser."""
    parser = _Parser(
        prog="kdbench",
        description="Compare knowledge-distillation methods across architectures: accuracy gain and cost side by side.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"kdbench {__version__}")
    commands = parser.add_subparsers(title="commands", dest="command", metavar="COMMAND", required=True)
    for module in (
        *(run, status, track, bench, tune, report, compare, check, baseline, published),
        *(export, list_, verify, new_method, teachers, data, clean),
    ):
        module.add_parser(commands)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code.

    What is wrong with files and options is told by what reads them. Anything else that goes wrong is a mistake of
    ours: one line says so and where the calls that led there are written; what was asked for is not done (2).
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            # A name that the terminal cannot show is no reason to end.
            stream.reconfigure(errors="backslashreplace")
    parser = build_parser()
    options, unknown = parser.parse_known_args(arguments)
    if unknown:
        known = [text for action in options.parser._actions for text in action.option_strings]
        word = unknown[0].partition("=")[0]
        fail(f"unrecognised argument '{word}'{_near(word, known) if word.startswith('-') else ''}")
    try:
        return options.execute(options)
    except KdbenchError as error:
        fail(str(error), error.exit_code)
    except BrokenPipeError:
        # The reader of our output (`| head`) has seen enough.
        sys.stderr.close()
        return 0
    except KeyboardInterrupt:
        fail("interrupted; the same command goes on from here", EXIT_INTERRUPTED)
    except OSError as error:
        if error.filename is None:
            _unforeseen(error)
        # The system refuses a file by its name: too long, a loop of links, no right to look.
        fail(f"cannot use {error.filename}: {error.strerror}")
    except Exception as error:
        _unforeseen(error)


def _unforeseen(error: Exception) -> NoReturn:
    fail(f"unforeseen {short(error)}; please report it with {_written(error)}", EXIT_INCOMPLETE)


def _written(error: Exception) -> str:
    """Where the calls that led to an error are written."""
    text = "".join(traceback.format_exception(error))
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="kdbench-", suffix=".log", delete=False, encoding="utf-8", errors="backslashreplace"
        ) as file:
            file.write(text)
    except OSError:
        print(text, file=sys.stderr)
        return "the lines above"
    return file.name


def fail(message: str, exit_code: int = EXIT_USAGE) -> NoReturn:
    """One line on standard error, and out."""
    line = one_line(message)
    if len(line) > LONGEST_LINE:
        line = f"{line[: LONGEST_LINE - 300]} ... {line[-300:]}"
    print(f"kdbench: {line}", file=sys.stderr)
    sys.exit(exit_code)


if __name__ == "__main__":
    sys.exit(main())
