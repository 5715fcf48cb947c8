"""The sections of a page, in their order: a function that says what there is to tell, and templates that write it."""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from kdbench.report import message, text
from kdbench.report.cards import cards, what_was_run
from kdbench.report.content import Content
from kdbench.report.explorer import measures
from kdbench.report.facts import facts
from kdbench.report.notes import legends
from kdbench.report.render import has_template, render_template
from kdbench.report.tables import group_tables, pair_tables, teacher_table
from kdbench.results.study import Group

MANY = 10
"""Of more methods than these, a page folds the figures that are not about the result."""
FIELDS = ["kdbench", "git", "device", "cores", "threads", "precision", "python", "torch", "timm", "cuda", "variables"]
"""What is told of an environment, where its records have it."""


@dataclass(frozen=True)
class Figure:
    """A figure as a page shows it.

    Attributes:
        path: of its SVG file, seen from the page.
        tabled: whether a table of report.md says the same.
        explained: its own caption: what is drawn, and of which records.
        svg: the element for report.html, empty where that is not written.
        caption: what stands under it there.
        csv: its numbers, as base64.
    """

    name: str
    title: str
    path: str
    tabled: bool
    explained: str = ""
    svg: str = ""
    caption: str = ""
    csv: str = ""


@dataclass(frozen=True)
class Page:
    """What the sections tell of: the study, its figures by name in their order, and notes of a line each."""

    content: Content
    figures: Mapping[str, Figure]
    notes: Sequence[str]


@dataclass(frozen=True)
class Section:
    """A part of a page.

    Attributes:
        name: its id on report.html, and its templates: `sections/<name>.html` and `sections/<name>.md`. The pages of a
            format that it has no template for do without it.
        title: what stands over it.
        values: what its templates are given; nothing leaves the section out.
    """

    name: str
    title: str
    values: Callable[[Page], dict[str, Any]]


def written(page: Page, suffix: str) -> list[tuple[Section, Markup]]:
    """The sections of a page and what they say, in the language of the suffix."""
    return [
        (section, render_template(name, **values).strip())
        for section in SECTIONS
        if has_template(name := f"sections/{section.name}.{suffix}") and (values := section.values(page))
    ]


def _summary(page: Page) -> dict[str, Any]:
    content = page.content
    if not content.has_accuracy:
        return {}
    return {
        "so_far": text.so_far(content.study),
        "headlines": _by_group(content, lambda group: [message.headline(content, group)]),
        "basis": message.basis(content),
        "advice": message.advice(content),
        "figure": page.figures.get("headline"),
        "best": _by_group(content, lambda group: [message.best(content, group), *message.choice(content, group)]),
    }


def _by_group(content: Content, told: Callable[[Group], list[str]]) -> list[tuple[str, list[str]]]:
    """What is told of each group of pairs, after its name where there are several."""
    several = len(content.study.groups) > 1
    return [
        (f"{text.plural(len(pairs), f'{group} pair')}: " if several else "", [line for line in told(group) if line])
        for group, pairs in content.study.groups.items()
    ]


def _choice(page: Page) -> dict[str, Any]:
    return {"lines": message.conclusion(page.content)} if page.content.has_accuracy else {}


def _tradeoff(page: Page) -> dict[str, Any]:
    return {"figure": page.figures["tradeoff"]} if "tradeoff" in page.figures else {}


def _table(page: Page) -> dict[str, Any]:
    content = page.content
    if not content.has_accuracy:
        return {}
    tables = [
        table
        for group in content.study.groups
        for table in group_tables(content, group)
        if table.name != f"{group}-gain"
    ]
    known = facts(content)
    closed = [fact for method, fact in known.items() if method in content.study.methods]
    kinds, shown = Counter(fact.kind for fact in closed if fact.kind), Counter(fact.shown for fact in closed)
    cheap = sum(fact.cheap for fact in closed)
    chips = [("kind", kind, kind, count) for kind, count in sorted(kinds.items())]
    chips += [("shown", name, _CHIPS[name], shown[name]) for name in _CHIPS if shown[name]]
    if content.study.baseline and cheap:
        chips.append(("cheap", "yes", f"as cheap as {content.study.baseline}", cheap))
    return {"tables": tables, "legends": legends(content), "facts": known, "chips": chips}


