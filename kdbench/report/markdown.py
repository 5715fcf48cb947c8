"""report.md: the tables, figures and notes as one Markdown page."""

import math
from collections.abc import Sequence

from kdbench.report import text
from kdbench.report.content import Content
from kdbench.report.environment import told
from kdbench.report.escape import block, code, words
from kdbench.report.notes import completeness
from kdbench.report.sections import Section, group_sections, pair_sections
from kdbench.report.tables import markdown


def page(content: Content, figures: Sequence[tuple[str, str]], notes: Sequence[str]) -> str:
    """The whole page.

    Args:
        content: what to tell.
        figures: (relative path, title) of the figures to embed, in order.
        notes: one line each.
    """
    manifest = content.study.manifest
    scale = [text.plural(len(content.study.pairs), "pair")]
    if content.has_accuracy:
        scale.append(f"{text.plural(len(manifest['seeds']), 'seed')}; {completeness(content)}")
    blocks = [
        f"# {words(manifest['suite'])}: {'gain and cost' if content.has_accuracy else 'cost'}",
        f"Protocol {code(manifest['protocol'])}, {', '.join(scale)}.",
    ]
    for group, pairs in content.study.groups.items():
        blocks.append(f"## Over the {text.plural(len(pairs), f'{group} pair')}")
        for section in group_sections(content, group):
            blocks += _table(section, titled=True)
    blocks += [text.LEGEND.replace("*", "\\*"), text.SCOPE] if content.has_accuracy else [text.SPEED_LEGEND]
    if content.own_published:
        blocks.append(text.PUBLISHED_LEGEND)
    for path, title in figures:
        blocks += [f"## {words(title)}", f"![{words(title)}]({path})"]
    blocks.append("## Pair by pair")
    for pair in content.study.pairs:
        blocks += _pair(content, pair)
    blocks += ["## Notes", "\n".join(f"* {words(line)}" for line in notes) if notes else "Nothing to note."]
    blocks += ["## Environment", *_environments(content)]
    blocks += ["## Command", block(manifest["command"])]
    return "\n\n".join(blocks) + "\n"


def _table(section: Section, titled: bool) -> list[str]:
    return [*([f"{words(section.title)}:"] if titled else []), markdown(section.rows), words(section.under)]


def _pair(content: Content, pair: str) -> list[str]:
    cells = content.study.cells
    own = cells[cells["pair"] == pair]
    teacher, parameters = own["teacher_top1"].dropna(), own["student_parameters"].dropna()
    told = {row.teacher_top1 for row in content.own_published if row.pair == pair and not math.isnan(row.teacher_top1)}
    published = f" (published: {', '.join(f'{top1:.2f}' for top1 in sorted(told))})" if told else ""
    facts = [f"Teacher top-1 {teacher.iloc[0]:.2f}{published}"] if len(teacher) else []
    facts += [f"student of {text.count(int(parameters.iloc[0]))} parameters"] if len(parameters) else []
    blocks = [f"### {words(pair)}", *([", ".join(facts) + "."] if facts else [])]
    for section in pair_sections(content, pair):
        blocks += _table(section, titled=False)
    return blocks


def _environments(content: Content) -> list[str]:
    tables = []
    for name, environment in content.study.environments.items():
        lines = [f"* {field}: {words(value)}" for field, value in told(environment)]
        tables.append("\n".join([code(name), "", *lines]))
    return tables or ["Not recorded."]
