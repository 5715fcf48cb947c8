"""The glossary: every term once, in alphabetical order within its part, explained elsewhere, and used by the docs."""

import re

import pytest

from tests.docs.commands import GENERATED, PAGES, ROOT

GLOSSARY = "docs/glossary.md"
PARTS = (ROOT / GLOSSARY).read_text(encoding="utf-8").split("\n## ")[1:]
ENTRIES = dict(re.findall(r"^\| \*\*(.+?)\*\* \| (.+) \|$", "\n".join(PARTS), re.MULTILINE))
ELSEWHERE = " ".join(
    " ".join((ROOT / page).read_text(encoding="utf-8").split()).lower()
    for page in PAGES
    if page not in (GLOSSARY, GENERATED)
)


@pytest.mark.parametrize("term", ENTRIES)
def test_a_term_is_explained_elsewhere_and_used(term: str) -> None:
    explanation = ENTRIES[term]
    assert re.search(r"\]\((?:\.\./)?[\w/.-]+(#[\w-]+)?\)", explanation), "no link to where it is explained"
    assert explanation.endswith("."), "no whole sentence"
    assert re.search(rf"\b{term}s?\b", ELSEWHERE), "no page uses it"


def test_terms_are_in_order_and_there_once() -> None:
    assert sum(part.count("\n| **") for part in PARTS) == len(ENTRIES) > 30
    for part in PARTS:
        terms = re.findall(r"^\| \*\*(.+?)\*\*", part, re.MULTILINE)
        assert terms == sorted(terms), part.partition("\n")[0]
