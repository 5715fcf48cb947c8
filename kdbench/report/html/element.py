"""Elements of a page: whatever is not an element already is escaped."""

from collections.abc import Iterable
from html import escape


class Html(str):
    """Markup; all other strings are text."""

    __slots__ = ()


Child = str | Iterable["Child"]

_EMPTY = {"input", "meta", "br"}


def element(name: str, /, *children: Child, **attributes: str | bool | None) -> Html:
    """`<name attributes>children</name>`.

    Args:
        name: of the element.
        children: text, elements, or several of them.
        attributes: `class_` is class, `data_x` data-x; True stands without a value, False and None are left out.
    """
    told = "".join(
        f" {key.rstrip('_').replace('_', '-')}" + ("" if value is True else f'="{escape(value, quote=True)}"')
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    if name in _EMPTY:
        return Html(f"<{name}{told}>")
    return Html(f"<{name}{told}>{html(children)}</{name}>")


def html(child: Child) -> Html:
    """The markup of a child: elements as they are, text escaped, several one after another."""
    if isinstance(child, Html):
        return child
    if isinstance(child, str):
        return Html(escape(child, quote=False))
    return Html("".join(map(html, child)))
