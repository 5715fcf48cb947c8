"""The verdict of the gate on every (pair, method): records against the baseline, level by level.

Level 0: same seeds on the same machine: equal losses in every epoch and equal top-1 are IDENTICAL, and nothing more is
asked. Unequal ones are no failure; fresh seeds decide.

Level 1: seeds that the baseline has not, in two stages (`decision`), on the last-epoch top-1 and on every term of the
training loss. Accuracy decides between WORSE and BETTER. The losses move by many standard deviations where an
objective, the data or the augmentation changed and accuracy hardly does (a KD term lost, labels shifted); what has
moved so is no longer what the baseline measured and counts as WORSE until the baseline is updated. Where the gain over
the control, or the control's own loss, tells, the verdict says whether the trainer or the method is to blame.

Level 2: bounds that hold for any seed: the loss is finite and falls, top-1 stays above half of the baseline's.
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import replace

from scipy.stats import mannwhitneyu

from kdbench.analysis.cost import SPEED_MARGIN
from kdbench.analysis.stats import median_interval
from kdbench.errors import one_line
from kdbench.gate.baseline import Baseline, BaselineCell, last_losses, machine, ratios, trace
from kdbench.gate.decision import ACCURACY, FIRST, LOSS, MORE, Shift, detectable_drop, pooled_p, two_stage
from kdbench.gate.verdict import CheckResult, Outcome, Verdict
from kdbench.results.schema import CellRecord
from kdbench.results.study import PairMethod, Study

COLLAPSED = 0.5
"""Share of the baseline's mean top-1 that every seed must reach: far above chance, far below any noise."""


def check_study(
    study: Study,
    baseline: Baseline,
    pair_methods: Collection[PairMethod] | None = None,
    known_methods: Collection[str] = (),
    fail_on_speed: bool = False,
) -> CheckResult:
    """Hold the records against the baseline.

    Args:
        pair_methods: the (pair, method)s that are asked for; by default all of the baseline and all that were planned.
        known_methods: methods that were not planned but would have been, had the baseline known them.
    """
    wanted = list(
        baseline.by_pair_method
        if pair_methods is None
        else (pair_method for pair_method in baseline.by_pair_method if pair_method in pair_methods)
    )
    verdicts = {pair_method: _verdict(study, baseline, pair_method) for pair_method in wanted}
    for pair_method in study.planned:
        expected = pair_method in baseline.by_pair_method or study.unsupported(pair_method)
        if not expected and (pair_methods is None or pair_method in pair_methods):
            verdicts[pair_method] = _unknown(baseline, pair_method)
    for method in known_methods:
        if method not in baseline.roles and all(method != other for _, other in verdicts):
            verdicts["", method] = _unknown(baseline, ("", method))
    blamed = tuple(_blamed(verdict, verdicts.get((verdict.pair, baseline.control))) for verdict in verdicts.values())
    return CheckResult(baseline, study.manifest["command"], blamed, fail_on_speed)


def _unknown(baseline: Baseline, pair_method: PairMethod) -> Verdict:
    if pair_method[1] in baseline.roles:
        reason = "the baseline knows the method, but not on this pair; update the baseline, or leave the pair out"
        return Verdict(*pair_method, Outcome.MISSING_BASELINE, reason)
    return Verdict(*pair_method, Outcome.NEW_METHOD, "not in the baseline; it passes, and the next update takes it in")


def _verdict(study: Study, baseline: Baseline, pair_method: PairMethod) -> Verdict:
    cell = baseline.by_pair_method[pair_method]
    verdict = Verdict(*pair_method, Outcome.PASS, finds=_finds(cell))
    if pair_method not in study.planned:
        reason = "not planned: was the method renamed or removed, or the pair left out?"
        return replace(verdict, outcome=Outcome.MISSING_CELL, reason=reason)
    verdict = _with_speed(verdict, study, baseline, cell)
    records = study.by_seed(pair_method)
    stale = next((reason for record in records.values() if (reason := _stale(study, baseline, record))), "")
    if stale:
        return replace(verdict, outcome=Outcome.STALE_PROTOCOL, reason=stale)
    for seed, record in sorted(records.items()):
        if record["status"] != "done":
            error = (record["error"] or "").partition("\n")[0]
            reason = f"seed {seed} {record['status']}: {one_line(error)}"
            return replace(verdict, outcome=Outcome.FAILED_CELL, reason=reason)
    absent = [str(seed) for seed in study.planned[pair_method] if seed not in records]
    if absent:
        reason = f"seed {', '.join(absent)} planned, but without a record; run the same command again"
        return replace(verdict, outcome=Outcome.MISSING_CELL, reason=reason)
    broken = next((reason for record in records.values() if (reason := _out_of_bounds(cell, record))), "")
    if broken:
        return replace(verdict, outcome=Outcome.WORSE, reason=f"level 2: {broken}")
    return _level_1(verdict, study, baseline, cell)


