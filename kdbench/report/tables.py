"""The tables of a report as text, with a title above and what stands under each; one home for all formats."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from kdbench.analysis.stats import POWER
from kdbench.report import text
from kdbench.report.content import Content
from kdbench.report.notes import accuracy_scope, cost_scope
from kdbench.results.study import Group


class TableCell(str):
    """The text of a cell, with what some formats tell beside it.

    Attributes:
        score: the number behind it, for what marks the best: higher is better, NaN takes no part.
        why: why there is a gap.
        published: values of the literature, and the source of each.
    """

    score: float
    why: str
    published: Sequence[tuple[str, str]]

    def __new__(
        cls, text: str, score: float = math.nan, why: str = "", published: Sequence[tuple[str, str]] = ()
    ) -> "TableCell":
        cell = super().__new__(cls, text)
        cell.score, cell.published = score, published
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
    """

    name: str
    title: str
    rows: Sequence[Row]
    note: str
    groups: Mapping[str, Group] = field(default_factory=dict)

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


def group_tables(content: Content, group: Group, full: bool = True) -> list[Table]:
    """The tables over the pairs of a group; `full`: with tests, and intervals on every pair."""
    return _accuracy_tables(content, group, full) if content.has_accuracy else _speed_tables(content, group)


def pair_tables(content: Content, pair: str) -> list[Table]:
    """The tables of one pair."""
    methods, tables = content.study.methods, []
    if content.has_accuracy:
        scope = accuracy_scope(content, [pair])
        tables += [
            Table("accuracy", "Accuracy", [_accuracy_row(content, pair, method) for method in methods], scope),
            Table("published", "Published", _published_rows(content, pair), f"Ours: {scope}"),
        ]
    if content.has_throughput:
        rows = [_cost_row(content, pair, method) for method in methods]
        tables.append(Table("cost", "Cost", rows, cost_scope(content, [pair])))
    return [table for table in tables if table.rows]


def _speed_tables(content: Content, group: Group) -> list[Table]:
    def rows(division: Content) -> list[Row]:
        return [_speed_row(division, pairs, method) for method in division.study.methods]

    control, pairs = content.study.control or "the control", content.study.groups[group]
    title = f"Training images/s relative to {control} on each of {text.plural(len(pairs), f'{group} pair')}"
    table = Table(f"{group}-speed", title, rows(content), cost_scope(content, pairs))
    return [table, *_open_division(content, group, rows, cost_scope)]


def _accuracy_tables(content: Content, group: Group, full: bool) -> list[Table]:
    def headline(division: Content) -> list[Row]:
        return [_headline_row(division, group, method, full) for method in division.study.methods]

    study, pairs = content.study, content.study.groups[group]
    over, seeds = text.plural(len(pairs), f"{group} pair"), text.plural(len(study.manifest["seeds"]), "seed")
    scope = accuracy_scope(content, pairs)
    gains = [_gain_row(content, pairs, method, full) for method in study.methods]
    equal_time = f"Gain over {study.control} trained for the same time (its epochs), {over}, {seeds}"
    found = f"{scope} {_sensitivity(content, group)}".strip()
    tables = [
        Table(f"{group}-mean", f"Mean over {over}, {seeds}", headline(content), found),
        Table(f"{group}-gain", f"Gain on each of {over}, {seeds}", gains, scope),
        Table(f"{group}-equal-time", equal_time, _equal_time_rows(content, group, full), scope),
    ]
    for what in ("top1", "gain") if content.own_published else ():
        title = text.published_title(content.own_published, of_gain=what == "gain")
        rows = _published_matrix(content, pairs, of_gain=what == "gain")
        tables.append(Table(f"{group}-published-{what}", f"{title[0].upper()}{title[1:]}", rows, f"Ours: {scope}"))
    return [*(table for table in tables if table.rows), *_open_division(content, group, headline, accuracy_scope)]


