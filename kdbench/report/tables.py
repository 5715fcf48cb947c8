"""The tables of a report as text, with a title above and what stands under each; one home for all formats."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from kdbench.analysis.gains import Finding, finding
from kdbench.analysis.stats import POWER
from kdbench.report import text
from kdbench.report.content import Content
from kdbench.report.notes import accuracy_scope, cost_scope
from kdbench.results.schema import Role
from kdbench.results.study import Group


class TableCell(str):
    """The text of a cell, with what some formats tell beside it.

    Attributes:
        shown: what the study shows of the difference in the cell, for what marks it.
        why: why there is a gap.
        published: values of the literature, and the source of each.
    """

    shown: Finding
    why: str
    published: Sequence[tuple[str, str]]

    def __new__(
        cls, text: str, shown: Finding = "not tested", why: str = "", published: Sequence[tuple[str, str]] = ()
    ) -> "TableCell":
        cell = super().__new__(cls, text)
        cell.shown, cell.published = shown, published
        cell.why = why if cell.is_gap else ""
        return cell

    @property
    def is_gap(self) -> bool:
        """Whether the text stands in the place of a value that is not there."""
        return self.startswith(("X", "n/a"))


Row = dict[str, str]
"""The cells of a row by their column; the first column names the row."""


def row_of(*cells: tuple[str, str, object]) -> Row:
    """A row of the wanted cells; each is given as its column, its text, and whether it is wanted."""
    return {column: cell for column, cell, wanted in cells if wanted}


@dataclass(frozen=True)
class Table:
    """A table of text.

    Attributes:
        name: of its file, where it has one of its own.
        title: what stands above it.
        rows: those that lack a column have a dash there.
        note: what stands under it: n and what is missing.
        groups: by column, the kind of pairs it is about, where readers can choose one.
        more: columns that a page shows on demand, and others in a table of their own (`parts`).
        roles: by the first cell of a row, what stands out: the control and the baseline.
    """

    name: str
    title: str
    rows: Sequence[Row]
    note: str
    groups: Mapping[str, Group] = field(default_factory=dict)
    more: Sequence[str] = ()
    roles: Mapping[str, Role] = field(default_factory=dict)

    @property
    def parts(self) -> "list[Table]":
        """The table without the columns of `more`, and those in a second one."""
        if not self.more:
            return [self]
        first = self.columns[0]
        shown = [{name: cell for name, cell in row.items() if name not in self.more} for row in self.rows]
        others = [{name: cell for name, cell in row.items() if name in (first, *self.more)} for row in self.rows]
        rest = replace(self, name=f"{self.name}-more", title=f"{self.title}: more columns", rows=others, more=())
        return [replace(self, rows=shown, more=()), rest]

    @property
    def columns(self) -> list[str]:
        """Their names, in the order the rows first have them."""
        return list(dict.fromkeys(name for row in self.rows for name in row))

    @property
    def lines(self) -> list[list[TableCell]]:
        """The cells, row by row."""
        columns = self.columns
        filled = [[row.get(name, text.NONE) for name in columns] for row in self.rows]
        return [[cell if isinstance(cell, TableCell) else TableCell(cell) for cell in line] for line in filled]


def group_tables(content: Content, group: Group, with_ends: bool = True) -> list[Table]:
    """The tables over the pairs of a group; `with_ends`: with intervals on every pair."""
    return _accuracy_tables(content, group, with_ends) if content.has_accuracy else _speed_tables(content, group)


def pair_tables(content: Content, pair: str) -> list[Table]:
    """The tables of one pair."""
    methods, roles, tables = content.by_gain(content.group_of(pair)), content.study.roles, []
    if content.has_accuracy:
        scope = accuracy_scope(content, [pair])
        rows = [_accuracy_row(content, pair, method) for method in methods]
        tables += [
            Table("accuracy", "Accuracy", rows, scope, roles=roles),
            Table("published", "Published", _published_rows(content, pair), f"Ours: {scope}"),
        ]
    if content.has_throughput:
        rows = [_cost_row(content, pair, method) for method in methods]
        tables.append(Table("cost", "Cost", rows, cost_scope(content, [pair]), roles=roles))
    return [table for table in tables if table.rows]


def _speed_tables(content: Content, group: Group) -> list[Table]:
    def rows(division: Content) -> list[Row]:
        return [_speed_row(division, pairs, method) for method in division.study.methods]

    control, pairs = content.study.control or "the control", content.study.groups[group]
    title = f"Training images/s relative to {control} on each of {text.plural(len(pairs), f'{group} pair')}"
    table = Table(f"{group}-speed", title, rows(content), cost_scope(content, pairs), roles=content.study.roles)
    return [table, *_open_division(content, group, rows, cost_scope)]


def _accuracy_tables(content: Content, group: Group, with_ends: bool) -> list[Table]:
    study, pairs, methods = content.study, content.study.groups[group], content.by_gain(group)
    over, seeds = text.plural(len(pairs), f"{group} pair"), text.seeds(study)
    scope, roles = accuracy_scope(content, pairs), study.roles
    gains = [_gain_row(content, pairs, method, with_ends) for method in methods]
    equal_time = f"Gain over {study.control} trained for the same time (its epochs), {over}, {seeds}"
    tables = [
        mean_table(content, group),
        Table(f"{group}-gain", f"Gain on each of {over}, {seeds}", gains, scope, roles=roles),
        Table(f"{group}-equal-time", equal_time, _equal_time_rows(content, group, with_ends), scope),
    ]
    for what in ("top1", "gain") if content.own_published else ():
        title = text.published_title(content.own_published, of_gain=what == "gain")
        rows = _published_matrix(content, pairs, of_gain=what == "gain")
        tables.append(Table(f"{group}-published-{what}", f"{title[0].upper()}{title[1:]}", rows, f"Ours: {scope}"))

    def means(division: Content) -> list[Row]:
        # A rank among three is no rank among thirty.
        rows = [_mean_row(division, group, method) for method in division.study.methods]
        return [{name: cell for name, cell in row.items() if name != "rank"} for row in rows]

    return [*(table for table in tables if table.rows), *_open_division(content, group, means, accuracy_scope)]


def mean_table(content: Content, group: Group) -> Table:
    """The methods over the pairs of a group, largest mean gain first, the control among them at 0."""
    study, pairs = content.study, content.study.groups[group]
    over, seeds = text.plural(len(pairs), f"{group} pair"), text.seeds(study)
    rows = [_mean_row(content, group, method) for method in content.by_gain(group)]
    note = f"{accuracy_scope(content, pairs)} {_sensitivity(content, group)}".strip()
    usual = {"method", "gain", "after Holm", f"against {study.control}", f"against {study.baseline}", "step time"}
    usual.add("extra parameters")
    more = [name for name in rows[0] if name not in usual]
    return Table(f"{group}-mean", f"Mean over {over}, {seeds}", rows, note, more=more, roles=study.roles)


def _open_division(
    content: Content,
    group: Group,
    rows: Callable[[Content], list[Row]],
    scope: Callable[[Content, Sequence[str]], str],
) -> list[Table]:
    """The table of the methods of the open division, with what each does that the closed one fixes."""
    if content.open is None:
        return []
    differs, usual = content.open.study.differs, ("method", "differs")
    own = [row for row in rows(content.open) if row["method"] in differs]
    told = [{"method": row["method"], "differs": differs[row["method"]]} | row for row in own]
    more = [
        name for name in told[0] if name.startswith(("p ", "over ", "beats ", "peak ", "MFLOP", *CLASS_GAINS.values()))
    ]
    ordered = [{name: row[name] for name in dict.fromkeys((*row, *usual)) if name not in usual[1:]} for row in told]
    last = [row | {"differs": differs[row["method"]]} for row in ordered]
    return [
        Table(f"{group}-open", text.OPEN_DIVISION, last, scope(content.open, content.study.groups[group]), more=more)
    ]


def _mean_row(content: Content, group: Group, method: str) -> Row:
    """A method over the pairs of the group."""
    study = content.study
    control, baseline, timed = study.control or "control", study.baseline, content.has_throughput
    row, cost = content.group_gains[group, method], content.group_costs[group, method]
    costs = [content.costs[pair, method] for pair in study.groups[group]]
    flops = [cost.flops.get("train", math.nan) / 1e6 for cost in costs]
    over = TableCell(
        text.difference(row.gain_baseline) + text.mark(row.gain_baseline_holm), finding(row.gain_baseline_holm)
    )
    return row_of(
        ("method", method, True),
        ("gain", TableCell(text.gain(row), finding(row.gain_holm)), True),
        ("after Holm", text.ends(row.gain_holm), True),
        (f"against {control}", text.found(row.gain_holm), True),
        (f"against {baseline}", text.found(row.gain_baseline_holm), baseline),
        ("step time", text.mean_time(cost), timed),
        ("extra parameters", text.span([cost.extra_parameters for cost in costs], text.count), timed),
        (f"over {baseline}", over, baseline),
        (f"over {baseline}, after Holm", text.ends(row.gain_baseline_holm), baseline),
        *(
            (name, _class_gain(content, metric, group, method), (metric, group, method) in content.class_gains)
            for metric, name in CLASS_GAINS.items()
        ),
        (f"p {control}", text.p_value(row.p_control), True),
        (f"p {baseline}", text.p_value(row.p_baseline), baseline),
        (f"beats {baseline}", text.spread(row.improvement, 2), baseline),
        ("rank", text.spread(row.rank), True),
        ("peak memory", text.span([cost.peak_memory for cost in costs], text.size), _has_memory(content)),
        ("MFLOP/image", text.span(flops, lambda value: f"{value:,.1f}"), timed),
    )


def teacher_table(content: Content) -> Table:
    """The teachers of each student that has several, largest gain first; without rows where there is none."""
    rows = [
        {
            "student": row.student,
            "teacher": row.teacher,
            "parameters": text.count(row.parameters),
            "top-1": text.fixed(row.top1),
            "mean gain": text.difference(row.gain),
            "behind the first": text.difference(row.behind),
        }
        for row in content.teachers
    ]
    counts = sorted({row.methods for row in content.teachers})
    note = (
        f"Mean gain over {text.span(counts, str)} methods, with intervals over {text.seeds(content.study)}. Seeds are "
        "not paired between teachers: a student starts from other weights with each."
    )
    return Table("teachers", "Gain by teacher", rows, note)


CLASS_GAINS = {"macro_top1": "macro gain", "worst_class_top1": "gain of the worst class"}
"""What gains over classes are called: of the mean accuracy of the classes, and of that of the worst one."""


def _class_gain(content: Content, metric: str, group: Group, method: str) -> TableCell:
    row = content.class_gains.get((metric, group, method))
    return TableCell(text.NONE) if row is None else TableCell(text.gain(row), finding(row.gain_holm))


def _has_memory(content: Content) -> bool:
    """Whether the device told how much was used."""
    return any(cost.peak_memory is not None for cost in content.costs.values())


def _gain_row(content: Content, pairs: Sequence[str], method: str, with_ends: bool) -> Row:
    """Gain of a method on each of the pairs; for the control, its top-1."""
    gains = {pair: content.gains[pair, method] for pair in pairs}
    if method == content.study.control:
        top1 = {pair: text.accuracy(row).split(" ±")[0] for pair, row in gains.items()}
        return {"method": f"{method} top-1"} | top1
    cells = {pair: TableCell(text.gain(row, with_ends), finding(row.gain_holm)) for pair, row in gains.items()}
    return {"method": method} | cells


def _speed_row(content: Content, pairs: Sequence[str], method: str) -> Row:
    """Throughput of a method on each of the pairs, relative to the control."""
    costs = {pair: content.costs[pair, method] for pair in pairs}
    return {"method": method} | {pair: text.speed(cost) for pair, cost in costs.items()}


def _equal_time_rows(content: Content, group: Group, with_ends: bool) -> list[Row]:
    """Gain of every method (rows) over the control trained for as long, on average and on each pair; may be empty."""
    by_pair = {(row.pair, row.method): row for row in content.equal_times}
    return [
        {"method": row.method, "gain": text.equal_time(row), "p": text.p_value(row.p)}
        | {pair: text.equal_time(by_pair[pair, row.method], with_ends) for pair in content.study.groups[group]}
        for row in content.group_equal_times
        if row.group == group
    ]


def _published_matrix(content: Content, pairs: Sequence[str], of_gain: bool) -> list[Row]:
    """Top-1 or gain as published under the study's protocol, by method and source (rows) and pair; may be empty."""
    cells: dict[tuple[str, str], dict[str, str]] = {}
    for row in content.own_published:
        match = row.gain if of_gain else row.top1
        if row.pair in pairs and not math.isnan(match.published):
            line = cells.setdefault((row.method, row.sources[0]), {})
            line[row.pair] = text.published(row, of_gain)
    shown = [pair for pair in pairs if any(pair in line for line in cells.values())]
    by_method = sorted(cells.items(), key=lambda item: content.study.methods.index(item[0][0]))
    return [
        {"method": f"{method} ({source})"} | {pair: line.get(pair, text.NONE) for pair in shown}
        for (method, source), line in by_method
    ]


