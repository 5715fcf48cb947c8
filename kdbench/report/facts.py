"""What is known of each method beside its numbers: what it transfers, where it was published, how it was set."""

import math
import re
from dataclasses import dataclass
from typing import Any

from kdbench.analysis.cost import SPEED_MARGIN
from kdbench.analysis.gains import Standing, standing
from kdbench.report.content import Content
from kdbench.results.schema import MethodNote

_LINKS = (
    (re.compile(r"arXiv (\d{4}\.\d{4,5})"), "https://arxiv.org/abs/"),
    (re.compile(r"OpenReview ([\w-]+)"), "https://openreview.net/forum?id="),
)
"""The only addresses that a page links to: names and numbers of papers, put behind what is known here."""
_YEAR = re.compile(r"(?:19|20)\d\d$")
_NOTHING = MethodNote(kind="", paper="", venue="", summary="", source="")


@dataclass(frozen=True)
class Facts:
    """A method of a study.

    Attributes:
        number: its place, which the page calls its card by.
        kind: what it transfers; empty where the plan does not tell.
        year: of the venue, such as "2022"; empty where it is not known.
        link: the address of the paper; empty where it has none.
        standing: over the pairs of the first group; None without a mean there.
        cheap: whether its step takes no longer than the baseline's.
        settings: the hyperparameters of the records.
    """

    number: int
    kind: str
    year: str
    venue: str
    paper: str
    link: str
    summary: str
    source: str
    standing: Standing | None
    cheap: bool
    settings: dict[str, Any]

    @property
    def shown(self) -> str:
        """The standing in a word, for filters."""
        return "" if self.standing is None else _SHOWN[self.standing]


_SHOWN: dict[Standing, str] = {
    "control": "control",
    "better": "better",
    "not shown": "unclear",
    "worse than baseline": "worse",
    "worse than control": "worse",
}


def facts(content: Content) -> dict[str, Facts]:
    """The facts of every method of both divisions, in the order of the tables."""
    parts = [content] if content.open is None else [content, content.open]
    found: dict[str, Facts] = {}
    for part in parts:
        for method in part.order:
            if method not in found:
                found[method] = _facts(part, method, len(found))
    return found


def _facts(content: Content, method: str, number: int) -> Facts:
    study, group = content.study, next(iter(content.study.groups))
    note = study.manifest.get("notes", {}).get(method, _NOTHING)
    year = _YEAR.search(note["venue"])
    limit = content.times.get((group, study.baseline or ""), 0.0) * (1 + SPEED_MARGIN)
    own = (record["hyperparameters"] for (_, name, _), record in sorted(study.records.items()) if name == method)
    role, row = study.roles[method], content.group_gains[group, method]
    return Facts(
        number=number,
        kind="" if role == "control" else note["kind"],
        year=year[0] if year else "",
        venue=note["venue"],
        paper=note["paper"],
        link=next((start + match[1] for form, start in _LINKS if (match := form.fullmatch(note["paper"]))), ""),
        summary=note["summary"],
        source=note["source"],
        standing=None if math.isnan(row.gain.value) else standing(row),
        cheap=content.times[group, method] <= limit,
        settings=next(own, {}),
    )
