"""Pairs of any models in any suite: `swin_tiny_patch4_window7_224:resnet18[layers=[1,1,1,1]]`.

A model that the suite does not list is what timm calls by that name, or what a function makes, as in
`torchvision.models:resnet18` and `./mine.py:build` (listed as `torchvision.models.resnet18` and `mine.build`);
overrides stand in brackets, as TOML writes them. It is trained as the suite trains its own models of the same kind.
"""

import json
import re
import tomllib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from kdbench.errors import KdbenchError, unknown_name
from kdbench.models.spec import FIXED, Kind, ModelSpec
from kdbench.names import shown_name, split_request
from kdbench.suites.schema import PairSpec, Suite
from kdbench.targets import is_target, short
from kdbench.values import first_problem

PUBLISHED = ("local-dir", "hf-hub")
"""What timm calls networks by whose arguments stand in a config.json, in a folder or on the Hugging Face hub."""
_MODEL = re.compile(r"(?P<timm>[^\[\]]+)(\[(?P<overrides>.*)\])?")


def select_pairs(suite: Suite, request: str) -> tuple[Suite, list[PairSpec]]:
    """The pairs of a request such as `hetero,vit_tiny_patch16_224:resnet18`, and the suite with those it does not list.

    Raises:
        KdbenchError: a model that neither suite nor timm knows, or overrides that are not TOML.
    """
    listed = {"all", "hetero", "homo", *suite.pair_names}
    words, pairs = [], []
    for word in split_request(request):
        ends = _ends(word)
        if word not in listed and len(ends) == 2:
            suite, student = with_model(suite, ends[1], as_teacher=False)
            suite, teacher = with_model(suite, ends[0], as_teacher=True)
            pairs.append(PairSpec(teacher=teacher, student=student))
            word = pairs[-1].name
        elif word not in listed and len(ends) > 2:
            raise _no_such_function(suite, ends)
        words.append(word)
    suite = suite.model_copy(update={"pairs": (*suite.pairs, *pairs)}) if pairs else suite
    return suite, suite.select_pairs(",".join(words))


def with_checkpoint(suite: Suite, pairs: Sequence[PairSpec], file: Path) -> tuple[Suite, list[PairSpec]]:
    """The suite and the pairs with `file` as the teacher's weights; it stands beside the suite's own, as NAME@FILE.

    Raises:
        KdbenchError: the pairs have several teachers.
    """
    teachers = sorted({pair.teacher for pair in pairs})
    if len(teachers) > 1:
        raise KdbenchError(
            f"--teacher-checkpoint {file} is one teacher's, the pairs have {len(teachers)} ({', '.join(teachers)}); "
            "name pairs of one with --pairs"
        )
    (teacher,) = teachers
    name = _checked(f"{teacher}@{file.stem.replace(':', '-')}")
    checkpoint_pairs = [PairSpec(teacher=name, student=pair.student) for pair in pairs]
    models = suite.models | {name: suite.models[teacher]}
    return suite.model_copy(update={"models": models, "pairs": (*suite.pairs, *checkpoint_pairs)}), checkpoint_pairs


def _ends(word: str) -> list[str]:
    """The models of a pair; that of a function has a colon of its own."""
    ends: list[str] = []
    parts = split_request(word, ":")
    while parts:
        size = 2 if len(parts) > 1 and (parts[0] in PUBLISHED or is_target(":".join(parts[:2]))) else 1
        ends.append(":".join(parts[:size]))
        del parts[:size]
    return ends


def with_model(suite: Suite, word: str, as_teacher: bool) -> tuple[Suite, str]:
    """The suite with the model that `word` asks for, trained as its teachers or as its students are, and its name.

    Raises:
        KdbenchError: as `select_pairs`; or the name is that of another model.
    """
    if word in suite.models:
        return suite, word
    _parsed(word)
    word = _current(suite, word)
    spec, name = _spec(suite, word, as_teacher), _checked(_name(word))
    existing = suite.models.get(name, spec)
    if (existing.timm, existing.kwargs, existing.stages) != (spec.timm, spec.kwargs, spec.stages):
        raise KdbenchError(f"{word} and {existing.timm} would both be called {name}; rename one of them")
    return suite.model_copy(update={"models": {name: spec} | suite.models}), name


def _name(word: str) -> str:
    """What a model is listed as: pairs and folders are named after it, so it has neither colon nor path."""
    target, bracket, overrides = word.partition("[")
    where, colon, function = target.partition(":")
    if not colon:
        return word
    return f"{Path(where).stem if where.endswith('.py') else where}.{function}{bracket}{overrides}"


def _checked(name: str) -> str:
    try:
        return shown_name(name)
    except ValueError as error:
        raise KdbenchError(f"{name!r} would be the name of a model, which {error}; choose another word") from error


