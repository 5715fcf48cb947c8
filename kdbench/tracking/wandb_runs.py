"""Cells as runs of Weights & Biases, uploaded or kept for `wandb sync`."""

import os
import shutil
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from kdbench.errors import KdbenchError
from kdbench.targets import short
from kdbench.tracking.cells import TrackedCell
from kdbench.values import first_problem

_LONGEST = 128
"""Characters of a name that W&B keeps."""
_OFFLINE = "WANDB_MODE=offline keeps runs here for `wandb sync`"


class WandbRuns:
    """A run a cell: in the group of its pair, its method the job type.

    Whether anything is sent is as W&B itself is set up (WANDB_MODE, `wandb offline`); nothing is where nobody is logged
    in, and nobody is asked to.
    """

    def __init__(self, folder: Path, project: str | None, run_id: str) -> None:
        """Args:
        folder: W&B makes its own, `wandb`, in it.
        project: of the runs; None for WANDB_PROJECT, or else `kdbench`.
        own: part of the runs' ids that no other results folder has.

        Raises:
            KdbenchError: the package is not installed, or W&B is switched off or set up wrongly.
        """
        # W&B sends reports of its own errors, even where runs are kept offline.
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        try:
            import wandb
        except ImportError as error:
            raise KdbenchError(f"--to wandb needs {error.name}; run `pip install 'kdbench[wandb]'`") from error
        self._wandb, self._run_id = wandb, run_id
        self.folder = folder / "wandb"
        try:
            self.mode, self.project = self._set_up(project)
        except KdbenchError:
            self.close()
            raise
        # W&B is to know no more than what the records tell: not the machine that they are read on.
        self._settings = {
            **{"root_dir": str(folder), "use_dot_wandb": False, "symlink": False, "console": "off", "silent": True},
            **{"disable_git": True, "disable_code": True, "save_code": False, "x_save_requirements": False},
            **{"x_disable_meta": True, "x_disable_stats": True, "x_disable_machine_info": True, "host": ""},
        }

    def _set_up(self, project: str | None) -> tuple[str, str]:
        """Mode and project: what the user has set up, but offline where nobody is logged in."""
        try:
            settings = self._wandb.setup().settings
            online = settings.mode == "online" and self._wandb.login(prompt=False)
        except ValidationError as error:
            raise KdbenchError(f"W&B is set up wrongly: {first_problem(error)}") from error
        except Exception as error:
            raise KdbenchError(f"W&B does not start: {short(error)}; {_OFFLINE}") from error
        if settings.mode == "disabled":
            raise KdbenchError("W&B is switched off (WANDB_MODE=disabled); set WANDB_MODE to online or offline")
        return "online" if online else "offline", project or settings.project or "kdbench"

    @property
    def target(self) -> str:
        """What a cell that was written there need not be written again to."""
        return f"wandb {self.mode} {self.project}"

    @property
    def hint(self) -> str:
        """A line that says how to look at what was written."""
        if self.mode == "online":
            return f"project {self.project} of W&B"
        return f"`wandb login`, then `wandb sync {self.folder}` uploads them to the project {self.project}"

    def write(self, cell: TrackedCell) -> None:
        """Write all of a cell in place of what was written of it before.

        Raises:
            KdbenchError: W&B refuses, or cannot be reached.
        """
        name = f"{cell.key[:12]}-{self._run_id}"
        older = list(self.folder.glob(f"*run-*-{name}"))
        try:
            self._write(cell, name)
        except Exception as error:
            raise KdbenchError(f"W&B does not take {cell.name}: {short(error)}; {_OFFLINE}") from error
        for path in older:
            shutil.rmtree(path, ignore_errors=True)

    def close(self) -> None:
        """End the process that W&B works in."""
        self._wandb.teardown()

    def _write(self, cell: TrackedCell, name: str) -> None:
        by_epoch: dict[int, dict[str, Any]] = {}
        for curve, points in cell.curves.items():
            for epoch, value in points:
                by_epoch.setdefault(epoch, {})[curve] = value
        # Of an id that there is already, and is not resumed, the new run takes the place.
        run = self._wandb.init(
            project=self.project,
            id=name,
            name=cell.name[-_LONGEST:],
            group=cell.pair[:_LONGEST],
            job_type=cell.method,
            config=cell.config,
            mode=self.mode,
            reinit="create_new",
            settings=self._wandb.Settings(**self._settings),
        )
        for epoch in sorted(by_epoch):
            run.log(by_epoch[epoch], step=epoch)
        run.summary.update(cell.final)
        run.finish(exit_code=int(cell.failed))
