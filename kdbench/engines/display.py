"""Shows how far the tasks of a phase are: a live display on a terminal, plain lines elsewhere."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from kdbench.engines.progress import MemberState, Pace, Progress

PLAIN_SECONDS = 15.0


class Labelled(Protocol):
    """What the display needs to know of a task: what it is called, and its share of the work."""

    @property
    def label(self) -> str: ...

    @property
    def weight(self) -> int: ...


class Answers(Protocol):
    """What the finished work says, in a line and as something to show."""

    @property
    def line(self) -> str: ...

    def table(self) -> RenderableType: ...


class Display:
    """Shows the tasks of a phase: finished, running with a line a member, and the time left."""

    def __init__(
        self, console: Console, title: str, total_weight: float, answers: "Callable[[], Answers | None] | None" = None
    ) -> None:
        """Args:
        title: what the phase is called.
        total_weight: of all its tasks.
        answers: asked after each task for what the finished work says.
        """
        self.console = console
        self._ask = answers or (lambda: None)
        self._answers: Answers | None = None
        self._title = title
        self._pace = Pace(total_weight)
        self.failures = 0
        self._running: dict[str, Progress] = {}
        self._started = time.monotonic()
        self._printed = self._started

    @contextmanager
    def shown(self) -> Iterator["Display"]:
        """Keep the display up; on anything but a terminal it prints a line now and then instead."""
        if not self.console.is_terminal:
            yield self
            return
        with Live(get_renderable=self._render, console=self.console, refresh_per_second=4, transient=True):
            yield self

    def update(self, task: Labelled, progress: Progress) -> None:
        """A task has reported how far it is."""
        self._running[task.label] = progress
        self._pace.update(task.label, task.weight, progress.share, self.elapsed)
        if not self.console.is_terminal and time.monotonic() - self._printed >= PLAIN_SECONDS:
            self._printed = time.monotonic()
            running = ", ".join(f"{name} {p.share:.0%}" for name, p in self._running.items())
            self.console.print(
                f"{self._title} {self._pace.share:.0%}, {self._left()} left; {running}", highlight=False, markup=False
            )

    def finished(self, task: Labelled, error: str | None) -> None:
        """A task has ended; `error` says why when it ended badly."""
        self._running.pop(task.label, None)
        self._pace.finished(task.label, task.weight)
        if error is not None:
            self.failures += 1
            self.note(f"{task.label}: {error}")
        told, self._answers = self._answers, self._ask()
        if self._answers and not self.console.is_terminal and (told is None or told.line != self._answers.line):
            self.console.print(Text(self._answers.line), soft_wrap=True)

    def dropped(self, weight: int) -> None:
        """Count a share of a task that will not be done."""
        self._pace.dropped(weight)

    def note(self, text: str) -> None:
        """Print a line about something that went wrong."""
        self.console.print(Text(text.splitlines()[0], "red"))

    @property
    def elapsed(self) -> float:
        """Seconds since the phase began."""
        return time.monotonic() - self._started

    def _left(self) -> str:
        seconds = self._pace.seconds_left(self.elapsed)
        return "?" if seconds is None else duration(seconds)

    def _render(self) -> Group:
        head = Table.grid(padding=(0, 1))
        elapsed = duration(self.elapsed)
        head.add_row(
            Text(self._title, style="bold"),
            ProgressBar(total=1.0, completed=self._pace.share, width=30),
            f"{self._pace.share:.0%}",
            f"{elapsed} so far, {self._left()} left",
        )
        lines = Table.grid(padding=(0, 2))
        below = None if self._answers is None else self._answers.table()
        taken = 0 if below is None else len(self.console.render_lines(below, pad=False))
        room = max(4, self.console.height - 4 - taken)
        for label, progress in sorted(self._running.items()):
            rows = [("", state) for state in progress.members] or [("", None)]
            for number, (_, state) in enumerate(rows):
                if lines.row_count >= room:
                    break
                left = f"{label} {progress.share:4.0%}" if number == 0 else ""
                lines.add_row(Text(left), *_member_cells(state))
        return Group(head, lines, *([] if below is None else [below]))


def _member_cells(state: MemberState | None) -> tuple[Text, Text, Text]:
    if state is None:
        return Text(), Text(), Text()
    if state.status not in (None, "done"):
        return Text(state.name), Text(str(state.status), "yellow"), Text()
    loss = f"loss {state.loss:.3f}" if state.loss is not None else ""
    top1 = f"top-1 {state.top1:.1f}" if state.top1 is not None else ""
    return Text(state.name), Text(loss), Text(top1)


def duration(seconds: float) -> str:
    """Write seconds as `3:07` or `1:02:09`."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


@contextmanager
def counted(console: Console, start: str) -> Iterator[Callable[[str, int, int], None]]:
    """Show how far a long reading is: what comes out is told what is measured, the images so far, and of how many.

    On a terminal it is one line that changes; elsewhere there is a line for each thing that is measured.

    Args:
        start: what is shown before anything is measured.
    """
    begun: set[str] = set()
    with console.status(Text(start)) as status:

        def show(what: str, images: int, of: int) -> None:
            if console.is_terminal:
                status.update(Text(f"measuring {what}: {images:,} of {of:,} images"))
            elif what not in begun:
                begun.add(what)
                console.print(Text(f"measuring {what} on {of:,} images"), soft_wrap=True)

        yield show
