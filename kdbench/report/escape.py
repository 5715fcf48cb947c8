"""Words of records, suites and plug-ins in Markdown and LaTeX: they stay words, in one line, whatever is in them."""

import re

from kdbench.errors import one_line
from kdbench.report.text import NONE

_LATEX = {
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": "$<$",
    ">": "$>$",
    "*": "$^{*}$",
    "±": r"$\pm$",
    "†": r"$^{\dagger}$",
    "▲": r"$^{\blacktriangle}$",
    "▼": r"$^{\blacktriangledown}$",
}
_MINUS = re.compile(r"(?<![\w-])-(?=\d)")


def words(text: str) -> str:
    """Markdown: free text in a paragraph, a heading or a list."""
    return _escaped(text, "\\`*_<[|")


def cell(text: str) -> str:
    """Markdown: the text of a cell of a table; brackets stay, as intervals have them, but never make a link."""
    return _escaped(text, "\\`*|").replace("<", "&lt;").replace("](", "]\\(")


def code(text: str) -> str:
    """Markdown: text in a line of code."""
    return f"`{one_line(text).replace('`', chr(39))}`"


def block(text: str) -> str:
    """Markdown: a block of code, which nothing in the text ends."""
    return f"```\n{one_line(text).replace('```', chr(39) * 3)}\n```"


def latex(text: str) -> str:
    """LaTeX: the sign of a negative number is a minus, what stands for nothing a dash."""
    if text == NONE:
        return "--"
    escaped = _MINUS.sub("$-$", "".join(_LATEX.get(sign, sign) for sign in one_line(text)))
    # Behind the end of a row, a bracket would begin its height.
    return f"{{}}{escaped}" if escaped.startswith("[") else escaped


def _escaped(text: str, signs: str) -> str:
    line = one_line(text)
    for sign in signs:
        line = line.replace(sign, f"\\{sign}")
    return line
