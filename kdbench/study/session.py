"""What a run needs beside its plan: where its results and data are, what computes, and when it stops."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from kdbench.engines.display import Answers
from kdbench.engines.local import LocalEngine
from kdbench.engines.stop import StopRequest
from kdbench.engines.task import Engine
from kdbench.results.folder import Results


@dataclass(frozen=True)
class Limits:
    """How much time a training may take, and how much of it may be lost.

    Attributes:
        checkpoint_seconds: between two checkpoints; at the end of an epoch half of it is enough.
        student_seconds: that one student may take, None for any number.
    """

    checkpoint_seconds: float = 300.0
    student_seconds: float | None = None


@dataclass(frozen=True)
class Session:
    """The surroundings of a run.

    Attributes:
        results: the folder that the records go to.
        data_root: the folder of the data sets and teachers that do not come with kdbench.
        workers: processes side by side in the accuracy phase; by default one for each core, or one on a GPU.
        engine: what runs the tasks.
        stop: when to stop before all is done.
        answers: tells what the finished blocks say, to show it beside the progress.
    """

    results: Results
    data_root: Path
    console: Console
    workers: int | None = None
    engine: Engine = field(default_factory=LocalEngine)
    stop: StopRequest = field(default_factory=StopRequest)
    limits: Limits = field(default_factory=Limits)
    answers: Callable[[], Answers | None] | None = None
