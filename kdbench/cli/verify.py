"""`kdbench verify METHOD`: the self-check of a method on pairs of a suite, with a readable verdict for each check."""

from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from kdbench.cli import completion, options
from kdbench.cli.console import make_table, open_console, print_json, say
from kdbench.cli.options import WHAT
from kdbench.errors import EXIT_INCOMPLETE, EXIT_OK

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from kdbench.study.verify import SelfCheckVerdict


def verify(
    method: Annotated[str, Parameter(completer=completion.method_names)],
    /,
    *,
    suite: Annotated[options.SuiteName, Parameter(group=WHAT)] = "proxy",
    pairs: Annotated[str, Parameter(group=WHAT, completer=completion.pair_names)] = "all",
    settings: Annotated[options.Settings, Parameter(group=WHAT)] = (),
    how: options.ComputeOptions = options.ComputeOptions(),
    json: options.Json = False,
) -> int:
    """Check, before any training, that methods do what they must.

    Args:
        method: The methods by name, by file or by dotted name, with commas between, or all.
        pairs: The pairs: `hetero`, `homo`, `all`, or a list of `teacher:student`.
    """
    from kdbench.api.selection import look_up
    from kdbench.hyperparameters import parse_settings

    selection = look_up(suite, method, pairs, parse_settings([*settings]))

    from kdbench.study.plan import settle
    from kdbench.study.verify import self_check_methods

    console = open_console(json)
    compute = how.resolve()
    selection.prepare(compute, how.data, console)
    settled = settle(selection.suite, selection.plugins, selection.settings)
    verdicts: list[SelfCheckVerdict] = []
    for verdict in self_check_methods(selection.suite, selection.pairs, settled, compute, how.data):
        if verdict.without_data and (not verdicts or verdicts[-1].pair != verdict.pair):
            say(console, (f"{verdict.pair}: noise and fresh weights", "yellow"), f", as {verdict.without_data}")
        verdicts.append(verdict)
        _print(verdict, console)
    if len(verdicts) > 1:
        console.print(_summary(verdicts))
    if json:
        print_json([verdict.as_dict() for verdict in verdicts])
    return EXIT_INCOMPLETE if any(verdict.status == "failed" for verdict in verdicts) else EXIT_OK


VERDICTS = {"passed": ("passed", "green"), "failed": ("FAILED", "red"), "unsupported": ("n/a", "yellow")}
CHECKS = {True: ("ok", "green"), False: ("FAIL", "red")}


def _print(verdict: "SelfCheckVerdict", console: "Console") -> None:
    say(console, VERDICTS[verdict.status], f" {verdict.method} on {verdict.pair}")
    if verdict.reason:
        say(console, f"    {verdict.reason}")
    for check in verdict.checks:
        say(console, "  ", CHECKS[check.passed], f" {check.name}: {check.detail}")


def _summary(verdicts: "list[SelfCheckVerdict]") -> "Table":
    """Pairs, with the millions of parameters of both networks, and what came of the methods."""
    from rich.text import Text

    rows = []
    for pair in dict.fromkeys(verdict.pair for verdict in verdicts):
        of_pair = [verdict for verdict in verdicts if verdict.pair == pair]
        sizes = next((verdict.parameters for verdict in of_pair if verdict.parameters), None)
        teacher, student = [f"{count / 1e6:.3f}" for count in sizes[:2]] if sizes else ["", ""]
        names = {status: [v.method for v in of_pair if v.status == status] for status in VERDICTS}
        rows.append(
            {
                "pair": pair,
                "teacher\nM": teacher,
                "student\nM": student,
                "passed": f"{len(names['passed'])} of {len(of_pair)}",
                "unsupported": ", ".join(names["unsupported"]) or "-",
                "failed": Text(", ".join(names["failed"]) or "-", "red"),
            }
        )
    return make_table(rows, unbroken=("pair",), numbers=("teacher\nM", "student\nM", "passed"))