def _published_rows(content: Content, pair: str) -> list[Row]:
    """One row a published number for the pair, ours beside it; may be empty."""
    return [
        {
            "method": row.method,
            "as": row.label,
            "published": text.fixed(row.top1.published),
            "ours": text.fixed(row.top1.ours.value),
            "difference": text.deviation(row.top1),
            "verdict": text.verdict(row, row.top1),
            "published gain": text.published_value(row, of_gain=True),
            "our gain": text.signed(row.gain.ours.value),
            "gain difference": text.deviation(row.gain),
            "gain verdict": text.NONE if row.reason else text.verdict(row, row.gain),
            "epoch": row.epoch,
            "source": ", ".join(row.sources),
        }
        for row in content.published
        if row.pair == pair
    ]


def _accuracy_row(content: Content, pair: str, method: str) -> Row:
    """A method on the pair: accuracies, gain, individual seeds and tests.

    The best epoch on the test split has a column where that was read for it.
    """
    study, row = content.study, content.gains[pair, method]
    is_control = row.role == "control"
    over = text.difference(row.gain_baseline) + text.mark(row.gain_baseline_holm)
    by_seed = "" if is_control else " ".join(text.signed(gain) for _, gain in row.seed_gains)
    return row_of(
        ("method", method, True),
        ("n", f"{row.done}/{row.planned}", True),
        ("top-1", text.accuracy(row), True),
        ("best epoch", text.fixed(row.best_top1), any(not math.isnan(row.best_top1) for row in content.gains.values())),
        ("gain", TableCell(text.gain(row), finding(row.gain_holm)), True),
        (f"over {study.baseline}", TableCell(over, finding(row.gain_baseline_holm)), study.baseline),
        ("gain by seed", by_seed or text.NONE, True),
        (f"p {study.control or 'control'}", text.p_value(row.p_control), True),
        (f"p {study.baseline}", text.p_value(row.p_baseline), study.baseline),
    )


