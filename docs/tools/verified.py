"""The self-checks of every method on every pair: `python docs/tools/verified.py results/reference/verify.md`.

Suites named after the page (`... verify.md proxy`) are checked again, the sections of the others stay; by default all
are: a minute for the proxy, hours for networks of full size.
"""

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from kdbench.compute.device import resolve
from kdbench.registry import Registry
from kdbench.study.plan import settle
from kdbench.study.verify import SelfCheckVerdict, self_check_methods
from kdbench.suites import loading

HEAD = """\
# Every method on every pair of every suite

Self-checks before any training (`kdbench verify all --suite SUITE --pairs all --device cpu`, no data and no trained
teachers but the proxy's: noise and fresh weights, batches of 8, three steps): loss terms finite and not all zero,
gradients reach the student and every projector and not the teacher, the student keeps timm's keys. A line a method:
millions of parameters that it adds during training; "n/a" where it does not support the pair, "FAILED" where a check
failed. The first two lines are the networks' own.
"""


def section(suite: str) -> str:
    """The table of a suite as Markdown, and why methods do not support pairs."""
    loaded = loading.load_suite(suite)
    methods = settle(loaded, Registry.installed().select("all"), {})
    verdicts = list(self_check_methods(loaded, loaded.pairs, methods, resolve("cpu", "fp32"), Path("no-data")))
    counts = Counter(one.status for one in verdicts)
    summary = ", ".join(f"{count} {status}" for status, count in counts.most_common())
    return "\n".join([f"{suite}\n", f"{summary} of {len(verdicts)}.\n", *_table(verdicts), "", *_reasons(verdicts)])


def _table(verdicts: Sequence[SelfCheckVerdict]) -> Iterator[str]:
    found = {(one.method, one.pair): one for one in verdicts}
    methods, pairs = (list(dict.fromkeys(names)) for names in zip(*found, strict=True))
    yield _row("", pairs)
    yield "|---|" + "---:|" * len(pairs)
    sizes = {one.pair: one.parameters for one in verdicts if one.parameters}
    for position, network in enumerate(("teacher", "student")):
        yield _row(network, [_millions(sizes[pair][position]) for pair in pairs])
    for method in methods:
        yield _row(f"`{method}`", [_cell(found[method, pair]) for pair in pairs])


def _reasons(verdicts: Sequence[SelfCheckVerdict]) -> Iterator[str]:
    concerned: dict[tuple[str, str], list[str]] = {}
    for one in verdicts:
        if one.status != "passed":
            failed = "; ".join(f"{check.name}: {check.detail}" for check in one.checks if not check.passed)
            concerned.setdefault((one.method, one.reason or failed), []).append(one.pair)
    for (method, reason), pairs in concerned.items():
        yield f"* `{method}` on {', '.join(pairs)}: {reason}"


def _cell(verdict: SelfCheckVerdict) -> str:
    if verdict.parameters and verdict.status == "passed":
        return _millions(verdict.parameters[2])
    return "n/a" if verdict.status == "unsupported" else "FAILED"


def _millions(count: int) -> str:
    return f"{count / 1e6:.3f}" if count else "0"


def _row(name: str, cells: Sequence[str]) -> str:
    return f"| {name} | {' | '.join(cells)} |"


def page(text: str, again: Sequence[str]) -> str:
    """The page with the sections of the suites in `again` made anew."""
    old = {one.partition("\n")[0]: one for one in text.split("\n## ")[1:]}
    known = [suite for suite in loading.available() if suite in {*again, *old}]
    parts = [section(suite) if suite in again else old[suite] for suite in known]
    return "\n## ".join([HEAD, *(part.rstrip("\n") + "\n" for part in parts)])


if __name__ == "__main__":
    file = Path(sys.argv[1])
    before = file.read_text(encoding="utf-8") if file.is_file() else ""
    file.write_text(page(before, sys.argv[2:] or list(loading.available())), encoding="utf-8")
