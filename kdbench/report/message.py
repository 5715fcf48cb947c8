"""What a study says in a few sentences: who gains, on what, whether it is a recommendation, and what to use."""

import math
from collections.abc import Sequence

from kdbench.analysis.gains import Standing, finding, standing
from kdbench.analysis.stats import POWER
from kdbench.report import text
from kdbench.report.content import Content
from kdbench.report.notes import at_guessing
from kdbench.results.study import Group

MOST_NAMES = 5
"""A sentence with more names is read by nobody."""
ALONE = "training alone"
"""What the control is called in a sentence."""


def headline(content: Content, group: Group) -> str:
    """What is shown, and a warning where training alone learned nothing."""
    return _shown(content, group) + _guessing(content, group)


def _shown(content: Content, group: Group) -> str:
    """`srd and dist beat kd; assistant beats training alone; 6 methods fall below training alone; ...`"""
    study = content.study
    rows = [content.group_gains[group, method] for method in content.by_gain(group)]
    known = [row for row in rows if not math.isnan(row.gain.value) and row.role != "control"]
    if not known:
        return "No method is complete on all pairs together with the control, so there is no comparison yet."
    if all(finding(row.gain_holm) == "not tested" for row in known):
        return f"No difference was tested: that takes 3 seeds, and runs that differ ({_counted(len(known))})."
    better = [row.method for row in known if finding(row.gain_baseline_holm) == "better"]
    gaining = [row.method for row in known if finding(row.gain_holm) == "better" and row.method not in better]
    by_standing: dict[Standing, list[str]] = {}
    for row in known:
        by_standing.setdefault(standing(row), []).append(row.method)
    parts = [_beat(better, study.baseline or ""), _beat(gaining, ALONE)]
    if not better and not gaining:
        parts = [f"No method is shown better than {ALONE}{f' or {study.baseline}' if study.baseline else ''}"]
    below, worse = by_standing.get("worse than control", []), by_standing.get("worse than baseline", [])
    unclear = by_standing.get("not shown", [])
    if below:
        parts.append(f"{_counted(len(below))} {'falls' if len(below) == 1 else 'fall'} below {ALONE}")
    if worse:
        parts.append(
            f"{len(worse)} more below {study.baseline}" if below else f"{_counted(len(worse))} below {study.baseline}"
        )
    if unclear:
        parts.append(f"for {len(unclear)} no difference is shown")
    sentence = "; ".join(part for part in parts if part)
    return f"{sentence}."


def _guessing(content: Content, group: Group) -> str:
    """A warning where training alone learned nothing: gains over it say little."""
    pairs = content.study.groups[group]
    gaps = [gap for gap in at_guessing(content) if gap.method == content.study.control and gap.pair in pairs]
    where = text.listed(list(dict.fromkeys(gap.pair for gap in gaps))) if gaps else ""
    return f" Training alone is at guessing on {where}, so gains there say little." if gaps else ""


def _beat(methods: Sequence[str], other: str) -> str:
    if not methods:
        return ""
    names = (
        text.listed(methods) if len(methods) <= MOST_NAMES else f"{', '.join(methods[:3])} and {len(methods) - 3} more"
    )
    return f"{names} {'beats' if len(methods) == 1 else 'beat'} {other}"


def _counted(number: int) -> str:
    return text.plural(number, "method")


def basis(content: Content) -> str:
    """On what: data, images, epochs, pairs, seeds."""
    pairs = [text.plural(len(own), f"{group} pair") for group, own in content.study.groups.items()]
    parts = [*trained_on(content), text.listed(pairs), text.seeds(content.study)]
    return f"On {', '.join(part for part in parts if part)}."


def trained_on(content: Content) -> list[str]:
    """Data, images and epochs as far as the records tell."""
    manifest = content.study.manifest
    setting = manifest.get("setting")
    epochs = {max(record["curves"]["epoch"]) for record in content.study.records.values() if "curves" in record}
    lengths = text.span(sorted(setting["epochs"].values() if setting else epochs), str)
    told = [f"{lengths} {'epoch' if lengths == '1' else 'epochs'}"] if lengths != text.NONE else []
    if setting is None:
        return [f"the suite {manifest['suite']}", *told]
    return [setting["data"], f"{setting['train_images']:,} training images", *told]


def tuning(content: Content) -> str:
    """`untuned`, or how the hyperparameters were tuned."""
    tuned = content.study.manifest.get("tuned")
    return f"tuned with {text.plural(tuned['trials'], 'draw')} a method" if tuned else "untuned"


def advice(content: Content) -> str:
    """Whether this is a recommendation."""
    if content.study.manifest.get("tuned"):
        return (
            f"Hyperparameters: {tuning(content)}. This is a recommendation for these data and these pairs only; on "
            "others the order may be another one."
        )
    return (
        "The hyperparameters are not tuned to these data. This is no recommendation: it shows how methods do with "
        "these settings, not which method to use on your data."
    )


def sensitivity(content: Content, group: Group) -> str:
    """What gain a study of this size finds; empty where that is not known."""
    gain = content.sensitivities[group].own
    return (
        ""
        if math.isnan(gain)
        else f"A study of this size finds a mean gain of {gain:.1f} points in {POWER:.0%} of cases."
    )


def best(content: Content, group: Group) -> str:
    """`Largest mean gains: srd +1.68 (1.8x the time of a step), ...`: the best five with their cost; maybe empty."""
    names = [
        method
        for method in content.by_gain(group)
        if content.study.roles[method] != "control" and not math.isnan(content.group_gains[group, method].gain.value)
    ]
    told = [_with_cost(content, group, method) for method in names[:MOST_NAMES]]
    return f"Largest mean gains (step time over {ALONE}): {', '.join(told)}." if told else ""


def _with_cost(content: Content, group: Group, method: str) -> str:
    row, time = content.group_gains[group, method], content.times[group, method]
    cost = "" if math.isnan(time) else f" ({time:.1f}x)"
    return f"{method} {text.signed(row.gain.value)}{cost}"


def choice(content: Content, group: Group) -> list[str]:
    """Which method to use on this suite: those not shown worse than the best, and the cheapest of them; maybe none."""
    found = content.choices[group]
    if not found.candidates:
        return []
    suite, control = content.study.manifest["suite"], content.study.control

    def named(methods: Sequence[str]) -> str:
        return ", ".join(f"{method} ({ALONE})" if method == control else method for method in methods)

    if not found.tested:
        return [f"On this suite ({suite}): fewer than 3 seeds, so no method is shown worse than another."]
    out = f" ({len(found.candidates)} of {len(found.methods)}, {control} counted)"
    lines = [f"On this suite ({suite}), not shown worse than the best{out}: {named(found.candidates)}."]
    if found.cheapest:
        times = text.span([content.times[group, method] for method in found.cheapest], lambda time: f"{time:.2f}x")
        lines.append(f"Cheapest of these: {named(found.cheapest)} (step time {times} that of {ALONE}).")
    else:
        lines.append("Which of these is the cheapest is not known: not all were measured.")
    return lines


def conclusion(content: Content) -> list[str]:
    """The last lines of every report: headline, basis, best five, what to use; for each group of pairs."""
    several = len(content.study.groups) > 1
    lines = []
    for group, pairs in content.study.groups.items():
        own = [headline(content, group), best(content, group), *choice(content, group)]
        name = f"{text.plural(len(pairs), f'{group} pair')}: " if several else ""
        lines += [f"{name}{line}" for line in own if line]
    partial = text.so_far(content.study)
    return [*([partial] if partial else []), lines[0], f"{basis(content)} {advice(content)}", *lines[1:]]
