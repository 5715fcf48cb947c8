"""The control at equal time: trained for as many epochs as fit into the time that each method takes for its own.

A method that costs 1.8 times a step is held against a control trained 1.8 times longer (the schedule stretched with
it), which answers whether its gain could be had by training on. The time is that of the throughput phase, whole steps
alone on the machine, so this comes after it.
"""

from dataclasses import replace

from kdbench.analysis.cost import pair_costs
from kdbench.errors import KdbenchError
from kdbench.files import write_json
from kdbench.results.folder import Results
from kdbench.results.study import load_study
from kdbench.study.plan import Plan, make_plan
from kdbench.study.run import RunOutcome, run
from kdbench.study.session import Session
from kdbench.suites.schema import PairSpec


def train_control(plan: Plan, session: Session) -> RunOutcome:
    """Train the control of a run for the epochs that its methods are worth; the manifest then tells them.

    The records of each number of epochs are a results folder of its own (`Results.at_epochs`): finished cells are kept.

    Raises:
        KdbenchError: throughput was not measured, or a results folder cannot be written.
    """
    results = session.results
    epochs = _worth(plan, results)
    write_json(results.manifest_path, {**results.manifest(), "equal_time": epochs})
    control = next(method for method in plan.methods if method.role == "control")
    outcome = RunOutcome({}, {})
    for number in sorted({count for by_method in epochs.values() for count in by_method.values()}):
        pairs = [pair for pair in plan.pairs if number in set(epochs[pair.name].values()) - {_own(plan, pair)}]
        if pairs:
            longer = make_plan(
                plan.suite.reduced(number),
                [control.plugin],
                pairs,
                plan.seeds,
                compute=plan.compute,
                data_root=session.data_root,
                settings={control.name: control.hyperparameters},
                split=plan.split,
                best=plan.best,
            )
            outcome += run(longer, replace(session, results=results.at_epochs(number)), throughput=False)
    return outcome


def _worth(plan: Plan, results: Results) -> dict[str, dict[str, int]]:
    """Epochs of the control by pair and method; methods without a measured ratio are left out."""
    epochs_of_control: dict[str, dict[str, int]] = {pair.name: {} for pair in plan.pairs}
    usual = {pair.name: _own(plan, pair) for pair in plan.pairs}
    for cost in pair_costs(load_study(results)):
        ratio = cost.to_control.value
        if ratio > 0:
            epochs_of_control[cost.pair][cost.method] = max(1, round(usual[cost.pair] / ratio))
    if not any(epochs_of_control.values()):
        raise KdbenchError("--equal-time goes by the throughput of control and methods, and none was measured")
    return epochs_of_control


def _own(plan: Plan, pair: PairSpec) -> int:
    """Epochs of the recipe on a pair."""
    return plan.suite.recipe_of(pair.student).epochs
