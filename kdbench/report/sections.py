"""The tables of a report with their titles and what stands under each, one home for terminal, Markdown and LaTeX."""

import math
from dataclasses import dataclass, field

import pandas as pd

from kdbench.analysis.stats import POWER
from kdbench.report import text
from kdbench.report.content import Content
from kdbench.report.notes import accuracy_scope, cost_scope
from kdbench.report.tables import (
    accuracy_table,
    cost_table,
    equal_time_matrix,
    gain_matrix,
    headline,
    of_open_division,
    published_matrix,
    published_table,
    speed_matrix,
)
from kdbench.results.study import Group


@dataclass(frozen=True)
class Section:
    """A table of text.

    Attributes:
        name: of its file, where it has one of its own.
        under: n and what is missing.
        scores: by column, the numbers behind its cells (higher is better, NaN takes no part), for what marks the best.
    """

    name: str
    title: str
    rows: pd.DataFrame
    under: str
    scores: dict[str, list[float]] = field(default_factory=dict)


def group_sections(content: Content, group: Group, full: bool = True) -> list[Section]:
    """The tables over the pairs of a group; `full`: with tests, and intervals on every pair."""
    study = content.study
    pairs = study.groups[group]
    over = text.plural(len(pairs), f"{group} pair")
    if not content.has_accuracy:
        sections = [
            Section(
                f"{group}-speed",
                f"Training images/s relative to {study.control or 'the control'} on each of {over}",
                speed_matrix(content, pairs),
                cost_scope(content, pairs),
                {pair: [_speed(content, pair, method) for method in study.methods] for pair in pairs},
            )
        ]
        if content.open is not None:
            rows = of_open_division(content.open, speed_matrix(content.open, pairs))
            sections.append(Section(f"{group}-open", text.OPEN_DIVISION, rows, cost_scope(content.open, pairs)))
        return sections
    scope = accuracy_scope(content, pairs)
    seeds = text.plural(len(study.manifest["seeds"]), "seed")
    sections = [
        Section(
            f"{group}-mean",
            f"Mean over {over}, {seeds}",
            headline(content, group, full),
            f"{scope} {_sensitivity(content, group)}".strip(),
            _headline_scores(content, group),
        ),
        Section(
            f"{group}-gain",
            f"Gain on each of {over}, {seeds}",
            gain_matrix(content, pairs, ends=full),
            scope,
            {pair: [_gain(content, pair, method) for method in study.methods] for pair in pairs},
        ),
    ]
    if content.equal_times:
        title = f"Gain over {study.control} trained for the same time (its epochs), {over}, {seeds}"
        sections.append(Section(f"{group}-equal-time", title, equal_time_matrix(content, group, ends=full), scope))
    for of_gain in (False, True):
        published = published_matrix(content, pairs, of_gain)
        if len(published):
            title = text.published_title(content.own_published, of_gain)
            name = f"{group}-published-{'gain' if of_gain else 'top1'}"
            sections.append(Section(name, f"{title[0].upper()}{title[1:]}", published, f"Ours: {scope}"))
    if content.open is not None:
        rows = of_open_division(content.open, headline(content.open, group, full))
        sections.append(Section(f"{group}-open", text.OPEN_DIVISION, rows, accuracy_scope(content.open, pairs)))
    return sections


def pair_sections(content: Content, pair: str) -> list[Section]:
    """The tables of one pair."""
    sections = []
    if content.has_accuracy:
        scope = accuracy_scope(content, [pair])
        scores = {"gain": [_gain(content, pair, method) for method in content.study.methods]}
        sections.append(Section("accuracy", "Accuracy", accuracy_table(content, pair), scope, scores))
        published = published_table(content, pair)
        if len(published):
            sections.append(Section("published", "Published", published, f"Ours: {scope}"))
    if content.has_throughput:
        sections.append(Section("cost", "Cost", cost_table(content, pair), cost_scope(content, [pair])))
    return sections


def _headline_scores(content: Content, group: Group) -> dict[str, list[float]]:
    study = content.study
    others = [method if method != study.control else None for method in study.methods]
    gains = [content.group_gains[group, method] if method else None for method in others]
    costs = [content.group_costs[group, method] if method else None for method in others]
    return {
        "gain": [row.gain.value if row else math.nan for row in gains],
        f"over {study.baseline}": [row.gain_baseline.value if row else math.nan for row in gains],
        f"beats {study.baseline}": [row.improvement.value if row else math.nan for row in gains],
        "rank": [-row.rank.value if row else math.nan for row in gains],
        f"speed/{study.control or 'control'}": [cost.to_control if cost else math.nan for cost in costs],
        f"speed/{study.baseline}": [cost.to_baseline if cost else math.nan for cost in costs],
    }


def _gain(content: Content, pair: str, method: str) -> float:
    return math.nan if method == content.study.control else content.gains[pair, method].gain.value


def _speed(content: Content, pair: str, method: str) -> float:
    return math.nan if method == content.study.control else content.costs[pair, method].to_control.value


def _sensitivity(content: Content, group: Group) -> str:
    """What gain a study of this size finds, and one of more seeds."""
    row = content.sensitivities[group]
    known = {seeds: gain for seeds, gain in row.detectable.items() if not math.isnan(gain)}
    if not known:
        return ""
    (own, gain), *others = known.items()
    more = f" ({', '.join(f'{other:.2f} with {seeds}' for seeds, other in others)} seeds)" if others else ""
    return (
        f"Smallest gain that {POWER:.0%} of such studies would find: {gain:.2f} points{more}; spread of a gain "
        f"over the {own} seeds {row.sigma:.2f}, {text.plural(row.tests, 'test')} corrected by Holm."
    )
