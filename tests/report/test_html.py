"""The page: it stands alone, can be read without a mouse, tells what is missing, and trusts nothing from a file."""

import re
from base64 import b64decode
from dataclasses import replace
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path

import pandas as pd
import pytest

from kdbench.report.build import build_report
from kdbench.report.content import collect
from kdbench.results.study import Study, load_study
from tests.support.synthetic import DATE, PAIRS, Plan, published_plan, timing_key, write_results

HOSTILE = [
    "<script>window.hacked=1<!script>",
    "\"onmouseover='window.hacked=1'",
    "]]><!-- & --> &lt;",
    "javascript&colon;window.hacked=1",
    "$^{1$ %s {0}",
]
"""Names and words of somebody who means harm; neither slashes nor colons can be in the name of a method."""


HOSTILE_NOTE = {
    "kind": '"><b>',
    "paper": "javascript:window.hacked=1",
    "venue": "<i> 2024",
    "summary": "</p></details><script>",
    "source": "<s>",
}


class Page(HTMLParser):
    """What a browser would make of the page: elements with their attributes, and the text outside of scripts."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._raw = False
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._raw = tag in ("script", "style")

    def handle_endtag(self, tag: str) -> None:
        self._raw = False

    def handle_data(self, data: str) -> None:
        self.text += "" if self._raw else data

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def study(folder: Path, plan: Plan) -> Study:
    return load_study(write_results(folder, plan))


def source(folder: Path, plan: Plan) -> str:
    (path,) = build_report(collect(study(folder / "results", plan)), folder / "page", ["html"])
    return path.read_text()


def hostile_plan() -> Plan:
    """Whatever a file can say is hostile: methods, errors, suite, protocol, command, environment, dates."""
    methods = ["scratch", "kd", *HOSTILE]
    broken = {(PAIRS[0], HOSTILE[0], 1): ("failed", "</script></style><script>window.hacked=1</script>")}
    return Plan(methods=methods, pairs=PAIRS[:1], broken=broken, protocol=HOSTILE[0], epochs=3)


def hostile_page(folder: Path) -> str:
    """The page of `hostile_plan`, with the fields that a plan cannot set."""
    own = study(folder / "results", hostile_plan())
    manifest = {
        **own.manifest,
        "suite": "</title><script>window.hacked=1</script>",
        "command": "</code></pre>" + HOSTILE[1],
        "notes": dict.fromkeys(own.methods, HOSTILE_NOTE),
    }
    environment = {"device": "<img src=x onerror=window.hacked=1>", "variables": {HOSTILE[0]: HOSTILE[2]}}
    hostile = replace(
        own,
        manifest=manifest,  # type: ignore[arg-type]
        records={key: {**record, "date": "<b>1</b>"} for key, record in own.records.items()},  # type: ignore[dict-item]
        environments=dict.fromkeys(own.environments, environment),
    )
    (path,) = build_report(collect(hostile), folder, ["html"])
    return path.read_text()


def test_nothing_from_a_file_becomes_markup(tmp_path: Path) -> None:
    page = Page(hostile_page(tmp_path))
    assert page.of("script") == [{}], "the page's own, and no other"
    assert not page.of("img") and not page.of("b")
    assert not [key for _, attributes in page.elements for key in attributes if key.startswith("on")]
    links = [str(attributes["href"]) for attributes in page.of("a")]
    assert links and all(link.startswith(("#", "data:text/csv;charset=utf-8;base64,")) for link in links)
    assert "javascript:window.hacked=1" in page.text, "what is no known form of a paper is no link"
    for word in (*HOSTILE, "</title><script>", "</script></style><script>", "<img src=x", "</code></pre>", "<b>1</b>"):
        assert word in page.text, f"{word} is shown as it is"


def test_the_policy_lets_no_other_script_run(tmp_path: Path) -> None:
    page = Page(source(tmp_path, Plan(pairs=PAIRS[:1], epochs=3)))
    (policy,) = [one["content"] for one in page.of("meta") if one.get("http-equiv") == "Content-Security-Policy"]
    assert re.fullmatch(
        r"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-[\w+/]{43}='", policy or ""
    )


def test_it_stands_alone(tmp_path: Path) -> None:
    text = source(tmp_path, Plan(pairs=PAIRS[:2], epochs=3))
    page = Page(text)
    assert not [tag for tag, _ in page.elements if tag in ("link", "img", "iframe", "object", "base", "form action")]
    assert "url(" not in re.sub(r"url\(#", "", text) and "@import" not in text
    named = {str(attributes["id"]) for _, attributes in page.elements if "id" in attributes}
    assert len(named) == len([1 for _, attributes in page.elements if "id" in attributes]), "no id twice"
    used = {str(attributes["xlink:href"])[1:] for attributes in page.of("use")}
    assert used and used <= named
    assert set(re.findall(r"url\(#([^)]+)\)", text)) <= named
    assert all(str(link["href"])[1:] in named for link in page.of("a") if str(link["href"]).startswith("#"))


def test_tables_and_figures_can_be_read_without_seeing_or_pointing(tmp_path: Path) -> None:
    page = Page(source(tmp_path, Plan(pairs=PAIRS[:2], epochs=3)))
    assert page.of("html") == [{"lang": "en"}]
    assert len(page.of("caption")) == len(page.of("table")) > 5
    assert all(one.get("scope") in ("row", "col") for one in page.of("th"))
    heads = [one for one in page.of("th") if one["scope"] == "col"]
    assert all(one["aria-sort"] == "none" for one in heads)
    chips = [one for one in page.of("button") if one.get("class") == "chip"]
    assert len(page.of("button")) == len(heads) + len(chips) + 3, "a button a column; theme, more columns, show all"
    assert len(page.of("label")) == len(page.of("select")) + len(page.of("input"))
    assert all(one["role"] == "img" and one["aria-label"] for one in page.of("svg"))
    scrolled = [one for one in page.of("div") if one.get("class") == "scroll"]
    assert len(scrolled) == len(page.of("table")) + len(page.of("svg"))
    assert all(one["tabindex"] == "0" and one["aria-label"] for one in scrolled)


def test_what_is_missing_and_what_was_published_is_shown(tmp_path: Path) -> None:
    plan = replace(published_plan(pairs=2), missing=[("swin-t:resnet18", "fitnet", 1)], broken={})
    plan.broken = {("vit-s:resnet18", "assistant", 2): ("diverged", "loss is nan")}
    text = source(tmp_path, plan)
    assert '<td class="gap" title="missing">X (2/3)<span class="published"' in text
    assert 'title="diverged: loss is nan">X (2/3)' in text
    assert "○ +6.53" in text and "○ 80.54" in text
    assert "published by FBT, PAT, RSD (ofa-300ep-224px, best epoch)" in text
    assert "28 of 30 cells done, 1 missing, 1 diverged" in text


def test_a_missing_measurement_is_told_beside_training_that_is_done(tmp_path: Path) -> None:
    results = write_results(tmp_path / "results", Plan(pairs=PAIRS[:1], epochs=3))
    results.throughput_path(PAIRS[0], "ofa", timing_key(PAIRS[0], "ofa")).unlink()
    (path,) = build_report(collect(load_study(results)), tmp_path, ["html"])
    assert '<td class="gap" title="missing">X</td>' in path.read_text()


def test_every_figure_says_what_it_is_of_and_brings_its_numbers(tmp_path: Path) -> None:
    own = study(tmp_path / "results", Plan(pairs=PAIRS[:8], epochs=5))
    (path,) = build_report(collect(own), tmp_path, ["html"])
    figures = re.findall(r'<figure id="figure-(\w+)">(.*?)</figure>', path.read_text(), flags=re.DOTALL)
    assert [name for name, _ in figures] == [
        "headline",
        "tradeoff",
        "heatmap",
        "gains",
        "slope",
        "ranks",
        "profile",
        "curves",
        "phases",
    ]
    for name, figure in figures:
        caption = re.search(r"<figcaption>(.*?)<a ", figure, flags=re.DOTALL)
        assert caption is not None
        for fact in ("proxy/1", "3 seeds", "n = ", "cpu: AMD EPYC 9B14", DATE, f"run {own.run_id}"):
            assert fact in caption[1], f"{fact} under {name}"
        (encoded,) = re.findall(r'base64,([^"]+)" download="(?:\w+)\.csv"', figure)
        assert len(pd.read_csv(StringIO(b64decode(encoded).decode()))) > 3
        assert figure.count("data-tip=") > 3


def test_hover_values_are_those_of_the_study(tmp_path: Path) -> None:
    content = collect(study(tmp_path / "results", Plan(pairs=PAIRS[:1], epochs=3)))
    (path,) = build_report(content, tmp_path, ["html"])
    tips = [
        str(attributes["data-tip"]) for _, attributes in Page(path.read_text()).elements if "data-tip" in attributes
    ]
    row = content.gains[PAIRS[0], "ofa"]
    seed, gain = row.seed_gains[1]
    assert f"ofa on {PAIRS[0]}, seed {seed}: {gain:+.2f}" in tips
    assert any(tip.startswith(f"ofa on {PAIRS[0]}: {row.gain.value:+.2f} [") for tip in tips)
    backward = content.costs[PAIRS[0], "kd"].phases["backward"]
    assert f"kd, backward: {backward:.2f} ms" in tips


@pytest.mark.parametrize("throughput", [True, False])
def test_a_study_of_nothing_yet(tmp_path: Path, throughput: bool) -> None:
    missing = [(PAIRS[0], method, seed) for method in Plan().methods for seed in range(3)]
    page = Page(source(tmp_path, Plan(pairs=PAIRS[:1], missing=missing, throughput=throughput)))
    assert "0 of 15 cells done, 15 missing" in page.text and "X (0/3)" in page.text
    assert len(page.of("svg")) == throughput, "phases alone"
