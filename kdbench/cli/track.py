"""`kdbench track`: a run in TensorBoard or Weights & Biases, also while it is at work."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, get_args

from cyclopts import Parameter

from kdbench.cli import options
from kdbench.cli.console import print_json
from kdbench.errors import KdbenchError
from kdbench.names import plural

if TYPE_CHECKING:
    from kdbench.tracking.event_files import EventFiles
    from kdbench.tracking.wandb_runs import WandbRuns

Sink = Literal["tensorboard", "wandb"]
SINKS: tuple[Sink, ...] = get_args(Sink)
LOOK_SECONDS = 15.0
"""Between two looks at a run, or four times what a look takes where that is more."""


def track(
    folder: options.Results,
    /,
    *,
    to: Sink,
    out: options.Folder = None,
    project: Annotated[str | None, Parameter(metavar="NAME")] = None,
    follow: bool = False,
    json: options.Json = False,
) -> None:
    """Show a run in TensorBoard or Weights & Biases.

    Each cell becomes a run: curves of the losses, of the learning rate and of the accuracy by epoch, its configuration,
    and, once it is done, accuracy, gain, throughput and memory. A cell that is being trained is shown up to its last
    checkpoint. What has not changed since the last time is not written again; what has takes the place of what was
    there.

    * --to tensorboard writes event files (it needs pip install 'kdbench[tensorboard]').
    * --to wandb writes runs of Weights & Biases (it needs pip install 'kdbench[wandb]'), which are uploaded where you
      are logged in and WANDB_MODE is not offline, and else kept for `wandb sync`.

    The exit code is 3 where there are no results, or where they cannot be written; one line says why.

    Args:
        folder: A results folder, also one that a run is at work in.
        to: Where to show it.
        out: The folder to write to. Default: DIR/tracked.
        project: The project of Weights & Biases. Default: $WANDB_PROJECT, else kdbench.
        follow: Go on until every planned cell has a record.
    """
    from kdbench.results.folder import Results
    from kdbench.tracking.update import opened, update

    if project is not None and to != "wandb":
        raise KdbenchError("--project is of W&B; TensorBoard has none, choose a folder with --out")
    results, out = Results(folder), out or folder / "tracked"
    # Before anything is made in its place.
    results.manifest()
    with opened(out, to) as ledger:
        sink = _sink(to, out, project, ledger.id)
        try:
            while True:
                began = time.monotonic()
                written, unchanged, waiting = update(results, sink, ledger)
                goes_on = follow and waiting
                if written or not goes_on:
                    _tell(to, sink, json, written=written, unchanged=unchanged, waiting=waiting)
                if not goes_on:
                    return
                time.sleep(max(LOOK_SECONDS, 4 * (time.monotonic() - began)))
        finally:
            sink.close()


def _tell(to: Sink, sink: "EventFiles | WandbRuns", json: bool, *, written: int, unchanged: int, waiting: int) -> None:
    if json:
        counts = {"written": written, "unchanged": unchanged, "waiting": waiting}
        print_json({"to": to, "folder": str(sink.folder), **counts})
    else:
        print(
            f"{plural(written, 'cell')} written, {unchanged} unchanged, {waiting} records to come; {sink.hint}",
            flush=True,
        )


def _sink(to: Sink, out: Path, project: str | None, run_id: str) -> "EventFiles | WandbRuns":
    if to == "tensorboard":
        from kdbench.tracking.event_files import EventFiles

        return EventFiles(out / "tensorboard")
    from kdbench.tracking.wandb_runs import WandbRuns

    return WandbRuns(out, project, run_id)
