"""Cells as runs of TensorBoard: a folder with one event file each."""

import json
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from kdbench.errors import KdbenchError, one_line
from kdbench.files import write_bytes
from kdbench.names import slug
from kdbench.tracking.cells import TrackedCell

_COMPARED = ("suite", "pair", "teacher", "student", "method", "role", "seed", "split")
"""What of a configuration stands among the hyperparameters of TensorBoard's table."""


class EventFiles:
    """Writes `<folder>/<pair>/<method>/s<seed>/events...`: TensorBoard calls a run after its folder."""

    def __init__(self, folder: Path) -> None:
        """Raises:
        KdbenchError: the package is not installed.
        """
        try:
            from torch.utils.tensorboard import SummaryWriter
            from torch.utils.tensorboard.summary import hparams
        except ImportError as error:
            raise KdbenchError(
                f"--to tensorboard needs {error.name or 'tensorboard'}; run `pip install 'kdbench[tensorboard]'`"
            ) from error
        self.folder = folder
        self._writer, self._hparams = SummaryWriter, hparams

    @property
    def target(self) -> str:
        """What a cell that was written there need not be written again to."""
        return "tensorboard"

    @property
    def hint(self) -> str:
        """A line that says how to look at what was written."""
        return f"tensorboard --logdir {self.folder}"

    def write(self, cell: TrackedCell) -> None:
        """Write all of a cell in place of what was written of it before.

        Raises:
            KdbenchError: the folder cannot be written.
        """
        home = self.folder / slug(cell.pair) / cell.method / f"s{cell.seed}"
        older = list(home.glob("*tfevents*"))
        # TensorBoard's own files are named after the host, and show while they are half written.
        write_bytes(home / f"events.out.tfevents.{time.time_ns()}.kdbench", self._events(cell))
        for path in older:
            path.unlink(missing_ok=True)

    def close(self) -> None:
        """Do nothing: no file is kept open."""

    def _events(self, cell: TrackedCell) -> bytes:
        with TemporaryDirectory() as temporary:
            # A TensorBoard that is open forgets what it knows of the run when it sees a new file that starts at 0.
            with self._writer(temporary, purge_step=0) as writer:
                for name, points in cell.curves.items():
                    for epoch, value in points:
                        writer.add_scalar(name, value, epoch)
                for name, value in cell.final.items():
                    writer.add_scalar(name, value, cell.epochs)
                # An indented block of Markdown: text as it is.
                text = json.dumps(cell.config, indent=1)
                writer.add_text("configuration", "\n".join(f"    {line}" for line in text.splitlines()))
                if "hyperparameters" in cell.config:
                    self._add_row(writer, cell)
            return b"".join(path.read_bytes() for path in sorted(Path(temporary).iterdir()))

    def _add_row(self, writer: Any, cell: TrackedCell) -> None:
        """Of the table of hyperparameters; TensorBoard keeps the first that it sees of a run, so it has to be whole."""
        # The columns are left out: TensorBoard would take those of one run for all, and finds them by itself.
        _, start, end = self._hparams(_table(cell.config), {})
        for summary in (start, end) if cell.status == "done" else (start,):
            writer.file_writer.add_summary(summary)


def _table(config: dict[str, Any]) -> dict[str, str | float]:
    """Columns of TensorBoard's table of hyperparameters: numbers and words."""
    compared = {name: config[name] for name in _COMPARED if name in config}
    compared |= {f"hp.{name}": value for name, value in config.get("hyperparameters", {}).items()}
    return {one_line(name): _plain(value) for name, value in compared.items()}


def _plain(value: Any) -> str | float:
    return value if isinstance(value, int | float) else one_line(value if isinstance(value, str) else json.dumps(value))
