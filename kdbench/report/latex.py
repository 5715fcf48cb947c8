r"""LaTeX: every table over a group of pairs as a booktabs table of its own, and a document that holds them all.

Bold is what is shown better, and nothing else: the largest mean of many methods is no finding. A table asks for
\usepackage{booktabs} and \usepackage{amssymb}, and shrinks to the width of the text with \usepackage{graphicx}.
"""

from dataclasses import replace

from markupsafe import Markup

from kdbench.report import escape
from kdbench.report.content import Content
from kdbench.report.message import conclusion
from kdbench.report.render import render_template
from kdbench.report.tables import Table, TableCell, group_tables, pair_tables


def documents(content: Content) -> dict[str, str]:
    """The LaTeX sources by file name without its suffix; `report` inputs all the others."""
    tables = [part for group in content.study.groups for table in group_tables(content, group) for part in table.parts]
    for pair in content.study.pairs:
        stem = "".join(sign if sign.isalnum() or sign in "-." else "-" for sign in pair)
        tables += [
            replace(table, name=f"{stem}-{table.name}", title=f"{table.title} on {pair}")
            for table in pair_tables(content, pair)
        ]
    sources: dict[str, str] = {table.name: _source(content, table) for table in tables}
    lines = conclusion(content) if content.has_accuracy else []
    # LaTeX holds back only so many floats, so the template has them begin a page each.
    return sources | {"report": render_template("report.tex", names=list(sources), lines=lines)}


def _source(content: Content, table: Table) -> str:
    """One table; the caption says what it is, n and what is missing."""
    manifest = content.study.manifest
    has_bold = any(cell.shown == "better" for line in table.lines for cell in line)
    bold = " Bold: shown better, after Holm's correction." if has_bold else ""
    return render_template(
        "table.tex",
        name=table.name,
        caption=f"{manifest['suite']} ({manifest['protocol']}). {table.title}. {table.note}{bold}",
        columns=table.columns,
        lines=[[_emphasised(cell) for cell in line] for line in table.lines],
    )


def _emphasised(cell: TableCell) -> Markup:
    escaped = escape.latex(cell)
    return Markup(rf"\textbf{{{escaped}}}" if cell.shown == "better" else escaped)
