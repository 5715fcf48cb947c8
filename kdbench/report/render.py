"""Pages from templates: all text that is put into one is escaped as its language asks, unless it is `Markup`."""

from collections.abc import Callable
from functools import cache, partial
from importlib.resources import files

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from kdbench.report import escape

TEMPLATES = files(__name__.rpartition(".")[0]) / "templates"
_ESCAPES: dict[str, Callable[[str], str]] = {"md": escape.words, "tex": escape.latex}
"""By the suffix of a template; Jinja itself knows HTML."""


def render_template(name: str, /, **values: object) -> Markup:
    """`templates/<name>` with these values; the suffix of the name tells its language (html, md or tex)."""
    return Markup(_environment(name.rpartition(".")[2]).get_template(name).render(values))


def has_template(name: str) -> bool:
    """Whether there is a `templates/<name>`."""
    return (TEMPLATES / name).is_file()


def source(name: str) -> str:
    """The text of `templates/<name>`, which may be a style sheet or a script, too."""
    return (TEMPLATES / name).read_text("utf-8")


@cache
def _environment(suffix: str) -> Environment:
    environment = Environment(
        loader=FunctionLoader(lambda name: (source(name), name, None)),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    if suffix in _ESCAPES:
        environment.finalize = lambda value: _escaped(value, _ESCAPES[suffix])
    if suffix == "md":
        for each in (escape.cell, escape.code, escape.block):
            environment.filters[each.__name__] = partial(_escaped, escape=each)
    if suffix == "tex":
        # Braces, which mark what is put into other templates, are LaTeX's own.
        environment = environment.overlay("<%", "%>", "<<", ">>")
    return environment


def _escaped(value: object, escape: Callable[[str], str]) -> Markup:
    return value if isinstance(value, Markup) else Markup(escape(str(value)))
