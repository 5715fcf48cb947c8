r"""LaTeX: every table over a group of pairs as a booktabs table of its own, and a document that holds them all.

The best value of a column is bold, the second underlined, among the methods with a mean. A table asks for
\usepackage{booktabs} and \usepackage{amssymb}, and shrinks to the width of the text with \usepackage{graphicx}.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import replace

from kdbench.errors import one_line
from kdbench.report import text
from kdbench.report.content import Content
from kdbench.report.sections import Section, group_sections, pair_sections

DOCUMENT = r"""\documentclass{article}
\usepackage[a4paper,landscape,margin=15mm]{geometry}
\usepackage[T1]{fontenc}
\usepackage{booktabs,amssymb,graphicx}
\begin{document}
%s
\end{document}
"""

_SIGNS = {
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": "$<$",
    ">": "$>$",
    "*": "$^{*}$",
    "±": r"$\pm$",
    "▲": r"$^{\blacktriangle}$",
    "▼": r"$^{\blacktriangledown}$",
}
_MINUS = re.compile(r"(?<![\w-])-(?=\d)")


def documents(content: Content) -> dict[str, str]:
    """The LaTeX sources by file name without its suffix; `report` inputs all the others."""
    found = {}
    for group in content.study.groups:
        found |= {section.name: table(content, section) for section in group_sections(content, group)}
    for pair in content.study.pairs:
        stem = "".join(sign if sign.isalnum() or sign in "-." else "-" for sign in pair)
        for section in pair_sections(content, pair):
            own = replace(section, name=f"{stem}-{section.name}", title=f"{section.title} on {pair}")
            found[own.name] = table(content, own)
    # LaTeX holds back only so many floats.
    inputs = "\n\\clearpage\n".join(f"\\input{{{name}}}" for name in found)
    return found | {"report": DOCUMENT % inputs}


def table(content: Content, section: Section) -> str:
    """One table; the caption says what it is, n and what is missing."""
    rows = section.rows
    names = [str(name) for name in rows.columns]
    cells = {name: [escape(str(cell)) for cell in rows[name].tolist()] for name in names}
    for name in names:
        if name in section.scores:
            cells[name] = _emphasised(cells[name], section.scores[name])
    manifest = content.study.manifest
    caption = f"{manifest['suite']} ({manifest['protocol']}). {section.title}. {section.under}"
    return "\n".join(
        [
            r"\begin{table}[p]",
            r"\centering",
            f"\\caption{{{escape(caption)}}}",
            f"\\label{{tab:{section.name}}}",
            r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
            f"\\begin{{tabular}}{{l{'r' * (len(names) - 1)}}}",
            r"\toprule",
            " & ".join(map(escape, names)) + r" \\",
            r"\midrule",
            *(" & ".join(cells[name][i] for name in names) + r" \\" for i in range(len(rows))),
            r"\bottomrule",
            r"\end{tabular}}",
            r"\end{table}",
            "",
        ]
    )


def escape(words: str) -> str:
    """Free text as LaTeX prints it; the sign of a negative number is a minus, what stands for nothing a dash."""
    if words == text.NONE:
        return "--"
    escaped = _MINUS.sub("$-$", "".join(_SIGNS.get(sign, sign) for sign in one_line(words)))
    # Behind the end of a row, a bracket would begin its height.
    return f"{{}}{escaped}" if escaped.startswith("[") else escaped


def _emphasised(cells: list[str], scores: Sequence[float]) -> list[str]:
    """Bold for the best and underlined for the second, equal cells alike; nothing to mark where one is alone."""
    known = sorted({score for score in scores if not math.isnan(score)}, reverse=True)
    if len(known) < 2:
        return cells
    marks = {known[0]: r"\textbf", known[1]: r"\underline"}
    return [f"{marks[score]}{{{cell}}}" if score in marks else cell for cell, score in zip(cells, scores, strict=True)]
