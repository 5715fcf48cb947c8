"""`kdbench track`: a run in TensorBoard or Weights & Biases, also while it is at work."""

import argparse
import time
from pathlib import Path
from typing import Any

from kdbench.cli import options
from kdbench.errors import EXIT_OK, KdbenchError

SINKS = ("tensorboard", "wandb")
LOOK_SECONDS = 15.0
"""Between two looks at a run, or four times what a look takes where that is more."""

EPILOG = """\
Each cell becomes a run: curves of the losses, of the learning rate and of the accuracy by epoch, its configuration,
and, once it is done, accuracy, gain, throughput and memory. A cell that is being trained is shown up to its last
checkpoint. What has not changed since the last time is not written again; what has takes the place of what was there.

--to tensorboard: event files (wants pip install 'kdbench[tensorboard]')

--to wandb: runs of Weights & Biases (wants pip install 'kdbench[wandb]'), uploaded where you are logged in and
WANDB_MODE is not offline, else kept for `wandb sync`

exit codes: 0 written; 3 no results there, or they cannot be written (one line says why); 130 interrupted"""


def add_parser(commands: Any) -> None:
    parser = options.add_command(commands, "track", execute, "show a run in TensorBoard or Weights & Biases")
    parser.formatter_class, parser.epilog = argparse.RawDescriptionHelpFormatter, EPILOG
    parser.add_argument("results", type=Path, metavar="DIR", help="a results folder, also one that a run is at work in")
    parser.add_argument("--to", required=True, choices=SINKS, help="see below")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder to write to (default: DIR/tracked)")
    parser.add_argument("--project", metavar="NAME", help="of W&B (default: $WANDB_PROJECT, else kdbench)")
    parser.add_argument("--follow", action="store_true", help="go on until every planned cell has a record")
    options.add_json(parser)


def execute(args: argparse.Namespace) -> int:
    from kdbench.results.folder import Results
    from kdbench.tracking.update import opened, update

    if args.project is not None and args.to != "wandb":
        raise KdbenchError("--project is of W&B; TensorBoard has none, choose a folder with --out")
    results, out = Results(args.results), args.out or args.results / "tracked"
    # Before anything is made in its place.
    results.manifest()
    with opened(out, args.to) as ledger:
        sink = _sink(args, out, ledger.id)
        try:
            while True:
                began = time.monotonic()
                written, known, waiting = update(results, sink, ledger)
                goes_on = args.follow and waiting
                if written or not goes_on:
                    _tell(args, sink, written, known, waiting)
                if not goes_on:
                    return EXIT_OK
                time.sleep(max(LOOK_SECONDS, 4 * (time.monotonic() - began)))
        finally:
            sink.close()


def _tell(args: argparse.Namespace, sink: Any, written: int, known: int, waiting: int) -> None:
    if args.json:
        counts = {"written": written, "unchanged": known, "waiting": waiting}
        options.print_json({"to": args.to, "folder": str(sink.folder), **counts})
    else:
        print(f"{written} cells written, {known} unchanged, {waiting} records to come; {sink.hint}", flush=True)


def _sink(args: argparse.Namespace, out: Path, own: str) -> Any:
    if args.to == "tensorboard":
        from kdbench.tracking.event_files import EventFiles

        return EventFiles(out / "tensorboard")
    from kdbench.tracking.wandb_runs import WandbRuns

    return WandbRuns(out, args.project, own)
