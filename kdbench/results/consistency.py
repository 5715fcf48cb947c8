"""Whether what was read agrees with itself: a record of the right types may still say two things at once.

Each function tells what is wrong in a few words, or None.
"""

from collections.abc import Mapping
from typing import Any

from kdbench.errors import KdbenchError
from kdbench.values import unequal

Record = Mapping[str, Any]
"""Of a type that `kdbench.results.records` defines."""


def broken_cell(record: Record) -> str | None:
    """A finished cell has an accuracy and whole curves."""
    if record["status"] != "done":
        return None
    for name in ("top1", "evaluated", "curves"):
        if name not in record:
            return f"it is done and has no {name}"
    return unequal_curves(record["curves"])


def unequal_curves(curves: Record) -> str | None:
    """Curves of one kind are as long as each other."""
    return unequal({"epoch": curves["epoch"], "lr": curves["lr"], **curves["loss"]}) or unequal(
        {name: curves[name] for name in ("eval_epoch", "eval_top1")}
    )


def broken_throughput(record: Record) -> str | None:
    """A finished measurement has blocks, and those of control and baseline are of the same rounds."""
    if record["status"] != "done":
        return None
    for name in ("batch_size", "blocks"):
        if not record.get(name):
            return f"it is done and has no {name}"
    rounds = {name: record.get(name) or [] for name in ("blocks", "control_blocks", "baseline_blocks")}
    return unequal({name: blocks for name, blocks in rounds.items() if blocks})


def broken_manifest(manifest: Record) -> str | None:
    """All that is planned is about the methods, pairs and seeds that it lists, and nothing is there twice."""
    methods, pairs, seeds = manifest["methods"], manifest["pairs"], manifest["seeds"]
    cells = [(cell["pair"], cell["method"], cell["seed"]) for cell in manifest["cells"]]
    timings = [(one["pair"], one["method"]) for one in manifest["throughput"]]
    keys = [one["key"] for one in (*manifest["cells"], *manifest["throughput"])]
    for what, names in (("methods", methods), ("pairs", pairs), ("seeds", seeds), ("cells", cells), ("keys", keys)):
        if len(set(names)) < len(names):
            return f"of its {what} one is there twice"
    roles = list(manifest["roles"].values())
    if set(manifest["roles"]) != set(methods) or roles.count("control") > 1 or roles.count("baseline") > 1:
        return "not every method has one role, and not every role one method"
    if not set(manifest["hetero"]) <= set(pairs):
        return "a heterogeneous pair is not among its pairs"
    for pair, method, seed in [*cells, *((*place, None) for place in timings)]:
        if pair not in pairs or method not in methods or not (seed is None or seed in seeds):
            return f"it plans {method} on {pair}, seed {seed}, which it does not list"
    control = next((name for name, role in manifest["roles"].items() if role == "control"), None)
    for pair, by_method in manifest.get("equal_time", {}).items():
        if pair not in pairs or not set(by_method) <= set(methods) or control not in by_method:
            return f"its epochs of equal time on {pair} are not of its methods"
    return None


def is_planned(record: Record, planned: Mapping[str, Record]) -> bool:
    """Whether a record is one of those `planned`, by key; those of other settings are not.

    Raises:
        KdbenchError: its key is planned for something else.
    """
    plan = planned.get(record["key"])
    if plan is None:
        return False
    for name, value in plan.items():
        if record.get(name) != value:
            raise KdbenchError(
                f"record {record['key'][:12]} is of {name} {record.get(name)}, the manifest plans it for {value}; "
                "run again into another folder with --out"
            )
    return True