def _cost_row(content: Content, pair: str, method: str) -> Row:
    """A method on the pair: throughput, ratios, memory, parameters and floating-point operations."""
    study, cost = content.study, content.costs[pair, method]
    step, flops = sum(cost.phases.values()), cost.flops.get("train")
    shares = {phase: 100 * milliseconds / step for phase, milliseconds in cost.phases.items() if step}
    phases = [phase for phase in content.phases if phase in cost.phases or not cost.phases]
    is_kept = any(cost.inference_parameters for cost in content.costs.values())
    return row_of(
        ("method", method, True),
        ("images/s (p10 to p90)", text.images(cost), True),
        ("blocks", str(cost.blocks), True),
        (f"speed/{study.control or 'control'}", text.ratio_spread(cost.to_control), True),
        (f"speed/{study.baseline}", text.ratio_spread(cost.to_baseline), study.baseline),
        ("step ms", text.fixed(step if cost.phases else math.nan, 1), True),
        *((f"{phase} %", text.fixed(shares.get(phase, math.nan), 0), True) for phase in phases),
        ("extra parameters", text.count(cost.extra_parameters), True),
        ("kept at inference", text.count(cost.inference_parameters), is_kept),
        ("peak memory", text.size(cost.peak_memory), True),
        ("MFLOP/image", text.NONE if flops is None else f"{flops / 1e6:,.1f}", True),
        ("utilisation %", text.fixed(100 * cost.utilisation, 1), not math.isnan(cost.utilisation)),
        ("clean", {None: text.NONE, True: "yes", False: "no"}[cost.clean], True),
    )


def _sensitivity(content: Content, group: Group) -> str:
    """What gain a study of this size finds, and one of more seeds."""
    row = content.sensitivities[group]
    known = {seeds: gain for seeds, gain in row.detectable.items() if not math.isnan(gain)}
    if not known:
        return ""
    (own, gain), *others = known.items()
    more = f" ({', '.join(f'{other:.2f} with {seeds}' for seeds, other in others)} seeds)" if others else ""
    return (
        f"Smallest gain that {POWER:.0%} of such studies would find: {gain:.2f} points{more}; spread of a gain "
        f"over the {own} seeds {row.sigma:.2f}, {text.plural(row.tests, 'test')} corrected by Holm."
    )
