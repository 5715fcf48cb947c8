"""Words of records, suites and plug-ins in Markdown: they stay words, in one line, whatever is in them."""

from kdbench.errors import one_line


def words(text: str) -> str:
    """Free text in a paragraph, a heading or a list."""
    return _escaped(text, "\\`*_<[|")


def cell(text: str) -> str:
    """The text of a cell of a table; brackets stay, as intervals have them, but never make a link."""
    return _escaped(text, "\\`*|").replace("<", "&lt;").replace("](", "]\\(")


def code(text: str) -> str:
    """Text in a line of code."""
    return f"`{one_line(text).replace('`', chr(39))}`"


def block(text: str) -> str:
    """A block of code, which nothing in the text ends."""
    return f"```\n{one_line(text).replace('```', chr(39) * 3)}\n```"


def _escaped(text: str, signs: str) -> str:
    line = one_line(text)
    for sign in signs:
        line = line.replace(sign, f"\\{sign}")
    return line
