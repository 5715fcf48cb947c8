"""`kdbench compare`: what changed from one run to another, without importing torch."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from kdbench.cli import options
from kdbench.cli.console import open_console, print_json
from kdbench.cli.options import OUTPUT


def compare(
    old: Annotated[Path, Parameter(name="RUN_A")],
    new: Annotated[Path, Parameter(name="RUN_B")],
    /,
    *,
    any_protocol: bool = False,
    markdown: Annotated[Path | None, options.file(group=OUTPUT)] = None,
    json: options.Json = False,
) -> None:
    """Tell what changed from one run to another.

    Accuracy, relative throughput and memory are compared.

    Args:
        old: A results folder: what is compared with.
        new: Another one: is it better or worse than RUN_A?
        any_protocol: Compare runs of different protocols or splits all the same, by Welch's test; without this option
            they are refused.
        markdown: Write the tables to this file, as Markdown.
    """
    from kdbench.analysis.runs import compare_runs
    from kdbench.files import write_bytes
    from kdbench.report.runs import as_json, page, print_comparison
    from kdbench.results.folder import Results
    from kdbench.results.study import load_study

    names = str(old), str(new)
    comparison = compare_runs(load_study(Results(old)), load_study(Results(new)), any_protocol)
    if markdown is not None:
        write_bytes(markdown, page(comparison, names).encode())
    if json:
        print_json(as_json(comparison, names))
    else:
        print_comparison(comparison, names, open_console())
