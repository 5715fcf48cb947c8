"""`kdbench list methods|pairs|suites|models`: what there is, without importing torch; with it, a model's stages."""

from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from kdbench.cli import completion, options
from kdbench.cli.console import make_table, open_console, print_json
from kdbench.errors import KdbenchError

if TYPE_CHECKING:
    from kdbench.models.staged import StagedModel
    from kdbench.suites.schema import Suite

Row = dict[str, str | int]


def list_(
    what: Literal["methods", "pairs", "suites", "models"],
    /,
    *,
    suite: options.SuiteName = "proxy",
    stages: Annotated[str | None, Parameter(metavar="NAME", completer=completion.model_names)] = None,
    size: Annotated[int | None, options.number(1, 4096)] = None,
    json: options.Json = False,
) -> None:
    """List methods, pairs, suites or models.

    Args:
        what: What to list.
        stages: Of models: tell what kdbench sees of this one, a model of the suite or any of timm's.
        size: With --stages: look at N x N colour images instead of the suite's.
    """
    if what != "models" and (stages or size):
        raise KdbenchError("--stages and --size are about models: `kdbench list models --stages NAME`")
    if what == "methods":
        rows = _methods()
    elif what == "suites":
        rows = _suites()
    else:
        from kdbench.suites.loading import load_suite

        loaded = load_suite(suite)
        if what == "pairs":
            rows = _pairs(loaded)
        else:
            rows = _models(loaded) if stages is None else _stages(loaded, stages, size)
    if json:
        print_json(rows)
    else:
        open_console().print(make_table(rows, unbroken=("method", "pair", "suite", "model")))


def _methods() -> list[Row]:
    from kdbench.registry import Registry

    registry = Registry.installed()
    rows: list[Row] = []
    for name in registry.names:
        plugin = registry.plugins[name]
        aliases = ", ".join(plugin.source.aliases)
        rows.append({"method": name, "aliases": aliases, "from": plugin.origin, "summary": plugin.source.summary})
    for name, error in registry.errors.items():
        rows.append({"method": name, "aliases": "", "from": "BROKEN", "summary": error})
    return rows


def _pairs(suite: "Suite") -> list[Row]:
    return [
        {
            "pair": pair.name,
            "kind": "hetero" if suite.is_hetero(pair) else "homo",
            "teacher": f"{suite.models[pair.teacher].kind}, {suite.models[pair.teacher].timm}",
            "student": f"{suite.models[pair.student].kind}, {suite.models[pair.student].timm}",
        }
        for pair in suite.pairs
    ]


def _suites() -> list[Row]:
    from kdbench.suites.loading import available, load_suite
    from kdbench.suites.schema import VARIANT

    names = [
        name for base in available() for name in (base, *(f"{base}{VARIANT}{v}" for v in load_suite(base).variants))
    ]
    return [
        {"suite": name, "pairs": len(suite.pairs), "protocol": suite.protocol, "description": suite.description}
        for name in names
        for suite in [load_suite(name)]
    ]


def _models(suite: "Suite") -> list[Row]:
    return [
        {
            "model": name,
            "kind": spec.kind,
            "timm": spec.timm,
            "overrides": ", ".join(f"{key}={value}" for key, value in spec.kwargs.items()),
            "recipe": spec.recipe,
        }
        for name, spec in suite.models.items()
    ]


def _stages(suite: "Suite", name: str, size: int | None) -> list[Row]:
    from kdbench.suites.anymodel import with_model

    if size is not None:
        data = suite.data.model_copy(update={"image_size": size, "mean": (0.5,) * 3, "std": (0.5,) * 3})
        suite = suite.model_copy(update={"data": data})
    suite, name = with_model(suite, name, as_teacher=False)
    channels, side, _ = suite.data.image_shape

    from kdbench.models.create import create_model
    from kdbench.models.staged import StagedModel

    model = create_model(suite.models[name], suite.data.classes or 10, channels, side)
    staged = StagedModel(model, (channels, side, side), ((0.5,) * channels, (0.5,) * channels))
    rows: list[Row] = []
    for stage, info in staged.stages.items():
        tokens = f" + {info.prefix}" if info.prefix else ""
        tap: dict[str, str] = {} if info.tap is None else model.feature_info[info.tap]  # type: ignore[index]
        rows.append(
            {
                "stage": str(stage),
                "module": tap.get("own_name") or tap.get("module", "final features"),
                "computes on": info.layout,
                "shape": f"{info.channels} x {info.grid[0]} x {info.grid[1]}{tokens}",
                "resume": _resume(staged, stage),
            }
        )
    rows.append({"stage": "pooled", "module": "", "computes on": "", "shape": str(staged.pooled_width), "resume": ""})
    return rows


def _resume(staged: "StagedModel", stage: int) -> str:
    from kdbench.errors import UnsupportedPair

    try:
        tail = staged.tail(stage)
    except UnsupportedPair as reason:
        return f"no: {str(reason).partition(': ')[2] or reason}"
    info = staged.stages[stage]
    if (tail.channels, tail.grid) == (info.channels, info.grid):
        return f"yes, as {tail.layout}"
    return f"yes, further on: {tail.channels} x {tail.grid[0]} x {tail.grid[1]}, as {tail.layout}"
