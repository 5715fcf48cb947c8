"""`kdbench verify METHOD`: the self-check of a method on pairs of a suite, with a readable verdict for each check."""

import argparse
from typing import TYPE_CHECKING, Any

from kdbench.cli import options
from kdbench.errors import EXIT_INCOMPLETE, EXIT_OK

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from kdbench.study.verify import SelfCheckVerdict


def add_parser(commands: Any) -> None:
    parser = options.add_command(commands, "verify", execute, "self-check methods on pairs before any training")
    parser.add_argument("methods", metavar="METHOD", help="names, files, dotted names, or all")
    options.add_suite(parser)
    parser.add_argument("--pairs", default="all", help="hetero, homo, all, or teacher:student,... (default: all)")
    parser.add_argument("--set", action="append", default=[], metavar="METHOD.NAME=VALUE", help="a hyperparameter")
    options.add_compute(parser)
    options.add_json(parser)


def execute(args: argparse.Namespace) -> int:
    from rich.console import Console
    from rich.markup import escape

    grid = options.read_grid(args)

    from kdbench.study.plan import settle
    from kdbench.study.verify import self_check_methods

    console = Console(stderr=args.json)
    grid.drop_broken(args.methods, console)
    compute = options.resolve_compute(args)
    methods = settle(grid.suite, grid.plugins, grid.settings)
    verdicts: list[SelfCheckVerdict] = []
    for verdict in self_check_methods(grid.suite, grid.pairs, methods, compute, args.data):
        if verdict.without_data and (not verdicts or verdicts[-1].pair != verdict.pair):
            console.print(
                f"[yellow]{escape(verdict.pair)}: noise and fresh weights[/yellow], as {escape(verdict.without_data)}",
                highlight=False,
            )
        verdicts.append(verdict)
        _print(verdict, console)
    if len(verdicts) > 1:
        console.print(_summary(verdicts))
    if args.json:
        options.print_json([verdict.as_dict() for verdict in verdicts])
    return EXIT_INCOMPLETE if any(verdict.status == "failed" for verdict in verdicts) else EXIT_OK


MARKS = {"passed": "[green]ok[/green]", "failed": "[red]FAIL[/red]", "unsupported": "[yellow]n/a[/yellow]"}
VERDICTS = MARKS | {"passed": "[green]passed[/green]", "failed": "[red]FAILED[/red]"}


def _print(verdict: "SelfCheckVerdict", console: "Console") -> None:
    from rich.markup import escape

    console.print(f"{VERDICTS[verdict.status]} {escape(f'{verdict.method} on {verdict.pair}')}", highlight=False)
    if verdict.reason:
        console.print(f"    {verdict.reason}", highlight=False, markup=False)
    for check in verdict.checks:
        sign = MARKS["passed" if check.passed else "failed"]
        console.print(f"  {sign} {check.name}: {escape(check.detail)}", highlight=False, soft_wrap=True)


def _summary(verdicts: "list[SelfCheckVerdict]") -> "Table":
    """Pairs, with the millions of parameters of both networks, and what came of the methods."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("pair", no_wrap=True)
    for title in ("teacher\nM", "student\nM", "passed"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("unsupported")
    table.add_column("failed", style="red")
    for pair in dict.fromkeys(verdict.pair for verdict in verdicts):
        own = [verdict for verdict in verdicts if verdict.pair == pair]
        sizes = next((verdict.parameters for verdict in own if verdict.parameters), None)
        counts = [f"{count / 1e6:.3f}" for count in sizes[:2]] if sizes else ["", ""]
        names = {status: [v.method for v in own if v.status == status] for status in VERDICTS}
        others = (", ".join(names[status]) or "-" for status in ("unsupported", "failed"))
        table.add_row(*map(Text, (pair, *counts, f"{len(names['passed'])} of {len(own)}", *others)))
    return table
