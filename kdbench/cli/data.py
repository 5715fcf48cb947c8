"""`kdbench data list|download|import|check`: the data sets of the data folder."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdbench.cli import options
from kdbench.errors import EXIT_INCOMPLETE, EXIT_OK

if TYPE_CHECKING:
    from kdbench.data.sources.check import SplitReport

IMPORTABLE = ["cifar10", "cifar100"]
DOWNLOADABLE = ["fashion-mnist", *IMPORTABLE]
SHOWN = 20
"""Broken files that are named on the terminal; --json names all."""


def add_parser(commands: Any) -> None:
    parser = commands.add_parser("data", help="list, download, import or check data sets", allow_abbrev=False)
    actions = parser.add_subparsers(title="actions", dest="action", metavar="ACTION", required=True)
    options.add_command(actions, "list", _list, "what data sets there are, and where")
    download = options.add_command(actions, "download", _download, "fetch a data set from its authors' server")
    download.add_argument("name", choices=DOWNLOADABLE)
    packs = options.add_command(actions, "import", _import, "make one file of packs, or of torchvision's files")
    packs.add_argument("name", choices=IMPORTABLE)
    packs.add_argument("files", nargs="+", type=Path, metavar="FILE", help="a .npz pack, cifar-*.tar.gz or its folder")
    check = options.add_command(actions, "check", _check, "read a data set whole and tell what is in it")
    check.add_argument("source", help="as a suite names it: cifar100, folder:imagenet1k, reader:wds/shards, ...")
    for action in actions.choices.values():
        options.add_data(action)
        options.add_json(action)


def _list(args: argparse.Namespace) -> int:
    from rich.console import Console
    from rich.markup import escape

    from kdbench.data.sources import EMBEDDED, NAMED, folder

    rows = []
    for name, source in NAMED.items():
        path = source.locate(args.data)
        rows.append({"source": name, "holds": source.content, "found": str(path) if path else None})
        if path and path.is_relative_to(EMBEDDED):
            rows[-1]["found"] = "comes with kdbench"
    below = sorted(path for path in args.data.glob("*") if path.is_dir())
    for root in (args.data, *below):
        if folder.locate(root):
            name = "folder" if root == args.data else f"folder:{root.name}"
            count = len(folder.class_folders(root / "train"))
            rows.append({"source": name, "holds": f"{count:,} classes of images", "found": str(root)})
    if args.json:
        options.print_json(rows)
        return EXIT_OK
    console = Console(highlight=False)
    for row in rows:
        get = f"not in {args.data}; get it with `kdbench data download {row['source']} --data {args.data}`"
        told = escape(f"{row['holds']}: {row['found'] or get}")
        console.print(f"[bold]{escape(row['source'])}[/bold] {told}", soft_wrap=True)
    return EXIT_OK


def _download(args: argparse.Namespace) -> int:
    from kdbench.data.sources import NAMED
    from kdbench.data.sources.download import download

    path = NAMED[args.name].locate(args.data)
    new = path is None
    if path is None:
        (path,) = download(args.name, args.data)
    if args.json:
        options.print_json({"source": args.name, "found": str(path), "new": new})
    else:
        print(f"{args.name} is in {path}" if new else f"{args.name} is in {path} already")
    return EXIT_OK


def _import(args: argparse.Namespace) -> int:
    from kdbench.data.sources import packs
    from kdbench.data.sources.cifar import CIFAR10, CIFAR100, SIZES

    cifar = {CIFAR10.name: CIFAR10, CIFAR100.name: CIFAR100}[args.name]
    data = packs.merge([cifar.read_part(path) for path in args.files])
    target = args.data / f"{args.name}.npz"
    packs.write_npz(target, data)
    sizes = {"train": len(data.train), "test": len(data.test)}
    if args.json:
        options.print_json({"written": str(target), "classes": len(data.classes), **sizes, "sha256": data.sha256})
        return EXIT_OK
    print(f"{target}: {sizes['train']:,} training and {sizes['test']:,} test images of {len(data.classes)} classes")
    if sizes != SIZES:
        print(f"{args.name} has {SIZES['train']:,} and {SIZES['test']:,}: import all its packs together")
    return EXIT_OK


def _check(args: argparse.Namespace) -> int:
    from kdbench.data import sources
    from kdbench.data.sources.check import check

    data = sources.read_dataset(args.source, args.data)
    reports = check(data)
    if args.json:
        splits = {name: _as_json(report) for name, report in reports.items()}
        options.print_json({"source": args.source, "sha256": data.sha256, "splits": splits})
    else:
        for name, report in reports.items():
            _print(name, report)
    return EXIT_INCOMPLETE if any(report.broken for report in reports.values()) else EXIT_OK


def _as_json(report: "SplitReport") -> dict[str, Any]:
    return {
        "images": report.images,
        "per_class": report.per_class,
        "sizes": {f"{width}x{height}": count for (width, height), count in report.sizes.most_common()},
        "modes": dict(report.modes.most_common()),
        "broken": [{"file": file, "reason": reason} for file, reason in report.broken],
    }


def _print(name: str, report: "SplitReport") -> None:
    from rich.columns import Columns
    from rich.console import Console
    from rich.markup import escape

    console = Console(highlight=False)
    counts = set(report.per_class.values())
    each = f"{min(counts):,}" if len(counts) == 1 else f"{min(counts):,} to {max(counts):,}"
    console.print(f"[bold]{name}[/bold] {report.images:,} images, {len(report.per_class):,} classes of {each}")
    if len(counts) > 1:
        console.print(
            Columns([escape(f"{label} {count:,}") for label, count in report.per_class.items()], padding=(0, 3))
        )
    if report.sizes:
        smallest, largest = (f"{size[0]}x{size[1]}" for size in (min(report.sizes), max(report.sizes)))
        console.print(
            f"  all {smallest} px"
            if len(report.sizes) == 1
            else f"  {len(report.sizes):,} sizes, {smallest} to {largest} px"
        )
    odd = ", ".join(f"{mode} {count:,}" for mode, count in report.modes.most_common() if mode != "RGB")
    if odd:
        console.print(f"  not RGB: {odd}")
    for file, reason in report.broken[:SHOWN]:
        console.print(f"  [red]broken[/red] {escape(f'{file}: {reason}')}", soft_wrap=True)
    if len(report.broken) > SHOWN:
        console.print(f"  [red]broken[/red] {len(report.broken) - SHOWN:,} more, which --json names")
