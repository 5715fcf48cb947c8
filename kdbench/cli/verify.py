"""`kdbench verify METHOD`: the self-check of a method on pairs of a suite, with a readable verdict for each check."""

import argparse
from typing import Any

from kdbench.cli import options
from kdbench.errors import EXIT_INCOMPLETE, EXIT_OK


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

    grid = options.read_grid(args)

    from kdbench.study.plan import make_plan
    from kdbench.study.verify import verify
    from kdbench.training.device import resolve

    console = Console(stderr=args.json)
    grid.drop_broken(args.methods, console)
    compute = resolve(args.device, args.precision)
    plan = make_plan(grid.suite, grid.plugins, grid.pairs, [0], grid.settings, "test", compute.precision, args.data)
    verdicts = []
    for verdict in verify(plan, compute, args.data):
        verdicts.append(verdict)
        mark = {"passed": "[green]passed[/green]", "failed": "[red]FAILED[/red]"}.get(
            verdict.status, "[yellow]n/a[/yellow]"
        )
        console.print(f"{mark} {verdict.method} on {verdict.pair}", highlight=False)
        if verdict.reason:
            console.print(f"    {verdict.reason}", highlight=False)
        for check in verdict.checks:
            sign = "[green]ok[/green]  " if check.passed else "[red]FAIL[/red]"
            console.print(f"  {sign} {check.name}: {check.detail}", highlight=False, soft_wrap=True)
    if args.json:
        options.print_json([verdict.as_dict() for verdict in verdicts])
    return EXIT_INCOMPLETE if any(verdict.status == "failed" for verdict in verdicts) else EXIT_OK
