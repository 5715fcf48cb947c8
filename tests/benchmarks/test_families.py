"""Every family of timm, or a random draw of pairs of them: `pytest tests/benchmarks/test_families.py -m bench -s`.

Half an hour of one core; the models are those of docs/models.md.
"""

import json
import random
import re
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from statistics import median

import pytest
import torch
from survey_models import SHALLOW

from kdbench.models.features import Needs
from kdbench.suites.schema import Suite
from kdbench.testing import staged
from tests.support.command import kdbench

pytestmark = [pytest.mark.bench, pytest.mark.timeout(7200)]

DOCS = Path(__file__).parents[2] / "docs" / "models.md"
PAIRS, SEED = 60, 20261123
METHODS = "kd,fitnet,ofa,assistant"
ROUNDS = 15


def representatives() -> dict[str, tuple[str, int]]:
    """The model of each family and its size, as the page has them."""
    rows = re.findall(r"^\| (\w+) \| `(\w+)`(, depth=8)? \| \w+ \| (\d+) \|", DOCS.read_text(), re.MULTILINE)
    return {family: (name + ("[depth=8]" if shallow else ""), int(size)) for family, name, shallow, size in rows}


def test_a_staged_pass_costs_what_a_plain_one_does() -> None:
    ratios = {}
    for family, (name, size) in representatives().items():
        base, shallow, _ = name.partition("[")
        model = staged(base, size=size, **(SHALLOW if shallow else {})).eval()
        images, everything = torch.randn(4, 3, size, size), Needs(frozenset(model.stages), pooled=True)
        forwards: list[Callable[[], object]] = [lambda m=model, x=images: m.model(x)]
        forwards.append(lambda m=model, x=images, n=everything: m(x, n))
        times: list[list[float]] = [[], []]
        with torch.no_grad():
            for number in range(ROUNDS + 2):
                for which in (0, 1) if number % 2 else (1, 0):
                    started = time.perf_counter()
                    forwards[which]()
                    times[which].append(time.perf_counter() - started)
        plain, own = (values[2:] for values in times)
        ratios[family] = median(b / a for a, b in zip(plain, own, strict=True))
    worst = sorted(ratios, key=lambda family: -ratios[family])[:5]
    print(f"\nstaged over plain forward, {len(ratios)} families: median {median(ratios.values()):.3f}; most", end=" ")
    print(", ".join(f"{family} {ratios[family]:.3f}" for family in worst))
    assert median(ratios.values()) <= 1.03


def test_random_pairs_verify(proxy: Suite, tmp_path: Path) -> None:
    """At the larger of the two sizes, with three channels, on noise."""
    known = representatives()
    draws = random.Random(SEED)
    counts: Counter[str] = Counter()
    for _ in range(PAIRS):
        (teacher, one), (student, other) = (known[family] for family in draws.choices(sorted(known), k=2))
        text = (proxy.folder / "proxy.toml").read_text()
        for old, new in (("image_size = 32", f"image_size = {max(one, other)}"), ("[0.2860]", "[0.5, 0.5, 0.5]")):
            assert old in text
            text = text.replace(old, new)
        (tmp_path / "wide.toml").write_text(text.replace("[0.3530]", "[0.5, 0.5, 0.5]"))
        done = kdbench(
            "verify", METHODS, "--suite", tmp_path / "wide.toml", "--pairs", f"{teacher}:{student}", "--json"
        )
        assert done.returncode in (0, 2), f"{teacher}:{student}: {done.stderr}"
        for verdict in json.loads(done.stdout):
            counts[verdict["status"]] += 1
            if verdict["status"] != "passed":
                why = verdict["reason"] or [check for check in verdict["checks"] if not check["passed"]]
                print(f"\n{verdict['status']}: {verdict['method']} on {verdict['pair']}: {why}", end="")
    print(f"\n{PAIRS} pairs (seed {SEED}), {METHODS}: {dict(counts)}")
    assert counts["failed"] == 0 and counts["passed"] >= 0.95 * counts.total()
