"""What a reader must know beside the numbers: what is missing, failed, unsupported or left out, and why."""

from collections.abc import Sequence

from kdbench.analysis.ranking import MIN_PAIRS
from kdbench.analysis.stability import unstable_cells
from kdbench.analysis.stats import luck
from kdbench.errors import one_line
from kdbench.report.content import Content, Gap
from kdbench.report.text import GAPS, PUBLISHED_LEGEND, SCOPE, devices, plural, seeds
from kdbench.results.study import MISSING, Study

AT_GUESSING = "at guessing"
ZERO = "a term that is zero throughout"
ORDER = (MISSING, "failed", "oom", "diverged", "timeout", "interrupted", "unsupported", AT_GUESSING, ZERO)

PHASE_TOLERANCE = 0.05
"""How far the phases of a step may be from the whole before it is told."""


def completeness(content: Content) -> str:
    """`42 of 45 cells done, 2 missing, 1 failed`, of both divisions."""
    return _completeness(content.statuses)


def _completeness(statuses: Sequence[str]) -> str:
    others = [f"{statuses.count(status)} {status}" for status in ORDER if status in statuses]
    return ", ".join([f"{statuses.count('done')} of {plural(len(statuses), 'cell')} done", *others])


def legends(content: Content) -> list[str]:
    """What the marks and columns of the tables mean, a line each."""
    control, baseline = content.study.control or "the control", content.study.baseline
    speed = f"speed/m: training images/s relative to method m, higher is faster; step time: relative to {control}."
    if not content.has_accuracy:
        return [speed]
    own = f" and 'against {baseline}'" if baseline else ""
    lines = [
        f"Gains are points of top-1 over {control}, which has no teacher: mean [95 % interval].",
        "'after Holm' is the same interval, widened for the number of methods that are tested. A method is better (▲) "
        f"or worse (▼) if and only if this wider interval excludes 0: 'against {control}'{own} say so. 'not shown' and "
        "no mark mean that this study could not show a difference. There is no test below 3 seeds.",
        GAPS,
        f"{speed} extra parameters: trained beside the student, over the pairs.",
    ]
    if baseline:
        lines.append(
            f"beats {baseline}: chance that a random run of this method is better than a random run of {baseline}."
        )
    return [*lines, SCOPE, *([PUBLISHED_LEGEND] if content.own_published else [])]


def accuracy_scope(content: Content, pairs: Sequence[str]) -> str:
    """`n = 3 pairs x 3 seeds a method; missing: ofa on a:b seed 1.`: what stands under a table of accuracies."""
    return _scope(content, f"n = {plural(len(pairs), 'pair')} x {seeds(content.study)}", content.cell_gaps, pairs)


def cost_scope(content: Content, pairs: Sequence[str]) -> str:
    """`n = 30 blocks; missing: ofa on a:b.`: what stands under a table of throughput."""
    blocks = sorted({cost.blocks for cost in content.costs.values() if cost.pair in pairs and cost.blocks})
    count = " or ".join(map(str, blocks)) or "0"
    scope = _scope(content, f"n = {count} blocks a method and pair", content.timing_gaps, pairs)
    unclean = [cost for cost in content.costs.values() if cost.pair in pairs and cost.clean is False]
    if not unclean:
        return scope
    # What one pair's methods met they met together, in the same rounds; of several pairs it would be a list.
    reasons = dict.fromkeys(reason for cost in unclean for reason in cost.unclean)
    where = ", ".join(reasons) if len(pairs) == 1 else ", ".join(dict.fromkeys(cost.pair for cost in unclean))
    return f"{scope} Machine not clean: {where}."


def _scope(content: Content, count: str, gaps: Sequence[Gap], pairs: Sequence[str]) -> str:
    own = [gap._replace(error="") for gap in gaps if gap.pair in pairs]
    return "; ".join([count, *(_not_done(content, own, pairs) or ["none missing"])]) + "."


def notes(content: Content) -> list[str]:
    """One line a fact, none when all is well."""
    study = content.study
    lines = []
    if study.control is None:
        lines.append("No method of this study is recorded as the control, so there are no gains.")
    if study.baseline is None:
        lines.append("No method of this study is recorded as the baseline, so nothing is compared with one.")
    trained, timed = (_not_done(content, gaps, study.pairs) for gaps in (content.cell_gaps, content.timing_gaps))
    timed = timed if content.has_throughput else []
    lines += [f"Accuracy{' and throughput' * (line in timed)}, {line}" for line in trained]
    lines += [f"Accuracy, {line}" for line in _not_done(content, _suspect(content), study.pairs)]
    lines += [f"Unstable: {cell}." for cell in unstable_cells(study)]
    lines += _raced(study)
    lines += _left_out(content)
    for ranking in content.rankings:
        if ranking.methods and not ranking.meaningful:
            lines.append(
                f"No critical-difference diagram over the {plural(ranking.pairs, f'{ranking.group} pair')}: fewer than "
                f"{MIN_PAIRS}, so that mean ranks would have to be {ranking.critical_difference:.1f} apart."
            )
    if content.has_throughput:
        lines += [f"Throughput, {line}" for line in timed if line not in trained]
        lines += _doubtful(content)
    else:
        lines.append("Throughput was not measured, so its tables and figures are left out.")
    if any(cost.utilisation > 0 for cost in content.costs.values()):
        lines.append(
            "Utilisation: operations a second of the two networks (three times the student's forward pass, the "
            "teacher's once) over those of a large matrix product on the same device; a method's own are not counted."
        )
    if "," in (names := devices(study, study.cells)):
        lines.append(f"The cells were trained on several devices: {names}.")
    if others := sorted({row.protocol for row in content.published if not row.own_protocol}):
        lines.append(f"Also published, under protocols that are not comparable: {', '.join(others)} (pair by pair).")
    if content.open is not None:
        cells = content.open.study.cells
        statuses = cells.loc[cells["method"].isin(list(content.open.study.differs)), "status"].tolist()
        lines.append(f"Open division: {', '.join(content.open.study.differs)}, {_completeness(statuses)}.")
        own = [gap for gap in _suspect(content.open) if gap.method in content.open.study.differs]
        lines += [f"Open division, {line}" for line in _not_done(content.open, own, study.pairs)]
    for method, altered in study.manifest.get("altered", {}).items():
        lines.append(f"Hyperparameters of {method} that are not the suite's: {', '.join(altered)}.")
    if tuned := study.manifest.get("tuned"):
        draws, sha256 = plural(tuned["trials"], "draw"), tuned["sha256"][:12]
        lines.append(f"Hyperparameters: tuned on held-out images, {draws} a method ({tuned['file']}, {sha256}).")
    if study.ignored:
        lines.append(f"{plural(study.ignored, 'record')} of other settings or machines left aside.")
    return lines


