r"""LaTeX: every table over a group of pairs as a booktabs table of its own, and a document that holds them all.

The best value of a column is bold, the second underlined, among the methods with a mean. A table asks for
\usepackage{booktabs} and \usepackage{amssymb}, and shrinks to the width of the text with \usepackage{graphicx}.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

from markupsafe import Markup

from kdbench.report import escape
from kdbench.report.content import Content
from kdbench.report.render import render_template
from kdbench.report.tables import Table, TableCell, group_tables, pair_tables


def documents(content: Content) -> dict[str, str]:
    """The LaTeX sources by file name without its suffix; `report` inputs all the others."""
    tables = [table for group in content.study.groups for table in group_tables(content, group)]
    for pair in content.study.pairs:
        stem = "".join(sign if sign.isalnum() or sign in "-." else "-" for sign in pair)
        tables += [
            replace(table, name=f"{stem}-{table.name}", title=f"{table.title} on {pair}")
            for table in pair_tables(content, pair)
        ]
    sources: dict[str, str] = {table.name: _source(content, table) for table in tables}
    # LaTeX holds back only so many floats, so the template has them begin a page each.
    return sources | {"report": render_template("report.tex", names=list(sources))}


def _source(content: Content, table: Table) -> str:
    """One table; the caption says what it is, n and what is missing."""
    manifest = content.study.manifest
    columns = [_emphasised(cells) for cells in zip(*table.lines, strict=True)]
    return render_template(
        "table.tex",
        name=table.name,
        caption=f"{manifest['suite']} ({manifest['protocol']}). {table.title}. {table.note}",
        columns=table.columns,
        lines=list(zip(*columns, strict=True)),
    )


def _emphasised(cells: Sequence[TableCell]) -> list[Markup]:
    """A column, escaped: its best bold and its second underlined, equal cells alike; none where one is alone."""
    best, second, *_ = [*sorted({cell.score for cell in cells if not math.isnan(cell.score)}, reverse=True), None, None]
    marks = {} if second is None else {best: r"\textbf{%s}", second: r"\underline{%s}"}
    return [Markup(marks.get(cell.score, "%s").replace("%s", escape.latex(cell))) for cell in cells]
