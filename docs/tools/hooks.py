"""What mkdocs does not do by itself: the site takes in the files of the repository that its pages link to.

README.md is the home page. Markdown becomes a page, code a page that shows it, anything else (figures, tables) is
copied; so links work in the repository and on the site alike, and a broken one is an error of `mkdocs build --strict`.
"""

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
DOCS, HOME = "docs/", "README.md"
CODE = {".py": "python", ".toml": "toml"}
WIDE = ("methods.md", "models.md", "repository/results/")
"""Pages of wide tables, which have the room of the table of contents."""
LINK = re.compile(r"(?P<before>\]\()(?P<target>[^)\s#]+)(?P<anchor>#[^)\s]*)?\)")
FOLDER = re.compile(r"\[(?P<text>[^\]]+)\]\((?P<target>[^)\s#]+)\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the home page, and what pages link to outside the docs, and what that links to."""
    waiting = [HOME, *(DOCS + file.src_uri for file in files.documentation_pages())]
    known = set(waiting)
    while waiting:
        source = waiting.pop()
        if not source.startswith(DOCS):
            files.append(_taken_in(source, config))
        for target in _targets(source):
            # What lies in the docs mkdocs has found itself.
            if target not in known and not target.startswith(DOCS):
                known.add(target)
                waiting.append(target)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links to files of the repository into links of the site."""
    source = _source(page.file.src_uri)
    here = posixpath.dirname(page.file.src_uri)
    if page.file.src_uri.startswith(WIDE):
        page.meta["hide"] = ["toc"]

    def moved(match: re.Match[str]) -> str:
        target = _resolved(source, match["target"])
        if target is None or not (ROOT / target).is_file():
            return match[0]
        return f"{match['before']}{posixpath.relpath(_place(target), here or '.')}{match['anchor'] or ''})"

    def unlinked(match: re.Match[str]) -> str:
        target = _resolved(source, match["target"])
        return match["text"] if target and (ROOT / target).is_dir() else match[0]

    return LINK.sub(moved, FOLDER.sub(unlinked, markdown))


def _taken_in(source: str, config: MkDocsConfig) -> File:
    path = ROOT / source
    if path.suffix not in CODE:
        return File.generated(config, _place(source), abs_src_path=str(path))
    head = f"---\nsearch:\n  exclude: true\n---\n# {path.name}\n\n"
    code = path.read_text(encoding="utf-8")
    return File.generated(config, _place(source), content=f"{head}`````{CODE[path.suffix]}\n{code}`````\n")


def _targets(source: str) -> Iterator[str]:
    """The files of the repository that a page links to."""
    if source.endswith(".md"):
        for match in LINK.finditer((ROOT / source).read_text(encoding="utf-8")):
            target = _resolved(source, match["target"])
            if target and (ROOT / target).is_file():
                yield target


def _resolved(source: str, target: str) -> str | None:
    """A link of a file as a path in the repository; None where it leads out of it."""
    path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
    return None if ":" in target or path.startswith("..") else path


def _place(source: str) -> str:
    """Where a file of the repository is on the site."""
    if source == HOME:
        return "index.md"
    if source.startswith(DOCS):
        return source.removeprefix(DOCS)
    return f"repository/{source}" + (".md" if Path(source).suffix in CODE else "")


def _source(place: str) -> str:
    """Where a page of the site is from."""
    if place == "index.md":
        return HOME
    if not place.startswith("repository/"):
        return DOCS + place
    path = place.removeprefix("repository/")
    return path if (ROOT / path).is_file() else path.removesuffix(".md")
