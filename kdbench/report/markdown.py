"""report.md: the tables, figures and notes as one Markdown page."""

import math
from collections.abc import Sequence

from kdbench.report import text
from kdbench.report.content import Content
from kdbench.report.notes import completeness, notes
from kdbench.report.tables import (
    accuracy_table,
    cost_table,
    gain_matrix,
    headline,
    markdown,
    open_division,
    published_matrix,
    published_table,
)

FIELDS = (
    "kdbench",
    "git",
    "device",
    "cores",
    "threads",
    "precision",
    "python",
    "torch",
    "timm",
    "cuda",
    "variables",
)
"""What is told of an environment, in this order, where the records have it."""


def page(content: Content, figures: Sequence[tuple[str, str]]) -> str:
    """The whole page.

    Args:
        content: what to tell.
        figures: (relative path, title) of the figures to embed, in order.
    """
    manifest = content.study.manifest
    blocks = [
        f"# {manifest['suite']}: gain and cost",
        f"Protocol `{manifest['protocol']}`, {text.plural(len(content.study.pairs), 'pair')}, "
        f"{text.plural(len(manifest['seeds']), 'seed')}; {completeness(content)}.",
    ]
    for group, pairs in content.study.groups.items():
        blocks += [
            f"## Over the {text.plural(len(pairs), f'{group} pair')}",
            markdown(headline(content, group, full=True)),
            f"n = {text.plural(len(pairs), 'pair')} x {text.plural(len(manifest['seeds']), 'seed')}.",
            markdown(gain_matrix(content, pairs, ends=True)),
            *_published(content, pairs),
        ]
        if len(table := open_division(content, group, full=True)):
            blocks += [f"{text.OPEN_DIVISION}:", markdown(table)]
    blocks += [text.LEGEND.replace("*", "\\*"), text.SCOPE]
    if content.own_published:
        blocks.append(text.PUBLISHED_LEGEND)
    for path, title in figures:
        blocks += [f"## {title}", f"![{title}]({path})"]
    blocks.append("## Pair by pair")
    for pair in content.study.pairs:
        blocks += _pair(content, pair)
    found = notes(content)
    blocks += ["## Notes", "\n".join(f"* {_plain(line)}" for line in found) if found else "Nothing to note."]
    blocks += ["## Environment", *_environments(content)]
    blocks += ["## Command", f"```\n{manifest['command']}\n```"]
    return "\n\n".join(blocks) + "\n"


def _published(content: Content, pairs: list[str]) -> list[str]:
    blocks = []
    for of_gain in (False, True):
        table = published_matrix(content, pairs, of_gain)
        if len(table):
            title = text.published_title(content.own_published, of_gain)
            blocks += [f"{title[0].upper()}{title[1:]}:", markdown(table)]
    return blocks


def _pair(content: Content, pair: str) -> list[str]:
    cells = content.study.cells
    own = cells[cells["pair"] == pair]
    teacher, parameters = own["teacher_top1"].dropna(), own["student_parameters"].dropna()
    told = {row.teacher_top1 for row in content.own_published if row.pair == pair and not math.isnan(row.teacher_top1)}
    published = f" (published: {', '.join(f'{top1:.2f}' for top1 in sorted(told))})" if told else ""
    facts = [f"Teacher top-1 {teacher.iloc[0]:.2f}{published}"] if len(teacher) else []
    facts += [f"student of {text.count(int(parameters.iloc[0]))} parameters"] if len(parameters) else []
    blocks = [f"### {pair}", *([", ".join(facts) + "."] if facts else [])]
    blocks.append(markdown(accuracy_table(content, pair)))
    table = published_table(content, pair)
    if len(table):
        blocks.append(markdown(table))
    if content.has_throughput:
        blocks.append(markdown(cost_table(content, pair)))
    return blocks


def _environments(content: Content) -> list[str]:
    tables = []
    for name, environment in content.study.environments.items():
        told = [(field, environment[field]) for field in FIELDS if environment.get(field) not in (None, {})]
        lines = [f"* {field}: {_plain(_value(value))}" for field, value in told]
        tables.append("\n".join([f"`{name}`", "", *lines]))
    return tables or ["Not recorded."]


def _value(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {part}" for key, part in sorted(value.items()) if part is not None)
    return str(value)


def _plain(line: str) -> str:
    """A line of free text (an error, say) with the signs of Markdown escaped."""
    for sign in "\\`*_<[":
        line = line.replace(sign, f"\\{sign}")
    return line
