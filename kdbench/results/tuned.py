"""The file that `kdbench tune` writes and `kdbench run --tuned` reads; imports no torch."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Any

from typing_extensions import TypedDict

from kdbench.errors import KdbenchError
from kdbench.files import read_json
from kdbench.results.schema import SCHEMA, TunedNote
from kdbench.values import Count, Line, Name, Percent, Title, misfit


class Trial(TypedDict):
    """One setting of a method; `top1` is the mean over pairs of the mean over seeds, None where a cell is not done."""

    trial: Count
    values: dict[str, Any]
    top1: Percent | None


class TunedMethod(TypedDict):
    """How a method was tuned; trial 0 is the setting that it has without. A method without a space has no other."""

    space: dict[str, str]
    source: Line
    trials: list[Trial]
    chosen: Count
    values: dict[str, Any]


class TunedFile(TypedDict):
    """What was tried, on what, and what was chosen."""

    schema: Count
    suite: Name
    protocol: Line
    split: Line
    pairs: list[Title]
    seeds: list[Count]
    trials: Count
    """Draws of every method that has a space."""
    command: str
    methods: dict[Name, TunedMethod]


@dataclass(frozen=True)
class Tuned:
    """The chosen values of every method, and which file they are from."""

    note: TunedNote
    values: dict[str, dict[str, Any]]

    @property
    def label(self) -> str:
        """What the records of a tuned method say."""
        return f"{self.note['file']} {self.note['sha256'][:12]}"


def read_tuned(path: Path, protocol: str, methods: Iterable[str]) -> Tuned:
    """The tuned values of `methods`.

    Raises:
        KdbenchError: not such a file, one of another protocol, or one that tells nothing of a method.
    """
    content: TunedFile = read_json(path)
    if not isinstance(content, dict) or content.get("schema") != SCHEMA or "trials" not in content:
        raise KdbenchError(f"{path} is not a file that `kdbench tune` wrote")
    if problem := misfit(TunedFile, content):
        raise KdbenchError(f"{path} is broken: {problem}; tune again with `kdbench tune`")
    if content["protocol"] != protocol:
        raise KdbenchError(
            f"{path} was tuned under {content['protocol']}, this run is of {protocol}; tune again with `kdbench tune`"
        )
    tuned = content["methods"]
    if missing := [name for name in methods if name not in tuned]:
        every = quote(",".join([*tuned, *missing]))
        raise KdbenchError(
            f"{path} tells nothing of {', '.join(missing)}, and all methods have the same budget; "
            f"add to it with `kdbench tune --trials {content['trials']} --methods {every}`"
        )
    note = TunedNote(file=path.name, sha256=hashlib.sha256(path.read_bytes()).hexdigest(), trials=content["trials"])
    return Tuned(note, {name: tuned[name]["values"] for name in methods})
