"""The page of self-checks, of files that `kdbench verify all --suite SUITE --pairs all --json > SUITE.json` wrote:

`python docs/tools/verified.py results/reference/verify.md proxy.json cifar100-32.json ...`
"""

import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

HEAD = """\
# Every method on every pair of every suite

Self-checks before any training (`kdbench verify all --suite SUITE --pairs all --device cpu --json`, no data and no
trained teachers but the proxy's: noise and fresh weights, batches of 8, three steps): loss terms finite and not all
zero, gradients reach the student and every projector and not the teacher, the student keeps timm's keys. A line a
method: millions of parameters that it adds during training; "n/a" where it does not support the pair, "FAILED" where a
check failed. The first two lines are the networks' own.
"""


def section(suite: str, verdicts: Sequence[dict[str, Any]]) -> Iterator[str]:
    """The table of a suite, as lines of Markdown, and why methods do not support pairs."""
    found = {(one["method"], one["pair"]): one for one in verdicts}
    methods, pairs = (list(dict.fromkeys(one[what] for one in verdicts)) for what in ("method", "pair"))
    counts = Counter(one["status"] for one in verdicts)
    yield f"\n## {suite}\n"
    yield ", ".join(f"{count} {status}" for status, count in counts.most_common()) + f" of {len(verdicts)}.\n"
    yield _row("", pairs)
    yield "|---|" + "---:|" * len(pairs)
    for position, network in enumerate(("teacher", "student")):
        own = (next(one["parameters"] for one in verdicts if one["pair"] == p and one["parameters"]) for p in pairs)
        yield _row(network, [_millions(sizes[position]) for sizes in own])
    for method in methods:
        yield _row(f"`{method}`", [_cell(found[method, pair]) for pair in pairs])
    reasons: dict[tuple[str, str], list[str]] = {}
    for one in verdicts:
        if one["status"] != "passed":
            failed = "; ".join(f"{check['name']}: {check['detail']}" for check in one["checks"] if not check["passed"])
            reasons.setdefault((one["method"], one["reason"] or failed), []).append(one["pair"])
    if reasons:
        yield ""
    for (method, reason), concerned in reasons.items():
        where = "every pair" if len(concerned) == len(pairs) else ", ".join(concerned)
        yield f"* `{method}` on {where}: {reason}"


def _cell(verdict: dict[str, Any]) -> str:
    if verdict["status"] == "passed":
        return _millions(verdict["parameters"][2])
    return "n/a" if verdict["status"] == "unsupported" else "FAILED"


def _millions(count: int) -> str:
    return f"{count / 1e6:.3f}" if count else "0"


def _row(name: str, cells: Sequence[str]) -> str:
    return f"| {name} | {' | '.join(cells)} |"


if __name__ == "__main__":
    page, *files = map(Path, sys.argv[1:])
    lines = [line for file in files for line in section(file.stem, json.loads(file.read_text(encoding="utf-8")))]
    page.write_text("\n".join([HEAD.rstrip("\n"), *lines, ""]), encoding="utf-8")
