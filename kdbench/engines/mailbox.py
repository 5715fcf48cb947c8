"""The mailbox between the driver of a Ray cluster and its nodes; a process that holds one imports little."""

from typing import Any

from kdbench.engines.progress import Progress


class Mailbox:
    """An actor beside the driver: it keeps the news of the tasks for the driver, and its request to stop for them."""

    def __init__(self) -> None:
        self._news: list[tuple[str, Any]] = []
        self._stop = self._closing = False

    def begins(self, label: str) -> bool:
        """A task begins on a node; returns whether it may."""
        if not self._closing:
            self._news.append((label, None))
        return not self._closing

    def tell(self, label: str, what: Progress | str) -> bool:
        """A task has made progress, or something has gone wrong; returns whether it is to stop."""
        self._news.append((label, what))
        return self._stop

    def collect(self, stop: bool, closing: bool) -> list[tuple[str, Any]]:
        """The news since the last time.

        Args:
            stop: whether what runs is to stop.
            closing: whether nothing new is to begin.
        """
        self._stop, self._closing = stop, closing
        news, self._news = self._news, []
        return news
