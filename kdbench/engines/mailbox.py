"""Where a driver and the nodes of a cluster leave word for each other; a process that holds one imports little."""

from typing import Any

from kdbench.engines.display import Progress


class Desk:
    """An actor beside the driver: news of the tasks wait here for the driver, and its wish to stop for them."""

    def __init__(self) -> None:
        self._news: list[tuple[str, Any]] = []
        self._stop = self._over = False

    def begins(self, label: str) -> bool:
        """A task begins on a node; whether it may."""
        if not self._over:
            self._news.append((label, None))
        return not self._over

    def tell(self, label: str, what: Progress | str) -> bool:
        """A task has got on, or something has gone wrong; whether it is to stop."""
        self._news.append((label, what))
        return self._stop

    def collect(self, stop: bool, over: bool) -> list[tuple[str, Any]]:
        """The news since the last time.

        Args:
            stop: whether what runs is to stop.
            over: whether nothing new is to begin.
        """
        self._stop, self._over = stop, over
        news, self._news = self._news, []
        return news
