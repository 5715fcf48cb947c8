"""Which method to use, as far as the committed records tell: `python docs/tools/choosing.py docs/choosing.md`."""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from kdbench.analysis.choice import MethodChoice, choices
from kdbench.analysis.cost import SPEED_MARGIN, group_costs, pair_costs
from kdbench.report import text
from kdbench.report.content import Content, collect
from kdbench.report.message import conclusion, trained_on, tuning
from kdbench.results.folder import Results
from kdbench.results.study import Group, Study, load_study

RESULTS = Path(__file__).parents[2] / "results" / "reference"

PAGE = """\
# Which method should I use?

What the committed records say, as `python docs/tools/choosing.py docs/choosing.md` found it. The last lines of every
report say the same of your own run: that run, on your data and your networks, is the answer that counts.

A method **may be the best** where no other method is shown better than it: each is tested against each by the t-test
over pairs and seeds, at 5 % divided by the number of its rivals, so that the truly best method is in the set in at
least 95 % of such studies. The largest mean alone says little: among thirty equally good methods one is the largest by
chance. The set is large where a study is small. Training alone is one of the methods; the cheapest of the set are those
with the shortest training step, within {margin:.0%}.

{sections}
"""


def page(folders: Sequence[Path]) -> str:
    """The page about the studies in these folders."""
    sections = [section(collect(load_study(Results(folder)))) for folder in folders]
    return PAGE.format(margin=SPEED_MARGIN, sections="\n\n".join(sections))


def section(content: Content) -> str:
    """What one study says: over all pairs, then for each kind of student."""
    manifest = content.study.manifest
    lines = [f"## On {manifest['suite']}: {', '.join(trained_on(content))}, {tuning(content)}", *conclusion(content)]
    rows = [_row("all", content.study, content.choices[group], group) for group in content.study.groups]
    for kind, pairs in _by_kind(content.study).items():
        part = narrowed(content.study, pairs)
        found = {row.group: row for row in choices(part, group_costs(part, pair_costs(part)))}
        rows += [_row(kind, part, found[group], group) for group in part.groups]
    table = ["| student | pairs | may be the best | the cheapest of these |", "|---|---|---|---|", *rows]
    return "\n\n".join([*lines, "\n".join(table)])


def narrowed(study: Study, pairs: Sequence[str]) -> Study:
    """The same about some of the pairs."""
    manifest = study.manifest
    return replace(
        study,
        manifest={
            **manifest,
            "pairs": list(pairs),
            "hetero": [pair for pair in manifest["hetero"] if pair in pairs],
            "cells": [cell for cell in manifest["cells"] if cell["pair"] in pairs],
            "throughput": [one for one in manifest["throughput"] if one["pair"] in pairs],
        },
        records={key: record for key, record in study.records.items() if key[0] in pairs},
        measurements={place: record for place, record in study.measurements.items() if place[0] in pairs},
    )


def _by_kind(study: Study) -> dict[str, list[str]]:
    """The pairs by the kind of their student, in the order of the study."""
    kinds = {key[0]: record["student"]["kind"] for key, record in study.records.items()}
    found: dict[str, list[str]] = {}
    for pair in study.pairs:
        found.setdefault(kinds.get(pair, "unknown"), []).append(pair)
    return found


def _row(student: str, study: Study, choice: MethodChoice, group: Group) -> str:
    pairs = text.plural(len(study.groups[group]), f"{group} pair")
    few, many = len(choice.candidates), len(choice.methods)
    candidates = ", ".join(choice.candidates) if few < many else f"all {many}: nothing is shown"
    return f"| {student} | {pairs} | {candidates} | {', '.join(choice.cheapest) or '-'} |"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(
        page(sorted(path.parent for path in RESULTS.glob("*/manifest.json"))), encoding="utf-8"
    )