def _raced(study: Study) -> list[str]:
    """Which methods a race has dropped, and when; they are compared on the seeds that they have."""
    dropped = study.manifest["race"]["dropped"] if "race" in study.manifest else {}
    by_round: dict[int, list[str]] = {}
    for method, rounds in dropped.items():
        by_round.setdefault(rounds, []).append(method)
    return [
        f"Dropped in the race after {plural(rounds, 'seed')}, shown worse than the best: {', '.join(methods)}; "
        "their means and tests are of the seeds that they have."
        for rounds, methods in by_round.items()
    ]


def at_guessing(content: Content) -> list[Gap]:
    """Finished cells that are no better than always the largest class, by more than luck."""
    found = []
    for (pair, method, seed), record in content.study.records.items():
        match record:
            case {"top1": top1, "majority": majority, "evaluated": count} if top1 <= 100 * luck(count, majority / 100):
                found.append(Gap(pair, method, seed, AT_GUESSING, f"always the largest class gives {majority:.2f} %"))
    return found


def _suspect(content: Content) -> list[Gap]:
    """Finished cells that did not do what their names say: guessing, or a loss term that was zero in every epoch."""
    found = at_guessing(content)
    for (pair, method, seed), record in content.study.records.items():
        terms = record["curves"]["loss"] if "curves" in record else {}
        zero = [name for name, losses in terms.items() if losses and not any(losses)]
        if zero:
            found.append(Gap(pair, method, seed, ZERO, ", ".join(zero)))
    return found


def _doubtful(content: Content) -> list[str]:
    """Throughput that was measured beside other load or on a throttled machine, phases that do not add up."""
    costs = [cost for cost in content.costs.values() if cost.status == "done"]
    pairs = list(dict.fromkeys(cost.pair for cost in costs if cost.clean is False))
    lines = []
    if pairs:
        lines.append(
            f"Throughput, the machine was not clean on {', '.join(pairs)} (other load or throttling, see the pair): "
            "ratios, taken within rounds, suffer less than images/s."
        )
    lines += [
        f"Throughput, the phases of {cost.method} on {cost.pair} add up to {cost.phases_to_step:.2f} of the step."
        for cost in costs
        if abs(cost.phases_to_step - 1) > PHASE_TOLERANCE
    ]
    return lines


def _not_done(content: Content, gaps: Sequence[Gap], pairs: Sequence[str]) -> list[str]:
    """What did not come to its end on the `pairs`: one line for all that share place and reason."""
    study = content.study
    where: dict[tuple[str, str, str], dict[str, list[int]]] = {}
    for pair, method, seed, status, error in gaps:
        numbers = where.setdefault((status, method, error), {}).setdefault(pair, [])
        numbers += [] if seed is None else [seed]
    lines: dict[tuple[str, str, str], list[str]] = {}
    for status, method, reason in sorted(where, key=lambda key: (ORDER.index(key[0]), study.methods.index(key[1]))):
        places = where[status, method, reason]
        whole = all(len(numbers) in (0, len(study.blocks.get(pair, ()))) for pair, numbers in places.items())
        if whole and len(places) == len(pairs) > 1:
            place = "all pairs"
        else:
            place = ", ".join(_with_seeds(pair, found, whole) for pair, found in places.items())
        ending = f" ({one_line(reason)})" if reason else ""
        lines.setdefault((status, place, ending), []).append(method)
    return [f"{status}: {', '.join(methods)} on {place}{ending}" for (status, place, ending), methods in lines.items()]


def _with_seeds(pair: str, numbers: Sequence[int], whole: bool) -> str:
    return pair if whole else f"{pair} seed{'s' * (len(numbers) > 1)} {' '.join(map(str, numbers))}"


def _left_out(content: Content) -> list[str]:
    if content.study.control is None or not content.has_accuracy:
        return []
    lines = []
    for group, pairs in content.study.groups.items():
        rows = [row for row in content.group_gains.values() if row.group == group and row.state != "complete"]
        names = ", ".join(f"{row.method} ({row.n}/{row.planned} runs)" for row in rows)
        over = plural(len(pairs), f"{group} pair")
        lines += [f"Left out of the means and ranks over the {over}: {names}."] if rows else []
    return lines