def _stale(study: Study, baseline: Baseline, record: CellRecord) -> str:
    """Why a record is not of the kind that the baseline holds; empty where it is."""
    precision = machine(study, record)["precision"] if record["status"] == "done" else None
    pairs = [
        ("protocol", baseline.protocol, record["protocol"]),
        ("split", baseline.split, record["split"]),
        ("hyperparameters", baseline.hyperparameters[record["method"]], record["hyperparameters"]),
        ("teacher", baseline.teachers[record["pair"]][:12], record["teacher"]["sha256"][:12]),
        ("precision", baseline.machine["precision"], precision or baseline.machine["precision"]),
    ]
    for what, old, new in pairs:
        if old != new:
            if isinstance(old, dict) and isinstance(new, dict):
                names = sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))
                old, new = ({name: one.get(name) for name in names} for one in (old, new))
            return f"{what} {old} in the baseline, {new} here; update the baseline if that is meant"
    return ""


def _out_of_bounds(cell: BaselineCell, record: CellRecord) -> str:
    """Which bound of level 2 a finished record breaks; empty where it keeps them all."""
    totals = [sum(values) for values in zip(*record.get("curves", {}).get("loss", {}).values(), strict=True)]
    top1, least = record.get("top1", math.nan), COLLAPSED * sum(cell.top1) / len(cell.top1)
    where = f"seed {record['seed']}"
    if not all(map(math.isfinite, [top1, *totals])):
        return f"{where}: top-1 or loss is not finite"
    if len(totals) > 1 and totals[-1] >= totals[0]:
        return f"{where}: the loss does not fall ({totals[0]:.4g} in the first epoch, {totals[-1]:.4g} in the last)"
    if top1 < least:
        return f"{where}: top-1 {top1:.2f} is below {least:.2f}, half of the baseline's"
    return ""


def identity(study: Study, baseline: Baseline, pair_method: PairMethod) -> bool | None:
    """Level 0: whether the records of the baseline's own seeds are the baseline's; None without a traced one."""
    cell, done = baseline.by_pair_method[pair_method], study.done(pair_method)
    traced = [(number, seed) for number, seed in enumerate(baseline.seeds[: len(cell.traces)]) if seed in done]
    if not traced:
        return None
    same_top1 = all(done[seed].get("top1") == cell.top1[i] for i, seed in enumerate(baseline.seeds) if seed in done)
    return same_top1 and all(trace(done[seed]) == cell.traces[number] for number, seed in traced)


def _level_1(verdict: Verdict, study: Study, baseline: Baseline, cell: BaselineCell) -> Verdict:
    identical = identity(study, baseline, cell.pair_method)
    if identical:
        return replace(verdict, outcome=Outcome.IDENTICAL)
    note = "" if identical is None else "numerics changed"
    fresh = {seed: record for seed, record in study.done(cell.pair_method).items() if seed not in baseline.seeds}
    if len(fresh) < FIRST:
        reason = f"{FIRST - len(fresh)} more seeds that the baseline has not are needed"
        return replace(
            verdict,
            outcome=Outcome.MISSING_CELL,
            reason="; ".join(filter(None, (note, reason))),
            wants=FIRST - len(fresh),
        )
    records = list(fresh.values())
    accuracy = two_stage(cell.top1, [record.get("top1", math.nan) for record in records], ACCURACY)
    verdict = replace(verdict, accuracy=accuracy, gain=_gain(study, baseline, cell, list(fresh)[: accuracy.n_new]))
    terms = set(cell.losses)
    if other := next((other_terms for record in records if (other_terms := set(last_losses(record))) != terms), None):
        reason = f"the loss terms are {_names(other)}, in the baseline {_names(terms)}"
        return replace(verdict, outcome=Outcome.WORSE, reason=reason, blame="method")
    by_term = {
        term: two_stage(values, [last_losses(record)[term] for record in records], LOSS, tests=len(terms))
        for term, values in cell.losses.items()
    }
    term = min(by_term, key=lambda name: (_ORDER.index(by_term[name].stage), by_term[name].p))
    verdict = replace(verdict, loss=by_term[term], term=term)
    return replace(verdict, **_level_1_outcome(accuracy, by_term[term], term, len(records), note))


_ORDER = ("moved", "suspicious", "cleared", "pass")


