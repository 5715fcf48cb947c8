"""A drawn figure as a part of a page: its title and caption cut away, colours by theme, a word for each mark."""

import re
from xml.etree import ElementTree

from markupsafe import Markup

from kdbench.report.drawing.layout import Drawing
from kdbench.report.drawing.style import DARK

SVG, LINK = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}href"
POINT = 72
"""Units of an inch in matplotlib's SVG."""
_COLOUR = re.compile("|".join(map(re.escape, DARK)))
_REFERENCE = re.compile(r"(?<=url\(#)[^)]+")
_DIGITS = re.compile(r"(\.\d\d)\d+")
"""What a coordinate tells below a hundredth of a point."""
_UNWANTED = {f"{SVG}metadata", f"{SVG}style"}
"""A style element would be of the whole page."""
_MARKS = {f"{SVG}use", f"{SVG}path"}

ElementTree.register_namespace("", SVG[1:-1])
ElementTree.register_namespace("xlink", LINK[1:-5])


def inline(name: str, title: str, drawing: Drawing, source: bytes) -> Markup:
    """The SVG element for a page.

    Args:
        name: of the figure; ids begin with it, as several figures share a page.
        title: what it is called where it cannot be seen.
        drawing: tells what its marks say.
        source: the SVG file of it.
    """
    root = ElementTree.fromstring(source)
    width, height = (inches * POINT for inches in drawing.get_size_inches())
    head, foot = drawing.head * POINT, drawing.foot * POINT
    root.attrib = {
        "viewBox": f"0 {head:g} {width:g} {height - head - foot:g}",
        "width": f"{width * 4 / 3:.0f}",
        "height": f"{(height - head - foot) * 4 / 3:.0f}",
        "style": f"--width:{width * 4 / 3:.0f}px",
        "role": "img",
        "aria-label": title,
    }
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in _UNWANTED or child.get("id") in ("title", "caption"):
                # A glyph is defined where it comes first, for all that follow.
                root.extend(child.iter(f"{SVG}defs") if child.tag == f"{SVG}g" else [])
                parent.remove(child)
    for group in root.iter(f"{SVG}g"):
        tips = drawing.tips.get(group.get("id", ""))
        # What lies beyond its axis is not drawn.
        if tips is not None and (marks := _marks(group)):
            for mark, tip in zip(marks, tips, strict=True):
                mark.set("data-tip", tip)
    _shorten(root, name)
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def theme() -> Markup:
    """The colours of the figures on a light and on a dark page, as CSS declarations."""
    return Markup("".join(f"{_variable(light)}:light-dark({light},{dark});" for light, dark in DARK.items()))


def _marks(group: ElementTree.Element) -> list[ElementTree.Element]:
    """What is seen of a group, in order; shapes that are only defined are not."""
    found = []
    for child in group:
        if child.tag in _MARKS:
            found.append(child)
        elif child.tag != f"{SVG}defs":
            found += _marks(child)
    return found


def _shorten(root: ElementTree.Element, name: str) -> None:
    """Keep only ids that are used, make them unique on the page, and colours variables; drop what nobody sees."""
    used = {reference for element in root.iter() for reference in _references(element)}
    for element in root.iter():
        element.text = element.tail = None
        if element.get("id") not in used:
            element.attrib.pop("id", None)
        for key, value in element.attrib.items():
            if key == "id":
                element.set(key, f"{name}-{value}")
            elif key == LINK:
                element.set(key, f"#{name}-{value[1:]}" if value.startswith("#") else value)
            elif key == "clip-path":
                element.set(key, _REFERENCE.sub(lambda found: f"{name}-{found[0]}", value))
            elif key == "style":
                element.set(key, _COLOUR.sub(lambda found: f"var({_variable(found[0])})", value))
            elif key in ("d", "x", "y"):
                element.set(key, _DIGITS.sub(r"\1", value))


def _references(element: ElementTree.Element) -> list[str]:
    """The ids that an element refers to."""
    return [element.get(LINK, "#")[1:], *_REFERENCE.findall(element.get("clip-path", ""))]


def _variable(colour: str) -> str:
    return f"--c{colour[1:]}"
