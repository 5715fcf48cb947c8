"""The page in a browser: sorting, filters, theme, hover, keyboard, narrow screens; skipped where there is none."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kdbench.report.build import build_report
from kdbench.report.content import collect
from kdbench.results.study import load_study
from tests.report.test_html import hostile_page
from tests.support.synthetic import PAIRS, Plan, many_methods, write_results

playwright = pytest.importorskip("playwright.sync_api")

FIRST_PAINT = 1.0
"""Seconds that the largest usual page may take, on an idle machine."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        path = shutil.which("chromium") or shutil.which("google-chrome") or started.chromium.executable_path
        if not Path(path).exists():
            pytest.skip("no Chromium")
        found = started.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of eight methods on four pairs, of both kinds, with a cell missing."""
    plan = Plan(methods=many_methods(8), pairs=PAIRS[4:8], epochs=4, missing=[(PAIRS[4], "ofa", 1)])
    folder = tmp_path_factory.mktemp("page")
    (page,) = build_report(collect(load_study(write_results(folder, plan))), folder / "report", ["html"])
    return page


@pytest.fixture
def page(browser: Any, path: Path) -> Iterator[Any]:
    """The page at the size of a desktop; an error on its console fails the test."""
    yield from opened(browser, path, {"width": 1280, "height": 900})


@pytest.fixture
def phone(browser: Any, path: Path) -> Iterator[Any]:
    yield from opened(browser, path, {"width": 390, "height": 844}, has_touch=True)


def opened(browser: Any, path: Path, size: dict[str, int], **options: Any) -> Iterator[Any]:
    context = browser.new_context(viewport=size, **options)
    page, said = context.new_page(), []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: said.append(request.url) if not request.url.startswith("file:") else None)
    page.goto(path.as_uri())
    yield page
    context.close()
    assert not said


def shown(page: Any) -> list[str]:
    """The methods that the table shows, from the top."""
    return page.locator(".pane:not([hidden]) tbody tr:visible th").all_inner_texts()


def column(page: Any, index: int) -> list[str]:
    return [
        words.split("\n")[0]
        for words in page.locator(f".pane:not([hidden]) tbody tr:visible td:nth-child({index})").all_inner_texts()
    ]


def test_sorting(page: Any) -> None:
    header = page.locator(".pane:not([hidden]) th[data-pair]").first
    page.locator(".pane:not([hidden]) th[data-pair] button").first.click()
    assert header.get_attribute("aria-sort") == "descending"
    cells = column(page, 3)
    values = [float(cell.rstrip("▲▼")) for cell in cells[:7]]
    assert values == sorted(values, reverse=True) and 0.0 in values, "the control is at 0"
    assert cells[7:] == ["X (2/3)"], "what has no value is below"
    header.locator("button").press("Enter")
    assert header.get_attribute("aria-sort") == "ascending"
    again = column(page, 3)
    assert again[:7] == cells[6::-1] and again[7:] == ["X (2/3)"]
    page.locator(".pane:not([hidden]) thead button").first.click()
    assert shown(page) == sorted(shown(page))
    assert header.get_attribute("aria-sort") == "none"
    page.click("#more")
    rank = page.locator("#table th.extra", has_text="rank").first
    rank.locator("button").click()
    assert rank.get_attribute("aria-sort") == "ascending", "the first click shows the best"


def test_filters(page: Any) -> None:
    assert len(shown(page)) == 8
    page.fill("#methods", "OFA, crd")
    assert sorted(shown(page)) == ["crd", "ofa"]
    assert page.inner_text("#shown") == "2 of 8 methods"
    assert page.inner_text("#pairs-shown") == "4 of 4 pairs"
    page.fill("#methods", "kd")
    assert shown(page) == ["kd"], "a whole name means that method, not dkd and rkd"
    page.fill("#methods", "OFA, crd")
    page.select_option("#group", "homogeneous")
    heads = page.locator(".pane:not([hidden]) thead th:visible")
    assert heads.count() == 4 and heads.nth(1).inner_text().split() == ["mean", "homogeneous"]
    page.select_option("#measure", "Training throughput")
    assert sorted(shown(page)) == ["crd", "ofa"], "the filters are those of all measures"
    assert all(cell.endswith("x") or "x [" in cell for cell in column(page, 5))
    page.fill("#methods", "")
    page.fill("#names", "deit")
    page.select_option("#group", "")
    assert page.inner_text("#shown") == "8 of 8 methods" and page.inner_text("#pairs-shown") == "1 of 4 pairs"


def test_chips_and_the_address(page: Any) -> None:
    """What is shown is in the address, and comes back with it."""
    chip = page.locator(".chip").first
    number = int(chip.locator("span").inner_text())
    page.click("#more")
    chip.click()
    rows = page.locator("#table tbody tr:visible")
    others = {row.locator("a").first.inner_text() for row in rows.all() if not row.get_attribute("class")}
    assert 0 < len(others) <= number < 8
    assert {row.get_attribute("class") for row in rows.all()} >= {"control", "baseline"}, "what they are read against"
    page.fill("#methods", "kd, ofa, scratch, crd, dkd")
    before, address = shown(page), page.url
    assert "#" in address and "columns=all" in address and "methods=kd" in address
    page.goto("about:blank")
    page.goto(address)
    assert shown(page) == before and page.locator("#table th.extra:visible").count() > 0
    page.click("#reset")
    assert page.inner_text("#shown") == "8 of 8 methods"


def test_a_card_opens_by_its_link(page: Any) -> None:
    page.locator("#table tbody a", has_text="ofa").first.click()
    card = page.locator("#cards details[open]")
    assert card.count() == 1 and card.locator("summary").inner_text() == "ofa"
    assert "by seed:" in card.inner_text()


@pytest.mark.parametrize(
    ("width", "tables"), [(1039, "#table table, #pairs table"), (710, "#views table, #summary svg")]
)
def test_on_paper_nothing_is_cut_and_all_is_open(page: Any, width: int, tables: str) -> None:
    """At the width of A4, landscape and upright."""
    page.emulate_media(media="print")
    page.set_viewport_size({"width": width, "height": 700})
    ends = page.evaluate(f"[...document.querySelectorAll('{tables}')].map((e) => e.getBoundingClientRect().right)")
    assert ends and max(ends) <= width
    heights = page.evaluate("[...document.querySelectorAll('details > :last-child')].map((e) => e.offsetHeight)")
    assert heights and min(heights) > 0, "folded parts are open"
    assert not page.locator(".controls:visible").count()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_theme(browser: Any, path: Path, scheme: str) -> None:
    background = "getComputedStyle(document.body).backgroundColor"
    figure = "getComputedStyle(document.querySelector('figure svg path')).fill"
    for page in opened(browser, path, {"width": 1280, "height": 900}, color_scheme=scheme):
        is_dark = scheme == "dark"
        pale, deep = "rgb(255, 255, 255)", "rgb(20, 23, 28)"
        for expected in (is_dark, not is_dark, is_dark):
            assert page.evaluate(background) == page.evaluate(figure) == (deep if expected else pale)
            assert page.get_attribute("#theme", "aria-pressed") == str(expected).lower()
            page.click("#theme")
        page.reload()
        assert page.evaluate(background) == (pale if is_dark else deep), "the choice is remembered"


def test_hover_tells_a_value(page: Any) -> None:
    mark = page.locator("#figure-heatmap [data-tip]").nth(3)
    mark.scroll_into_view_if_needed()
    mark.hover()
    assert page.inner_text("#tip") == mark.get_attribute("data-tip")
    page.mouse.move(1, 1)
    assert page.inner_text("#tip") == ""


def test_numbers_are_saved(page: Any) -> None:
    with page.expect_download() as waiting:
        page.click("text=slope.csv")
    saved = waiting.value
    assert saved.suggested_filename == "slope.csv"
    assert Path(saved.path()).read_text().startswith("method,heterogeneous,homogeneous\n")


def test_a_narrow_screen(phone: Any) -> None:
    wide = "[document.documentElement.scrollWidth, innerWidth]"
    assert phone.evaluate(wide) == [390, 390], "tables and figures scroll, the page does not"
    for pair in phone.locator("summary").all():
        pair.click()
    assert phone.evaluate(wide) == [390, 390]
    assert min(box["height"] for one in phone.locator("#table button").all() if (box := one.bounding_box())) >= 24
    sizes = "[...document.querySelectorAll('td, p, figcaption')].map(e => parseFloat(getComputedStyle(e).fontSize))"
    assert min(phone.evaluate(sizes)) >= 12
    shares = phone.evaluate(
        "[...document.querySelectorAll('figure svg')].map(e => [e, e.getAttribute('width')])"
        ".map(([e, width]) => [e.getBoundingClientRect().width / width, width])"
    )
    assert all(0.64 < share < 1.01 for share, _ in shares), "figures shrink so far that they can be read"
    assert all(share * float(width) <= 390 for share, width in shares if float(width) < 560), "and are seen whole"


def test_by_keyboard(page: Any) -> None:
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the table"
    page.keyboard.press("Enter")
    assert page.url.endswith("#table")
    reached = []
    for _ in range(6):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.textContent"))
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline != "none", f"{reached[-1]} shows that it has the focus"
    chips = page.locator(".chip").all_inner_texts()
    assert [words.split() for words in reached[: len(chips)]] == [words.split() for words in chips]
    page.locator("#methods").focus()
    for _ in range(4):
        page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "method"
    page.keyboard.press("Space")
    assert page.locator("#table th").first.get_attribute("aria-sort") == "ascending"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast(browser: Any, path: Path, scheme: str) -> None:
    """Text on its background has a contrast of 4.5 at least (WCAG 2.2, level AA)."""
    script = """() => {
      const light = (colour) => {
        const [r, g, b] = colour.match(/[\\d.]+/g).map(Number).map((v) => v / 255)
          .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
      };
      const behind = (e) => {
        const own = getComputedStyle(e).backgroundColor;
        return own === "rgba(0, 0, 0, 0)" && e.parentElement ? behind(e.parentElement) : own;
      };
      return [...document.querySelectorAll("td, th button, p, a, small, .published, figcaption, label, h1, dt, #theme")]
        .filter((e) => e.getClientRects().length)
        .map((e) => {
          const pair = [light(getComputedStyle(e).color), light(behind(e))].sort((a, b) => b - a);
          return (pair[0] + 0.05) / (pair[1] + 0.05);
        });
    }"""
    for page in opened(browser, path, {"width": 1280, "height": 900}, color_scheme=scheme):
        contrasts = page.evaluate(script)
        assert len(contrasts) > 50 and min(contrasts) >= 4.5


def test_hostile_words_do_nothing(browser: Any, tmp_path: Path) -> None:
    hostile_page(tmp_path)
    for page in opened(browser, tmp_path / "report.html", {"width": 1280, "height": 900}):
        page.mouse.move(300, 400)
        for header in page.locator(".pane:not([hidden]) thead button").all():
            header.click()
        assert page.evaluate("window.hacked") is None
        assert page.title().startswith("</title><script>")


@pytest.mark.bench
def test_the_largest_usual_page_is_seen_at_once(browser: Any, tmp_path: Path) -> None:
    plan = Plan(methods=many_methods(25), pairs=PAIRS, epochs=30)
    (path,) = build_report(collect(load_study(write_results(tmp_path, plan))), tmp_path / "report", ["html"])
    assert path.stat().st_size < 5e6
    paint = "performance.getEntriesByName('first-contentful-paint')[0].startTime"
    for page in opened(browser, path, {"width": 1280, "height": 900}):
        page.wait_for_function("() => performance.getEntriesByName('first-contentful-paint').length")
        print(f"\n{path.stat().st_size / 1e6:.1f} MB, first paint after {page.evaluate(paint):.0f} ms")
        assert page.evaluate(paint) < 1000 * FIRST_PAINT