def _level_1_outcome(accuracy: Shift, loss: Shift, term: str, n: int, note: str) -> dict[str, object]:
    stages = (accuracy.stage, loss.stage)
    moved = f"the loss term {term} moved from {loss.old:.4g} to {loss.new:.4g}"
    if accuracy.stage == "moved":
        outcome = Outcome.BETTER if accuracy.difference > 0 else Outcome.WORSE
        reason = f"top-1 moved by {accuracy.difference:+.2f}" + (f", and {moved}" if loss.stage == "moved" else "")
        return {"outcome": outcome, "reason": reason}
    if loss.stage == "moved":
        return {"outcome": Outcome.WORSE, "reason": f"{moved}: not what the baseline measured; top-1 did not move"}
    if "suspicious" in stages:
        what = " and ".join(
            name
            for name, stage in zip(("top-1", f"the loss term {term}"), stages, strict=True)
            if stage == "suspicious"
        )
        wants = FIRST + MORE - n
        return {
            "outcome": Outcome.MISSING_CELL,
            "reason": f"{what} suspicious after {FIRST} seeds; {wants} more decide",
            "wants": wants,
        }
    cleared = "cleared" in stages
    reason = "suspicious after the first seeds, not after all" if cleared else ""
    return {
        "outcome": Outcome.CLEARED if cleared else Outcome.PASS,
        "reason": "; ".join(filter(None, (note, reason))),
    }


def _gain(study: Study, baseline: Baseline, cell: BaselineCell, seeds: Sequence[int]) -> Shift | None:
    """The gain over the control on `seeds`, where the control is done for all of them."""
    control = (cell.pair, baseline.control)
    of_method, others = study.done(cell.pair_method), study.done(control)
    if cell.method == baseline.control or any(seed not in others for seed in seeds):
        return None
    old = baseline.gains(cell.pair_method)
    new = [of_method[seed].get("top1", math.nan) - others[seed].get("top1", math.nan) for seed in seeds]
    tested = two_stage(old, new, ACCURACY)
    return replace(tested, new=sum(new) / len(new), n_new=len(new), p=pooled_p(old, new))


def _blamed(verdict: Verdict, control: Verdict | None) -> Verdict:
    """Say whether the trainer or the method moved: by the control where it is identical, else by gain or loss."""
    if verdict.outcome not in (Outcome.WORSE, Outcome.BETTER) or verdict.blame:
        return verdict
    if control is not None and control.pair_method == verdict.pair_method:
        return replace(verdict, blame="trainer")
    if control is not None and control.outcome is Outcome.IDENTICAL:
        return replace(verdict, blame="method")
    if verdict.accuracy is None:
        # Beyond a bound, which needs no test.
        beyond = {Outcome.WORSE: "trainer", Outcome.PASS: "method", Outcome.CLEARED: "method"}
        return verdict if control is None else replace(verdict, blame=beyond.get(control.outcome))
    if verdict.accuracy.stage == "moved":
        # One more test on the same numbers, to tell two explanations apart; it raises no alarm of its own.
        blame = None if verdict.gain is None else "method" if verdict.gain.p < ACCURACY.suspect else "trainer"
        return replace(verdict, blame=blame)
    if control is None or control.loss is None:
        return verdict
    return replace(verdict, blame="trainer" if control.loss.p < LOSS.suspect else "method")


def _with_speed(verdict: Verdict, study: Study, baseline: Baseline, cell: BaselineCell) -> Verdict:
    """The throughput of a cell as a ratio to the control's; the control is the measure and has none.

    Ratios of single blocks have outliers on a loaded machine, so they are compared by ranks (Mann-Whitney).
    """
    if not cell.ratios or baseline.control == cell.method:
        return verdict
    record = study.measurements.get(cell.pair_method)
    if record is None:
        return replace(verdict, speed=Outcome.MISSING_CELL)
    if record["timing_protocol"] != baseline.timing_protocol:
        return replace(verdict, speed=Outcome.STALE_PROTOCOL)
    speeds = ratios(study, cell.pair_method)
    if not speeds:
        return replace(verdict, speed=Outcome.FAILED_CELL)
    old, new = median_interval(cell.ratios), median_interval(speeds)
    change = new.value / old.value - 1
    if math.isnan(old.low) or math.isnan(new.low):
        # So few blocks have no interval, and no difference could be told from noise.
        speed = Outcome.MISSING_CELL
    elif abs(change) <= SPEED_MARGIN or mannwhitneyu(cell.ratios, speeds).pvalue >= ACCURACY.fail:
        speed = Outcome.PASS
    else:
        speed = Outcome.SLOWER if change < 0 else Outcome.FASTER
    return replace(verdict, speed=speed, old_ratio=old, new_ratio=new)


def _finds(cell: BaselineCell) -> float:
    """Points of top-1 that a drop must have to be found with 80 % probability."""
    n = len(cell.top1)
    if n < 2:
        return math.nan
    mean = sum(cell.top1) / n
    return detectable_drop(n) * math.sqrt(sum((value - mean) ** 2 for value in cell.top1) / (n - 1))


def _names(terms: Collection[str]) -> str:
    return " + ".join(sorted(terms))
