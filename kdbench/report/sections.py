"""The sections of a page, in their order: a function that says what there is to tell, and templates that write it."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from kdbench.report import text
from kdbench.report.content import Content
from kdbench.report.explorer import measures
from kdbench.report.notes import legends
from kdbench.report.render import has_template, render_template
from kdbench.report.tables import group_tables, pair_tables

FIELDS = ["kdbench", "git", "device", "cores", "threads", "precision", "python", "torch", "timm", "cuda", "variables"]
"""What is told of an environment, where its records have it."""


@dataclass(frozen=True)
class Figure:
    """A figure as a page shows it.

    Attributes:
        path: of its SVG file, seen from the page.
        tabled: whether a table of report.md says the same.
        svg: the element for report.html, empty where that is not written.
        caption: what stands under it.
        csv: its numbers, as base64.
    """

    name: str
    title: str
    path: str
    tabled: bool
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


def _table(page: Page) -> dict[str, Any]:
    content = page.content
    lines = [f"○ published. {line}" if line == text.PUBLISHED_LEGEND else line for line in legends(content)]
    return {"tables": measures(content), "groups": list(content.study.groups), "legend": " ".join(lines)}


def _means(page: Page) -> dict[str, Any]:
    groups = {
        text.plural(len(pairs), f"{group} pair"): group_tables(page.content, group)
        for group, pairs in page.content.study.groups.items()
    }
    return {"groups": groups, "legends": legends(page.content)}


def _pairs(page: Page) -> dict[str, Any]:
    content = page.content
    return {"pairs": [(pair, _facts(content, pair), pair_tables(content, pair)) for pair in content.study.pairs]}


def _facts(content: Content, pair: str) -> str:
    """What is known of the two networks of a pair, where anything is."""
    cells = content.study.cells
    own = cells[cells["pair"] == pair]
    teacher, parameters = own["teacher_top1"].dropna(), own["student_parameters"].dropna()
    told = {row.teacher_top1 for row in content.own_published if row.pair == pair and not math.isnan(row.teacher_top1)}
    published = f" (published: {', '.join(f'{top1:.2f}' for top1 in sorted(told))})" if told else ""
    facts = [f"Teacher top-1 {teacher.iloc[0]:.2f}{published}"] if len(teacher) else []
    facts += [f"student of {text.count(int(parameters.iloc[0]))} parameters"] if len(parameters) else []
    return ", ".join(facts) + "." if facts else ""


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
    Section("table", "Methods by pairs", _table),
    Section("means", "Means", _means),
    Section("figures", "Figures", lambda page: {"figures": list(page.figures.values())} if page.figures else {}),
    Section("pairs", "Pair by pair", _pairs),
    Section("notes", "Notes", lambda page: {"lines": page.notes}),
    Section("environment", "Environment", _environment),
    Section("command", "Command", lambda page: {"command": page.content.study.manifest["command"]}),
)
"""In the order of a page."""
