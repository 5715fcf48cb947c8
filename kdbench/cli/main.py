"""`kdbench`: its commands, what is said of mistakes, and the exit codes. Commands import torch only when they train."""

import errno
import sys
import traceback
from collections.abc import Callable, Iterable, Sequence
from types import ModuleType
from typing import Annotated, NoReturn

from cyclopts import App, CycloptsError, Group, Parameter
from cyclopts.exceptions import (
    CoercionError,
    MissingArgumentError,
    UnknownCommandError,
    UnknownOptionError,
    UnusedCliTokensError,
)

from kdbench import __version__
from kdbench.cli import baseline, data, teachers
from kdbench.cli.bench import bench
from kdbench.cli.check import check
from kdbench.cli.clean import clean
from kdbench.cli.compare import compare
from kdbench.cli.completion import SCRIPTS, Shell, print_candidates
from kdbench.cli.console import fail
from kdbench.cli.export import export
from kdbench.cli.help import TerminalHelp
from kdbench.cli.list_ import list_
from kdbench.cli.new_method import new_method
from kdbench.cli.output import guard_streams
from kdbench.cli.plan import plan
from kdbench.cli.published import published
from kdbench.cli.report import report
from kdbench.cli.run import run
from kdbench.cli.status import status
from kdbench.cli.track import track
from kdbench.cli.tune import tune
from kdbench.cli.verify import verify
from kdbench.errors import EXIT_INCOMPLETE, EXIT_INTERRUPTED, EXIT_OK, KdbenchError, unknown_name
from kdbench.targets import short

HELP_FLAGS = ("--help", "-h")
EXIT_CODES = {
    0: "all done",
    1: "regression found",
    2: "some cell not done",
    3: "bad usage or config",
    130: "interrupted",
}
EPILOGUE = f"""\
Examples:
  kdbench run                          all methods on the proxy suite
  kdbench run --methods all,./mine.py  with your own method beside the others
  kdbench report results/proxy         tables and plots again, from the records
  kdbench check --run                  is all as accurate and fast as it was?

Exit codes: {", ".join(f"{code} {meaning}" for code, meaning in EXIT_CODES.items())}"""


def completion(
    shell: Shell,
    /,
    *,
    line: Annotated[str | None, Parameter(show=False)] = None,
    cuts: Annotated[str, Parameter(show=False)] = "",
) -> None:
    """Print what makes a shell complete commands, options and values.

    The values are suites, methods, pairs and other names. The script belongs where the shell reads it at its start:

    * bash, in ~/.bashrc: eval "$(kdbench completion bash)"
    * zsh, in ~/.zshrc below compinit: eval "$(kdbench completion zsh)"
    * fish: kdbench completion fish > ~/.config/fish/completions/kdbench.fish

    Args:
        shell: The shell to complete in.
        line: Print what may stand at the end of this command line instead.
        cuts: The signs at which the shell cuts words.
    """
    if line is None:
        print(SCRIPTS[shell], end="")
    else:
        print_candidates(make_app(), shell, line, cuts)


GROUPS = {
    "Train and measure": (plan, run, bench, tune, verify),
    "Look at results": (status, report, compare, track, export, clean),
    "Hold results against a baseline": (check, baseline),
    "Look up": (list_, published),
    "Prepare": (new_method, teachers, data, completion),
}
"""The commands as the help shows them, by the title of their group; a module is one with commands of its own.

A command returns its exit code, or nothing where that is 0.
"""

USAGE = {
    check: "check [OPTIONS] [DIR]",
    baseline.show: "baseline show [OPTIONS] [FILE]",
    teachers.import_: "teachers import [OPTIONS] NAME [FILE]",
    data.import_: "data import [OPTIONS] NAME FILE...",
}
"""How commands are called that take a varying number of arguments."""