_CHIPS = {"better": "shown better", "unclear": "no difference shown", "worse": "shown worse"}


def _views(page: Page) -> dict[str, Any]:
    content = page.content
    return {
        "figure": page.figures.get("heatmap"),
        "tables": measures(content),
        "groups": list(content.study.groups),
        "legend": f"○ published. {text.PUBLISHED_LEGEND}" if content.own_published else "",
        "facts": facts(content),
    }


def _figures(page: Page) -> dict[str, Any]:
    placed = {"headline", "tradeoff", "heatmap"}
    others = [figure for figure in page.figures.values() if figure.name not in placed]
    every = [figure for figure in page.figures.values() if figure.name != "headline"]
    folded = len(page.content.study.methods) > MANY
    return {"figures": others, "every": every, "folded": folded} if page.figures else {}


def _means(page: Page) -> dict[str, Any]:
    groups = {
        text.plural(len(pairs), f"{group} pair"): [
            part for table in group_tables(page.content, group) for part in table.parts
        ]
        for group, pairs in page.content.study.groups.items()
    }
    return {"groups": groups, "legends": legends(page.content)}


def _run(page: Page) -> dict[str, Any]:
    return {"rows": what_was_run(page.content)}


def _cards(page: Page) -> dict[str, Any]:
    return {"cards": cards(page.content)} if page.content.has_accuracy else {}


def _pairs(page: Page) -> dict[str, Any]:
    content = page.content
    pairs = [(pair, _models(content, pair), pair_tables(content, pair)) for pair in content.study.pairs]
    return {"pairs": pairs, "facts": facts(content)}


def _models(content: Content, pair: str) -> str:
    """What is known of the two networks of a pair, where anything is."""
    cells = content.study.cells
    own = cells[cells["pair"] == pair]
    teacher, parameters = own["teacher_top1"].dropna(), own["student_parameters"].dropna()
    told = {row.teacher_top1 for row in content.own_published if row.pair == pair and not math.isnan(row.teacher_top1)}
    published = f" (published: {', '.join(f'{top1:.2f}' for top1 in sorted(told))})" if told else ""
    facts = [f"Teacher top-1 {teacher.iloc[0]:.2f}{published}"] if len(teacher) else []
    facts += [f"student of {text.count(int(parameters.iloc[0]))} parameters"] if len(parameters) else []
    return ", ".join(facts) + "." if facts else ""


def _teachers(page: Page) -> dict[str, Any]:
    table = teacher_table(page.content)
    return {"table": table, "facts": {}} if table.rows else {}


def _environment(page: Page) -> dict[str, Any]:
    found = {
        name: {field: _described(one[field]) for field in FIELDS if one.get(field) not in (None, {})}
        for name, one in page.content.study.environments.items()
    }
    return {"environments": found}


def _described(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {part}" for key, part in sorted(value.items()) if part is not None)
    return str(value)


SECTIONS = (
    Section("summary", "Result", _summary),
    Section("run", "What was run", _run),
    Section("tradeoff", "What more time buys", _tradeoff),
    Section("table", "Methods", _table),
    Section("means", "Means", _means),
    Section("views", "Methods by pairs", _views),
    Section("figures", "More figures", _figures),
    Section("cards", "Each method", _cards),
    Section("teachers", "Which teacher?", _teachers),
    Section("pairs", "Pair by pair", _pairs),
    Section("notes", "Notes", lambda page: {"lines": page.notes}),
    Section("environment", "Environment", _environment),
    Section("command", "Repeat it", lambda page: {"command": page.content.study.manifest["command"]}),
    Section("choice", "Which method should I use?", _choice),
)
"""In the order of a page."""