def _open_division(
    content: Content,
    group: Group,
    rows: Callable[[Content], list[Row]],
    scope: Callable[[Content, Sequence[str]], str],
) -> list[Table]:
    """The table of the methods of the open division, with what each does that the closed one fixes; none is best."""
    if content.open is None:
        return []
    differs = content.open.study.differs
    own = [row for row in rows(content.open) if row["method"] in differs]
    told = [_unscored(row) | {"differs": differs[row["method"]]} for row in own]
    return [Table(f"{group}-open", text.OPEN_DIVISION, told, scope(content.open, content.study.groups[group]))]


def _headline_row(content: Content, group: Group, method: str, full: bool) -> Row:
    """A method over the pairs of the group; `full` adds tests and more of the baseline."""
    study = content.study
    control, baseline, timed = study.control or "control", study.baseline, content.has_throughput
    row, cost = content.group_gains[group, method], content.group_costs[group, method]
    beats = text.spread(row.improvement, 2) if full else text.fixed(row.improvement.value)
    rank = text.spread(row.rank) if full else text.fixed(row.rank.value, 1)
    cells = row_of(
        ("method", method, True),
        ("gain", TableCell(text.gain(row), row.gain.value), True),
        (f"over {baseline}", TableCell(text.difference(row.gain_baseline), row.gain_baseline.value), baseline and full),
        (f"p {control}", text.p_value(row.p_control), full),
        (f"p {baseline}", text.p_value(row.p_baseline), baseline and full),
        (f"beats {baseline}", TableCell(beats, row.improvement.value), baseline),
        ("rank", TableCell(rank, -row.rank.value), True),
        (f"speed/{control}", TableCell(text.mean_speed(cost), cost.to_control), timed),
        (f"speed/{baseline}", TableCell(text.ratio(cost.to_baseline), cost.to_baseline), timed and baseline and full),
    )
    return _unscored(cells) if method == study.control else cells


def _unscored(row: Row) -> Row:
    """The same text: the control takes no part in what marks the best."""
    return {name: str(cell) for name, cell in row.items()}


def _gain_row(content: Content, pairs: Sequence[str], method: str, ends: bool) -> Row:
    """Gain of a method on each of the pairs; for the control, its top-1."""
    gains = {pair: content.gains[pair, method] for pair in pairs}
    if method == content.study.control:
        top1 = {pair: text.accuracy(row).split(" ±")[0] for pair, row in gains.items()}
        return {"method": f"{method} top-1"} | top1
    return {"method": method} | {pair: TableCell(text.gain(row, ends), row.gain.value) for pair, row in gains.items()}


def _speed_row(content: Content, pairs: Sequence[str], method: str) -> Row:
    """Throughput of a method on each of the pairs, relative to the control."""
    costs = {pair: content.costs[pair, method] for pair in pairs}
    cells: Row = {pair: TableCell(text.speed(cost), cost.to_control.value) for pair, cost in costs.items()}
    return {"method": method} | (_unscored(cells) if method == content.study.control else cells)


def _equal_time_rows(content: Content, group: Group, ends: bool) -> list[Row]:
    """Gain of every method (rows) over the control trained for as long, on average and on each pair; may be empty."""
    by_pair = {(row.pair, row.method): row for row in content.equal_times}
    return [
        {"method": row.method, "gain": text.equal_time(row), "p": text.p_value(row.p)}
        | {pair: text.equal_time(by_pair[pair, row.method], ends) for pair in content.study.groups[group]}
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
    by_seed = "" if is_control else " ".join(text.signed(gain) for _, gain in row.seed_gains)
    return row_of(
        ("method", method, True),
        ("n", f"{row.done}/{row.planned}", True),
        ("top-1", text.accuracy(row), True),
        ("best epoch", text.fixed(row.best_top1), any(not math.isnan(row.best_top1) for row in content.gains.values())),
        ("gain", TableCell(text.gain(row), math.nan if is_control else row.gain.value), True),
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