def make_app() -> App:
    """The command line with all its commands."""
    app = App(
        name="kdbench",
        help="Compare knowledge-distillation methods across architectures: accuracy gain and cost side by side.",
        help_epilogue=EPILOGUE,
        help_flags=HELP_FLAGS,
        help_format="plaintext",
        help_formatter=TerminalHelp(),
        version=f"kdbench {__version__}",
        group_commands=Group("Other", sort_key=len(GROUPS)),
        group_parameters=Group("Options", sort_key=1),
        default_parameter=Parameter(negative=(), allow_repeating=True),
    )
    for number, (title, commands) in enumerate(GROUPS.items()):
        _add(app, commands, Group(title, sort_key=number))
    return app


def _add(app: App, commands: Iterable[Callable[..., int | None] | ModuleType], group: Group) -> None:
    for number, command in enumerate(commands):
        settings = {"group": group, "sort_key": number, "help_epilogue": ""}
        if isinstance(command, ModuleType):
            below = App(name=command.__name__.rpartition(".")[2], help=command.SUMMARY, **settings)
            app.command(below)
            _add(below, command.COMMANDS, Group("Commands", sort_key=0))
        else:
            usage = f"kdbench {USAGE[command]}" if command in USAGE else None
            app.command(command, usage=usage, **settings)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code.

    What is wrong with files and options is told by what reads them. Anything else that goes wrong is a mistake of
    ours: one line says so and where the calls that led there are written; what was asked for is not done (2).
    """
    guard_streams()
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        app = make_app()
        command, bound, _ = app.parse_args(words, exit_on_error=False, print_error=False)
        if words and command == app.help_print and not set(words) & set(HELP_FLAGS):
            raise KdbenchError(f"kdbench {words[0]} needs a command: {', '.join(_names(app[words[0]]))}")
        code = command(*bound.args, **bound.kwargs) or EXIT_OK
        sys.stdout.flush()
        return code
    except CycloptsError as error:
        fail(_mistake(error))
    except KdbenchError as error:
        fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        fail("interrupted; the same command goes on from here", EXIT_INTERRUPTED)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            fail(f"cannot write {error.filename or 'a temporary file'}: {error.strerror}; free some and run it again")
        if error.filename is None:
            _unforeseen(error)
        # The system refuses a file by its name: too long, a loop of links, no right to look.
        fail(f"cannot use {error.filename}: {error.strerror}")
    except Exception as error:
        _unforeseen(error)


def _names(app: App) -> list[str]:
    """The commands of an app."""
    return [name for name in app if not name.startswith("-")]


def _mistake(error: CycloptsError) -> str:
    """What is wrong with a command line, with the near names."""
    command = " ".join(("kdbench", *(error.command_chain or ())))
    unused = [*(error.unused_tokens or ()), ""][0]
    name = error.argument.name if error.argument else command
    match error:
        case UnknownOptionError():
            options = [option for argument in error.argument_collection for option in argument.names]
            said = unknown_name(f"option of {command}", error.token.keyword or error.token.value, options)
        case UnknownCommandError(app=App() as app):
            said = unknown_name(f"command of {command}", unused, _names(app))
        case CoercionError(argument=argument, token=token) if (
            token and argument and (choices := argument.get_choices())
        ):
            said = unknown_name(f"value of {name}", token.value, choices)
        case CoercionError(msg=str(reason)):
            said = f"{name}: {reason}"
        case MissingArgumentError():
            said = f"{name} needs a value" if name.startswith("-") and unused else f"{name} is missing"
        case UnusedCliTokensError():
            said = f"{command} does not take '{unused}'; several names are one word, with commas between"
        case _:
            error.verbose = False
            said = error
    return f"{said} (see `{command} --help`)"


def _unforeseen(error: Exception) -> NoReturn:
    fail(f"unforeseen {short(error)}; please report it with {_written(error)}", EXIT_INCOMPLETE)


def _written(error: Exception) -> str:
    """Where the calls that led to an error are written."""
    import tempfile

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


if __name__ == "__main__":
    sys.exit(main())
