"""Pairs of any models in any suite: `swin_tiny_patch4_window7_224:resnet18[layers=[1,1,1,1]]`.

A model that the suite does not list is what timm calls by that name, or what a function makes, as in
`torchvision.models:resnet18` and `./mine.py:build`; overrides stand in brackets, as TOML writes them. It is trained as
the suite trains its own models of the same kind.
"""

import re
import tomllib
from collections import Counter
from collections.abc import Iterable

from kdbench.errors import KdbenchError, unknown_name
from kdbench.models.spec import Kind, ModelSpec
from kdbench.suites.request import split
from kdbench.suites.schema import PairSpec, Suite
from kdbench.targets import is_target

_MODEL = re.compile(r"(?P<timm>[^\[\]]+)(\[(?P<overrides>.*)\])?")


def with_pairs(suite: Suite, request: str) -> Suite:
    """The suite with the pairs of a request such as `hetero,vit_tiny_patch16_224:resnet18` that it does not list.

    Raises:
        KdbenchError: a model that neither suite nor timm knows, or overrides that are not TOML.
    """
    known = {"all", "hetero", "homo", *suite.pair_names}
    pairs = []
    for word in split(request):
        ends = _ends(word)
        if word not in known and len(ends) == 2:
            pairs.append(PairSpec(teacher=ends[0], student=ends[1]))
    if not pairs:
        return suite
    students = with_models(suite, [pair.student for pair in pairs], as_teacher=False)
    extended = with_models(students, [pair.teacher for pair in pairs], as_teacher=True)
    return extended.model_copy(update={"pairs": (*suite.pairs, *pairs)})


def _ends(word: str) -> list[str]:
    """The models of a pair; that of a function has a colon of its own."""
    ends: list[str] = []
    parts = split(word, ":")
    while parts:
        size = 2 if len(parts) > 1 and is_target(":".join(parts[:2])) else 1
        ends.append(":".join(parts[:size]))
        del parts[:size]
    return ends


def with_models(suite: Suite, names: Iterable[str], as_teacher: bool) -> Suite:
    """The suite with the models among `names` that it does not list, trained as its teachers or as its students are.

    Raises:
        KdbenchError: as `with_pairs`.
    """
    new = {name: _spec(suite, name, as_teacher) for name in names if name not in suite.models}
    return suite.model_copy(update={"models": suite.models | new}) if new else suite


def _spec(suite: Suite, name: str, as_teacher: bool) -> ModelSpec:
    match = _MODEL.fullmatch(name)
    if match is None:
        raise KdbenchError(f"model {name!r} is not of the form NAME or NAME[key=value,...]")
    # Only who names such a model waits for timm.
    import timm

    from kdbench.models.kind import kind_of

    if not is_target(match["timm"]) and not timm.is_model(match["timm"]):
        raise unknown_name(
            f"model, to suite {suite.name} and to timm,", match["timm"], [*suite.models, *timm.list_models()]
        )
    try:
        overrides = tomllib.loads(f"value = {{{match['overrides'] or ''}}}")["value"]
    except tomllib.TOMLDecodeError as error:
        raise KdbenchError(f"overrides of {name!r} are not TOML, as in resnet18[layers=[1,1,1,1]]: {error}") from error
    spec = ModelSpec(timm=match["timm"], kwargs=overrides, kind="cnn", recipe="-")
    kind = kind_of(spec)
    return spec.model_copy(update={"kind": kind, "recipe": _recipe(suite, kind, as_teacher)})


def _recipe(suite: Suite, kind: Kind, as_teacher: bool) -> str:
    """What trains most of the suite's models of this kind; without any, of those that are no CNNs either, or of all."""
    own = {pair.teacher if as_teacher else pair.student for pair in suite.pairs}
    models = [suite.models[name] for name in sorted(own)]
    for alike in (
        [model for model in models if model.kind == kind],
        [model for model in models if (model.kind == "cnn") == (kind == "cnn")],
        models,
    ):
        if alike:
            return Counter(model.recipe for model in alike).most_common(1)[0][0]
    raise KdbenchError(f"suite {suite.name} has no pairs, and so no recipe for other models")
