"""What names may be: those that are shown, and those that become parts of paths and of command lines.

Listings check names, too, so that nothing heavy is imported here.
"""

from functools import lru_cache

LONGEST_NAME = 120
"""Bytes: the names of two models make a file name, of which file systems take 255."""

_remembered = lru_cache(maxsize=4096)
"""Of 10,000 records most say the same few names; looking at each again would be a tenth of reading them."""


@_remembered
def printable(text: str) -> str:
    """`text`, all of which can be shown.

    Raises:
        ValueError: it has a character that cannot be printed.
    """
    if not text.isprintable():
        raise ValueError("has a character that cannot be printed")
    return text


def shown_name(name: str, longest: int = LONGEST_NAME) -> str:
    """`name`, which is shown, and becomes a file's by `slug`.

    Raises:
        ValueError: it may not, with the reason.
    """
    if not printable(name).strip():
        raise ValueError("is empty")
    if len(name.encode()) > longest:
        raise ValueError(f"has more than {longest} bytes")
    return name


@_remembered
def pair_name(name: str) -> str:
    """The name of a pair, which is as long as those of two models and a colon.

    Raises:
        ValueError: it may not be shown, with the reason.
    """
    return shown_name(name, 2 * LONGEST_NAME + 1)


def split_request(request: str, sign: str = ",") -> list[str]:
    """The parts of a request such as `hetero,vit-t:resnet18[layers=[1,1,1,1]]`, cut at signs outside brackets."""
    parts, depth = [""], 0
    for letter in request:
        depth += (letter == "[") - (letter == "]")
        if letter == sign and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts if part.strip()]


def pair_ends(pair: str) -> tuple[str, str]:
    """The teacher and the student of a pair by its name, in which overrides in brackets may hold colons, too."""
    teacher, student = split_request(pair, ":")
    return teacher, student


@_remembered
def plain_name(name: str) -> str:
    """`name`, which may become a part of a path and of a command line.

    Raises:
        ValueError: it may not, with the reason.
    """
    for sign in "/\\:":
        if sign in shown_name(name):
            raise ValueError(f"has a {sign!r}")
    if name[0] in ".-" or name != name.strip():
        raise ValueError("begins with a dot, a dash or a blank, or ends with a blank")
    return name


def slug(name: str) -> str:
    """The name of a pair or model in a path: no colon (illegal on some systems) and no slash."""
    return name.replace(":", "--").replace("/", "_")


def plural(number: int, noun: str) -> str:
    """`1 seed`, `3 seeds`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
