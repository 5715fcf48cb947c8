"""What was run, in a box; and a card for each method: what it is, how it was set, what it gained and cost."""

import math
from dataclasses import dataclass
from typing import Any

from kdbench.files import canonical_json
from kdbench.report import text
from kdbench.report.content import Content
from kdbench.report.facts import Facts, facts
from kdbench.report.message import tuning
from kdbench.report.notes import completeness
from kdbench.results.schema import FrozenNote
from kdbench.results.study import MISSING


@dataclass(frozen=True)
class Card:
    """A method as a page shows it.

    Attributes:
        number: its place, which links name it by.
        link: the address of its paper; empty where it has none.
        lines: what is known of it as a whole, by name.
        pairs: the gain on each pair, by seed, and the cost there.
    """

    number: int
    name: str
    summary: str
    link: str
    lines: list[tuple[str, str]]
    pairs: list[tuple[str, str]]


def cards(content: Content) -> list[Card]:
    """The methods of both divisions in the order of the tables."""
    closed, opened = set(content.study.methods), content.open
    return [
        _card(content if method in closed or opened is None else opened, method, fact)
        for method, fact in facts(content).items()
    ]


def _card(content: Content, method: str, fact: Facts) -> Card:
    study = content.study
    settings = ", ".join(f"{name} = {canonical_json(value)}" for name, value in fact.settings.items())
    lines = [
        ("transfers", fact.kind),
        ("published", ", ".join(part for part in (fact.venue, fact.paper) if part)),
        ("settings", settings),
        ("differs", study.differs.get(method, "")),
        ("source", fact.source),
    ]
    for group, pairs in study.groups.items():
        row, time = content.group_gains[group, method], text.mean_time(content.group_costs[group, method])
        found = [text.gain(row)] + (
            [f"after Holm {text.ends(row.gain_holm)}"] if not math.isnan(row.gain_holm.low) else []
        )
        found += [f"step time {time}"] if content.has_throughput else []
        lines.append((f"mean over {text.plural(len(pairs), f'{group} pair')}", ", ".join(found)))
    gains = [(pair, _on_pair(content, pair, method)) for pair in study.pairs]
    return Card(fact.number, method, fact.summary, fact.link, [line for line in lines if line[1]], gains)


def _on_pair(content: Content, pair: str, method: str) -> str:
    row, cost = content.gains[pair, method], content.costs[pair, method]
    seeds = " ".join(text.signed(gain) for _, gain in row.seed_gains) if row.role != "control" else ""
    told = [f"top-1 {text.accuracy(row)}", f"gain {text.gain(row)}" + (f" (by seed: {seeds})" if seeds else "")]
    told += [f"step time {text.ratio(1 / cost.to_control.value)}"] if cost.status == "done" else []
    told += [f"{text.count(cost.extra_parameters)} extra parameters"] if cost.extra_parameters else []
    return ", ".join(told)


def what_was_run(content: Content) -> list[tuple[str, list[str]]]:
    """Data, models, recipes, methods and machine as far as the records tell, by name."""
    study, manifest = content.study, content.study.manifest
    setting = manifest.get("setting")
    rows: list[tuple[str, list[str]]] = []
    if setting is not None:
        images = f"{setting['train_images']:,} training and {setting['test_images']:,} evaluated images"
        told = f"{setting['data']}: {images}, {setting['classes']} classes, {setting['image_size']} px"
        rows.append(("Data", [told, f"teachers trained on {setting['teacher_data']}"]))
        rows.append(("Suite", [f"{manifest['suite']} ({manifest['protocol']}): {setting['description']}"]))
    else:
        rows.append(("Suite", [f"{manifest['suite']} ({manifest['protocol']})"]))
    teachers, students = _networks(content, setting["recipes"] if setting else {})
    rows += [("Teachers", teachers), ("Students", students)]
    rows += [("Methods", _methods(content))]
    if content.has_accuracy:
        rows.append(("Hyperparameters", [tuning(content)]))
        rows.append(
            ("Runs", [f"{text.plural(len(study.pairs), 'pair')}, {text.seeds(study)}: {completeness(content)}"])
        )
    if "frozen" in manifest:
        rows.append(("Plan", [_frozen(content, manifest["frozen"])]))
    records = study.cells if content.has_accuracy else study.throughput
    rows.append(("Machine", [f"{text.devices(study, records)}, {text.dates(study)}, run {study.run_id}"]))
    return [row for row in rows if row[1]]


def _frozen(content: Content, note: FrozenNote) -> str:
    """Whether the run kept to a plan that was frozen before it."""
    left, dates = content.statuses.count(MISSING), content.study.dates
    when = "after some of the records" if dates and dates[0] < note["created"][:10] else "before the run"
    kept = f"{text.plural(left, 'cell')} of it not run yet" if left else "all of its cells were run, and no others"
    return f"frozen {when}, on {note['created']} ({note['file']}, sha256 {note['sha256'][:12]}); {kept}"


def _networks(content: Content, recipes: dict[str, str]) -> tuple[list[str], list[str]]:
    """The teachers with their accuracy and the students with their recipe, each once."""
    teachers: dict[str, str] = {}
    students: dict[str, str] = {}
    for record in content.study.records.values():
        teacher, student = record["teacher"], record["student"]
        teachers.setdefault(teacher["name"], f"{_network(teacher)}, top-1 {teacher['top1']:.2f}")
        recipe = recipes.get(student["name"], "")
        if student["name"] not in students or "parameters" in student:
            students[student["name"]] = _network(student) + (f"; {recipe}" if recipe else "")
    return list(teachers.values()), list(students.values())


def _network(model: Any) -> str:
    parameters = f", {text.count(model['parameters'])} parameters" if "parameters" in model else ""
    return f"{model['name']} = {model['timm']} ({model['kind']}{parameters})"


def _methods(content: Content) -> list[str]:
    """How many there are, and how the counts of the page come about."""
    study = content.study
    opened = list(content.open.study.differs) if content.open else []
    left = [method for method in study.methods if _is_left_out(content, method)]
    compared = [method for method in study.methods if study.roles[method] != "control" and method not in left]
    total = len(study.methods) + len(opened)
    roles = f"{study.control or 'no method'} is the control (training alone), {study.baseline or 'none'} the baseline"
    lines = [f"{total} in all: {roles}; {len(compared)} are compared with the control"]
    if left and content.has_accuracy:
        lines.append(f"left out of the means, because they are not complete on all pairs: {', '.join(left)}")
    if opened:
        lines.append(f"open division, in a table of its own: {', '.join(opened)}")
    return lines


def _is_left_out(content: Content, method: str) -> bool:
    rows = [content.group_gains[group, method] for group in content.study.groups]
    return content.study.roles[method] != "control" and all(row.state != "complete" for row in rows)
