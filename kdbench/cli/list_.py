"""`kdbench list methods|pairs|suites`: what there is, without importing torch."""

import argparse
from typing import Any

from kdbench.cli import options


def add_parser(commands: Any) -> None:
    parser = options.add_command(commands, "list", execute, "list methods, pairs or suites")
    parser.add_argument("what", choices=["methods", "pairs", "suites"])
    options.add_suite(parser)
    options.add_json(parser)


def execute(args: argparse.Namespace) -> int:
    rows = {"methods": _methods, "pairs": _pairs, "suites": _suites}[args.what](args)
    if args.json:
        options.print_json(rows)
    else:
        _print_table(rows)
    return 0


def _methods(args: argparse.Namespace) -> list[dict[str, Any]]:
    from kdbench.registry import Registry

    registry = Registry.installed()
    rows = []
    for name in registry.names:
        plugin = registry.plugins[name]
        aliases = ", ".join(plugin.source.aliases)
        rows.append({"method": name, "aliases": aliases, "from": plugin.origin, "summary": plugin.source.summary})
    for name, error in registry.errors.items():
        rows.append({"method": name, "aliases": "", "from": "BROKEN", "summary": error})
    return rows


def _pairs(args: argparse.Namespace) -> list[dict[str, Any]]:
    from kdbench.suites.loading import load

    suite = load(args.suite)
    return [
        {
            "pair": pair.name,
            "kind": "hetero" if suite.is_hetero(pair) else "homo",
            "teacher": f"{suite.models[pair.teacher].kind}, {suite.models[pair.teacher].timm}",
            "student": f"{suite.models[pair.student].kind}, {suite.models[pair.student].timm}",
        }
        for pair in suite.pairs
    ]


def _suites(args: argparse.Namespace) -> list[dict[str, Any]]:
    from kdbench.suites.loading import available, load
    from kdbench.suites.schema import VARIANT

    names = [name for base in available() for name in (base, *(f"{base}{VARIANT}{v}" for v in load(base).variants))]
    return [
        {"suite": name, "pairs": len(suite.pairs), "protocol": suite.protocol, "description": suite.description}
        for name in names
        for suite in [load(name)]
    ]


def _print_table(rows: list[dict[str, Any]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in rows[0] if rows else ():
        table.add_column(column, overflow="fold", no_wrap=column in ("method", "pair", "suite"))
    for row in rows:
        table.add_row(*(str(value) for value in row.values()))
    Console().print(table)
