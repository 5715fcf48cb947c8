"""`kdbench data list|download|import|check`: the data sets of the data folder."""

from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from kdbench.cli import options
from kdbench.cli.console import open_console, print_json, say
from kdbench.errors import EXIT_INCOMPLETE, EXIT_OK

if TYPE_CHECKING:
    from kdbench.data.sources.check import SplitReport

WHITE = 2**16 - 1
"""Of images of 16 bits."""
SHOWN = 20
"""Broken files that are named on the terminal; --json names all."""


def list_(*, data: options.DataFolder = options.DATA, json: options.Json = False) -> None:
    """Tell what data sets there are, and where."""
    from kdbench.data.sources import EMBEDDED, NAMED, folder

    rows = []
    for name, source in NAMED.items():
        path = source.locate(data)
        rows.append({"source": name, "holds": source.content, "found": str(path) if path else None})
        if path and path.is_relative_to(EMBEDDED):
            rows[-1]["found"] = "comes with kdbench"
    below = sorted(path for path in data.glob("*") if path.is_dir())
    for root in (data, *below):
        if folder.locate(root):
            name = "folder" if root == data else f"folder:{root.name}"
            count = len(folder.class_folders(root / "train"))
            rows.append({"source": name, "holds": f"{count:,} classes of images", "found": str(root)})
    if json:
        print_json(rows)
        return
    console = open_console()
    for row in rows:
        get = f"not in {data}; get it with `kdbench data download {row['source']} --data {quote(str(data))}`"
        say(console, (row["source"], "bold"), f" {row['holds']}: {row['found'] or get}")


def download(
    name: Literal["fashion-mnist", "cifar10", "cifar100"],
    /,
    *,
    data: options.DataFolder = options.DATA,
    json: options.Json = False,
) -> None:
    """Fetch a data set from its authors' server.

    Args:
        name: The data set.
    """
    from kdbench.data.sources import NAMED
    from kdbench.data.sources.download import download

    path = NAMED[name].locate(data)
    new = path is None
    if path is None:
        (path,) = download(name, data)
    if json:
        print_json({"source": name, "found": str(path), "new": new})
    else:
        print(f"{name} is in {path}" if new else f"{name} is in {path} already")


def import_(
    name: Literal["cifar10", "cifar100"],
    files: Annotated[list[Path], Parameter(name="FILE")],
    /,
    *,
    data: options.DataFolder = options.DATA,
    json: options.Json = False,
) -> None:
    """Make one file of packs, or of torchvision's files.

    Args:
        name: The data set.
        files: All its .npz packs, or its cifar-*.tar.gz or the folder of that.
    """
    from kdbench.data.sources import packs
    from kdbench.data.sources.cifar import CIFAR10, CIFAR100, SIZES

    cifar = {CIFAR10.name: CIFAR10, CIFAR100.name: CIFAR100}[name]
    merged = packs.merge([cifar.read_part(path) for path in files])
    target = data / f"{name}.npz"
    packs.write_npz(target, merged)
    sizes = {"train": len(merged.train), "test": len(merged.test)}
    if json:
        print_json({"written": str(target), "classes": len(merged.classes), **sizes, "sha256": merged.sha256})
        return
    print(f"{target}: {sizes['train']:,} training and {sizes['test']:,} test images of {len(merged.classes)} classes")
    if sizes != SIZES:
        print(f"{name} has {SIZES['train']:,} and {SIZES['test']:,}: import all its packs together")


def check(source: str, /, *, data: options.DataFolder = options.DATA, json: options.Json = False) -> int:
    """Read a data set whole and tell what is in it.

    Args:
        source: The data set as a suite names it: cifar100, folder:imagenet1k, reader:wds/shards, ...
    """
    from kdbench.data import sources
    from kdbench.data.sources.check import check

    loaded = sources.read_dataset(source, data)
    reports = check(loaded)
    if json:
        splits = {name: _as_json(report) for name, report in reports.items()}
        print_json({"source": source, "sha256": loaded.sha256, "notes": loaded.notes, "splits": splits})
    else:
        for name, report in reports.items():
            _print(name, report)
        for note in loaded.notes:
            say(open_console(), (note, "yellow"))
    return EXIT_INCOMPLETE if any(report.broken for report in reports.values()) else EXIT_OK


def _as_json(report: "SplitReport") -> dict[str, Any]:
    return {
        "images": report.images,
        "per_class": report.per_class,
        "sizes": {f"{width}x{height}": count for (width, height), count in report.sizes.most_common()},
        "modes": dict(report.modes.most_common()),
        "ranges": report.ranges,
        "turned": report.turned,
        "broken": [{"file": file, "reason": reason} for file, reason in report.broken],
    }


def _print(name: str, report: "SplitReport") -> None:
    from rich.columns import Columns
    from rich.text import Text

    console = open_console()
    counts = set(report.per_class.values())
    each = f"{min(counts):,}" if len(counts) == 1 else f"{min(counts):,} to {max(counts):,}"
    say(console, (name, "bold"), f" {report.images:,} images, {len(report.per_class):,} classes of {each}")
    if len(counts) > 1:
        console.print(Columns([Text(f"{label} {count:,}") for label, count in report.per_class.items()], (0, 3)))
    if report.sizes:
        smallest, largest = (f"{size[0]}x{size[1]}" for size in (min(report.sizes), max(report.sizes)))
        several = f"{len(report.sizes):,} sizes, {smallest} to {largest} px"
        say(console, f"  all {smallest} px" if len(report.sizes) == 1 else f"  {several}")
    odd = ", ".join(f"{mode} {count:,}" for mode, count in report.modes.most_common() if mode != "RGB")
    if odd:
        say(console, f"  not RGB: {odd}")
    for mode, (low, high) in report.ranges.items():
        dark = high < WHITE / 8
        told = f"  {mode} has values from {low:,.0f} to {high:,.0f}, {WHITE:,} is white"
        say(console, told, (": all of them are dark; scale them to 16 bits, or save them with 8" * dark, "yellow"))
    if report.turned:
        say(console, f"  {report.turned:,} have an EXIF orientation, and are read as they are stored")
    for file, reason in report.broken[:SHOWN]:
        say(console, "  ", ("broken", "red"), f" {file}: {reason}")
    if len(report.broken) > SHOWN:
        say(console, "  ", ("broken", "red"), f" {len(report.broken) - SHOWN:,} more, which --json names")


SUMMARY = "List, download, import or check data sets."
COMMANDS = list_, download, import_, check
