"""What a running task says of itself."""

from collections.abc import Callable
from dataclasses import dataclass

from kdbench.results.schema import Status


@dataclass
class MemberState:
    """How a member of a task stands: its last loss, its last top-1 in percent, and its status once it has ended."""

    name: str
    loss: float | None = None
    top1: float | None = None
    status: Status | None = None


@dataclass(frozen=True)
class Progress:
    """How far a task is: its label, the share that is done in [0, 1], and its members."""

    label: str
    share: float
    members: tuple[MemberState, ...] = ()


@dataclass
class _Running:
    """A task that runs: its weight, the share of it that is done, and when (in seconds) it was at its first share."""

    weight: float
    share: float
    first: float
    since: float

    def seconds_left(self, now: float, usual: float) -> float:
        """At its own pace, or where that is not known yet at the `usual` number of seconds for a unit of weight."""
        done = self.share - self.first
        own = (now - self.since) / done if done > 0.03 else usual * self.weight
        return own * (1 - self.share)


class Pace:
    """How much of the work of a phase is done, and how long the rest takes at the pace so far.

    What was there before (restored from checkpoints, left to other runs) is done, but says nothing of the pace.

    Args:
        total: the weight of all tasks.
    """

    def __init__(self, total: float) -> None:
        self._total = max(1.0, total)
        self._ended = 0.0
        self._given = 0.0
        self._running: dict[str, _Running] = {}
        self._side_by_side = 1

    def update(self, label: str, weight: float, share: float, now: float) -> None:
        """Tell that the share in [0, 1] of a task is done, `now` seconds after the begin of the phase.

        What the first report of a task tells was there before.
        """
        task = self._running.get(label)
        if task is None or share < task.share:
            self._given += weight * share
            task = self._running[label] = _Running(weight, share, share, now)
            self._side_by_side = max(self._side_by_side, len(self._running))
        task.share = share

    def finished(self, label: str, weight: float) -> None:
        """A task has ended."""
        self._running.pop(label, None)
        self._ended += weight

    def dropped(self, weight: float) -> None:
        """So much of the work is not to be done here."""
        self._ended += weight
        self._given += weight

    @property
    def _done(self) -> float:
        return self._ended + sum(task.weight * task.share for task in self._running.values())

    @property
    def share(self) -> float:
        """The share of all work that is done, in [0, 1]."""
        return min(1.0, self._done / self._total)

    def seconds_left(self, now: float) -> float | None:
        """Seconds until all is done, `now` seconds after the begin; None where too little is known."""
        done = self._done - self._given
        if done <= 0.01 * (self._total - self._given):
            return None
        usual = now * self._side_by_side / done
        waiting = self._total - self._ended - sum(task.weight for task in self._running.values())
        left = [task.seconds_left(now, usual) for task in self._running.values()]
        # At the end fewer tasks than before run side by side, and the longest of them decides.
        return max([*left, (sum(left) + max(0.0, waiting) * usual) / self._side_by_side])


Emit = Callable[[Progress], None]
"""Is called with the progress of a task."""
