"""The part of a run that one command of several does."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Share:
    """The `number`-th (from 1) of `of` parts; by default all of it."""

    number: int = 1
    of: int = 1

    @property
    def whole(self) -> bool:
        """There are no other parts."""
        return self.of == 1

    def holds(self, place: int) -> bool:
        """Whether what stands at `place` (from 0) is in it."""
        return place % self.of == self.number - 1

    def __str__(self) -> str:
        return f"shard {self.number}/{self.of}"
