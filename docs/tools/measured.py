"""The table of what was measured, from the reference results: `python docs/tools/measured.py docs/measuring.md`."""

import re
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from kdbench.analysis.cost import PairCost, pair_costs
from kdbench.analysis.gains import sensitivities
from kdbench.names import pair_ends
from kdbench.results.folder import Results
from kdbench.results.study import Study, load_study

RESULTS = Path(__file__).parents[2] / "results" / "reference" / "proxy"
PLACE = re.compile(r"(<!-- measured -->\n).*?(<!-- /measured -->)", re.DOTALL)


def table(study: Study) -> str:
    """What the records of a study tell of how well things could be measured, as Markdown."""
    costs = [cost for cost in pair_costs(study) if cost.blocks]
    rows = [
        ("protocol", f"`{study.manifest['protocol']}`, `{study.manifest['command']}`"),
        ("machine", "; ".join(f"{one['device']}, {one['cores']} cores" for one in study.environments.values())),
        ("cells", f"{(study.cells['status'] == 'done').sum():,} of {len(study.cells):,} done"),
    ]
    # Of the closed division, as a report tells it: those of the open one are not in its family of tests.
    for found in sensitivities(study.only(set(study.methods) - set(study.differs))):
        smallest = ", ".join(f"{gain:.2f} with {seeds}" for seeds, gain in found.detectable.items())
        rows.append((f"spread of a gain over seeds, {found.group} pairs", f"{found.sigma:.2f} points on one pair"))
        rows.append((f"smallest mean gain that 80 % of studies find, {found.group} pairs", f"{smallest} seeds"))
    if costs:
        others = [cost for cost in costs if cost.role != "control"]
        spread = np.median([(cost.images_p90 - cost.images_p10) / cost.images for cost in costs])
        width = np.median([(cost.to_control.high - cost.to_control.low) / cost.to_control.value for cost in others])
        sums = [cost.phases_to_step for cost in costs]
        rows += [
            ("the same student without a teacher, timed beside two teachers: slower over faster", _drift(costs)),
            ("images/s from block to block: p90 less p10, over the median", f"{spread:.0%}, median of all"),
            ("ratio to the control: width of its 95 % interval, over the ratio", f"{width:.0%}, median of all"),
            ("sum of the phases of a step, over the whole step", f"{min(sums):.2f} to {max(sums):.2f}"),
            ("timed on a clean machine", f"{sum(cost.clean is True for cost in costs)} of {len(costs)}"),
        ]
    return "\n".join(("| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows), ""))


def page(text: str) -> str:
    """A page with the table in its place."""
    return PLACE.sub(lambda match: f"{match[1]}{table(load_study(Results(RESULTS)))}{match[2]}", text)


def _drift(costs: Sequence[PairCost]) -> str:
    """The control does the same work whatever the teacher of the pair: slowest over fastest, by student."""
    speeds: dict[str, list[float]] = {}
    for cost in costs:
        if cost.role == "control":
            speeds.setdefault(pair_ends(cost.pair)[1], []).append(cost.images)
    return ", ".join(f"{min(own) / max(own):.2f}" for own in speeds.values() if len(own) > 1) or "-"


if __name__ == "__main__":
    file = Path(sys.argv[1])
    file.write_text(page(file.read_text(encoding="utf-8")), encoding="utf-8")
