"""`kdbench list methods|pairs|suites|models`: what there is, without importing torch; with it, a model's stages."""

import argparse
from typing import TYPE_CHECKING, Any

from kdbench.cli import options
from kdbench.errors import KdbenchError

if TYPE_CHECKING:
    from kdbench.models.staged import StagedModel
    from kdbench.suites.schema import Suite


def add_parser(commands: Any) -> None:
    parser = options.add_command(commands, "list", execute, "list methods, pairs, suites or models")
    parser.add_argument("what", choices=["methods", "pairs", "suites", "models"])
    options.add_suite(parser)
    parser.add_argument(
        "--stages", metavar="NAME", help="models: what kdbench sees of this one, a suite's or any of timm's"
    )
    parser.add_argument(
        "--size", type=options.whole(1, 4096), metavar="N", help="--stages: on N x N colour images, not the suite's"
    )
    options.add_json(parser)


def execute(args: argparse.Namespace) -> int:
    if args.what != "models" and (args.stages or args.size):
        raise KdbenchError("--stages and --size are about models: `kdbench list models --stages NAME`")
    listing = {"methods": _methods, "pairs": _pairs, "suites": _suites, "models": _models}[args.what]
    rows = listing(args)
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
    from kdbench.suites.loading import load_suite

    suite = load_suite(args.suite)
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
    from kdbench.suites.loading import available, load_suite
    from kdbench.suites.schema import VARIANT

    names = [
        name for base in available() for name in (base, *(f"{base}{VARIANT}{v}" for v in load_suite(base).variants))
    ]
    return [
        {"suite": name, "pairs": len(suite.pairs), "protocol": suite.protocol, "description": suite.description}
        for name in names
        for suite in [load_suite(name)]
    ]


def _models(args: argparse.Namespace) -> list[dict[str, Any]]:
    from kdbench.suites.loading import load_suite

    suite = load_suite(args.suite)
    if args.stages is not None:
        return _stages(suite, args.stages, args.size)
    return [
        {
            "model": name,
            "kind": spec.kind,
            "timm": spec.timm,
            "overrides": ", ".join(f"{key}={value}" for key, value in spec.kwargs.items()),
            "recipe": spec.recipe,
        }
        for name, spec in suite.models.items()
    ]


def _stages(suite: "Suite", name: str, size: int | None) -> list[dict[str, Any]]:
    from kdbench.suites.anymodel import with_model

    suite, name = with_model(suite, name, as_teacher=False)
    channels, side = (len(suite.data.mean), suite.data.image_size) if size is None else (3, size)

    from kdbench.models.create import create_model
    from kdbench.models.staged import StagedModel

    model = create_model(suite.models[name], suite.data.classes or 10, channels, side)
    staged = StagedModel(model, (channels, side, side), ((0.5,) * channels, (0.5,) * channels))
    rows = []
    for stage, info in staged.stages.items():
        tokens = f" + {info.prefix}" if info.prefix else ""
        rows.append(
            {
                "stage": str(stage),
                "module": "final features" if info.tap is None else model.feature_info[info.tap]["module"],  # type: ignore[index]
                "computes on": info.layout,
                "shape": f"{info.channels} x {info.grid[0]} x {info.grid[1]}{tokens}",
                "resume": _resume(staged, stage),
            }
        )
    rows.append({"stage": "pooled", "module": "", "computes on": "", "shape": str(staged.pooled_width), "resume": ""})
    return rows


def _resume(staged: "StagedModel", stage: int) -> str:
    from kdbench.errors import UnsupportedPair

    try:
        tail = staged.tail(stage)
    except UnsupportedPair as reason:
        return f"no: {str(reason).partition(': ')[2] or reason}"
    info = staged.stages[stage]
    if (tail.channels, tail.grid) == (info.channels, info.grid):
        return f"yes, as {tail.layout}"
    return f"yes, further on: {tail.channels} x {tail.grid[0]} x {tail.grid[1]}, as {tail.layout}"


def _print_table(rows: list[dict[str, Any]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in rows[0] if rows else ():
        table.add_column(column, overflow="fold", no_wrap=column in ("method", "pair", "suite", "model"))
    for row in rows:
        table.add_row(*(Text(str(value)) for value in row.values()))
    Console().print(table)
