"""How numbers are written."""

import math

import numpy as np

from kdbench.analysis.stats import Interval
from kdbench.report import text
from kdbench.report.drawing.style import looks
from kdbench.report.render import render_template
from kdbench.report.tables import Table


def test_numbers():
    assert text.difference(Interval(1.234, 0.8, 1.66)) == "+1.23 [0.80, 1.66]"
    assert text.difference(Interval(-0.001, -1, 1)) == "+0.00 [-1.00, 1.00]"
    assert text.difference(Interval(1.234, math.nan, math.nan)) == "+1.23"
    assert text.difference(Interval(1.234, 0.8, 1.66), with_ends=False) == "+1.23"
    assert text.ends(Interval(1.0, -0.0046, 2.0)) == "[-0.005, 2.00]", "on which side of zero an end is, can be read"
    assert text.ratio_spread(Interval(0.62, 0.61, 0.634)) == "0.62x [0.61, 0.63]"
    assert text.p_value(0.0004) == "< 0.001"
    assert text.p_value(math.nan) == text.fixed(math.nan) == text.ratio(math.nan) == "-"
    assert [text.count(n) for n in (None, 0, 940, 12_345, 999_949, 4_560_000)] == [
        *("-", "0", "940", "12.3k", "999.9k", "4.56M")
    ]
    assert text.size(812 * 2**20) == "812 MiB"


def test_markdown_escapes_what_would_break_a_table():
    table = render_template("table.md", table=Table("", "", [{"a": "x|y", "b": "+1.00*"}], ""))
    assert table == "| a | b |\n| :-- | --: |\n| x\\|y | +1.00\\* |\n"


def test_twenty_five_methods_look_different_and_keep_their_looks():
    names = [f"m{i}" for i in range(56)]
    found = looks(names, "m0")
    assert len({(look.colour, look.marker) for look in found.values()}) == 56
    assert looks(names[:10], "m0") == {name: found[name] for name in names[:10]}
    assert len({(look.colour, look.line) for look in list(found.values())[:26]}) == 26
    assert np.all([look.colour != found["m0"].colour for name, look in found.items() if name != "m0"])