def request_of(suite: Suite, name: str) -> str:
    """The word that asks for a model of the suite."""
    spec = suite.models[name]
    return spec.timm + "".join(name.partition("[")[1:]) if is_target(spec.timm) else name


def _current(suite: Suite, word: str) -> str:
    """`word` with the name that timm has for the model today, where it asks for one of timm's.

    Raises:
        KdbenchError: there is no such model, or no such module.
    """
    name = word.partition("[")[0]
    if name.partition(":")[0] in PUBLISHED:
        return _published(name, word.removeprefix(name).removeprefix("[").removesuffix("]"))
    if is_target(name):
        return word
    if ":" in name:
        raise _no_such_function(suite, [name])
    # Only who names such a model waits for timm.
    import timm
    from timm.models import get_deprecated_models

    if not timm.is_model(name):
        raise unknown_name(f"model of suite {suite.name} or of timm", name, [*suite.models, *timm.list_models()])
    renamed = get_deprecated_models()
    if name not in renamed:
        return word
    today = renamed[name]
    if today is None:
        raise KdbenchError(f"timm no longer has {name}")
    return today + word.removeprefix(name)


def _published(name: str, overrides: str) -> str:
    """The word that asks timm for the network of a config.json, with all its arguments as overrides.

    Raises:
        KdbenchError: it cannot be read.
    """
    from timm.models import load_model_config_from_hf
    from timm.models._hub import load_model_config_from_path

    scheme, _, place = name.partition(":")
    load = load_model_config_from_path if scheme == "local-dir" else load_model_config_from_hf
    try:
        _, architecture, found = load(place)
    except Exception as error:  # Those of the network and of JSON, too.
        raise KdbenchError(f"cannot read what model {name} is: {short(error)}") from error
    # An image size is that of the suite.
    arguments = {key: value for key, value in (found or {}).items() if key not in (*FIXED, "img_size")}
    if architecture == "kdbench":
        # The export of a network that timm alone cannot build.
        architecture = arguments.pop("name")
    # JSON of numbers, texts and lists is TOML, too.
    given = [f"{key}={json.dumps(value)}" for key, value in arguments.items() if value is not None]
    inside = ",".join([*given, *filter(None, [overrides])])
    return f"{architecture}[{inside}]" if inside else architecture


def _no_such_function(suite: Suite, ends: Sequence[str]) -> KdbenchError:
    """The error for a pair of too many words, the first of which should be a function in a module or a file."""
    where, *rest = [end for end in ":".join(ends).split(":") if end not in suite.models]
    function = f"{where}:{rest[0]}" if rest else where
    hint = f"a function in a file is named by its path, as in ./{where.replace('.', '/')}.py:{rest[0] if rest else 'f'}"
    return KdbenchError(f"no module {where} for the model {function}; {hint}")


def _parsed(word: str) -> re.Match[str]:
    match = _MODEL.fullmatch(word)
    if match is None:
        raise KdbenchError(f"model {word!r} is not of the form NAME or NAME[key=value,...]")
    return match


def _spec(suite: Suite, word: str, as_teacher: bool) -> ModelSpec:
    from kdbench.models.kind import kind_of

    match = _parsed(word)

    try:
        overrides = tomllib.loads(f"value = {{{match['overrides'] or ''}}}")["value"]
    except (ValueError, RecursionError) as error:
        raise KdbenchError(f"overrides of {word!r} are not TOML, as in resnet18[layers=[1,1,1,1]]: {error}") from error
    # The stages are no argument of the function.
    stages = {"stages": overrides.pop("stages")} if is_target(match["timm"]) and "stages" in overrides else {}
    try:
        spec = ModelSpec(timm=match["timm"], kwargs=overrides, kind="cnn", recipe="-", **stages)
    except ValidationError as error:
        raise KdbenchError(f"model {word!r}: {first_problem(error)}") from error
    kind = kind_of(spec, len(suite.data.mean), suite.data.image_size)
    return spec.model_copy(update={"kind": kind, "recipe": _recipe(suite, kind, as_teacher)})


def _recipe(suite: Suite, kind: Kind, as_teacher: bool) -> str:
    """What trains most of the suite's models of this kind; without any, of those that are no CNNs either, or of all.

    In a suite without pairs its models are teachers as well as students.
    """
    models_of_role = {pair.teacher if as_teacher else pair.student for pair in suite.pairs} or {*suite.models}
    models = [suite.models[name] for name in sorted(models_of_role)]
    for alike in (
        [model for model in models if model.kind == kind],
        [model for model in models if (model.kind == "cnn") == (kind == "cnn")],
        models,
    ):
        if alike:
            return Counter(model.recipe for model in alike).most_common(1)[0][0]
    raise KdbenchError(f"suite {suite.name} has no models, and so no recipe for others")
