"""Completion in bash, zsh and fish: the values that options take, and the command that the shells ask."""

import shlex
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from cyclopts import App
    from cyclopts.completion import CompletionContext

    from kdbench.suites.schema import Suite

Shell = Literal["bash", "zsh", "fish"]

SCRIPTS: dict[Shell, str] = {
    # Outside of quotation marks bash cuts words at signs such as `:`, and replaces what follows the last cut.
    "bash": """\
_kdbench() {
    local candidate cuts=$COMP_WORDBREAKS
    [[ ${COMP_WORDS[COMP_CWORD]} == [\\'\\"]* ]] && cuts=
    COMPREPLY=()
    while IFS= read -r candidate; do
        COMPREPLY+=("$candidate")
    done < <(kdbench completion bash --line="${COMP_LINE:0:COMP_POINT}" --cuts="$cuts" 2>/dev/null)
}
complete -o bashdefault -o default -F _kdbench kdbench
""",
    "zsh": """\
#compdef kdbench
_kdbench() {
    local -a candidates
    candidates=("${(@f)$(kdbench completion zsh --line="${(j: :)words[1,CURRENT-1]} $PREFIX" 2>/dev/null)}")
    if [[ -n "$candidates" ]]; then _describe kdbench candidates; else _files; fi
}
compdef _kdbench kdbench
""",
    "fish": """\
function __kdbench_complete
    set -l candidates (kdbench completion fish --line=(commandline -cp | string collect) 2>/dev/null)
    if set -q candidates[1]
        printf '%s\\n' $candidates
    else
        __fish_complete_path (commandline -ct)
    end
end
complete -c kdbench -f -a '(__kdbench_complete)'
""",
}


def print_candidates(app: "App", shell: Shell, line: str, cuts: str) -> None:
    """Print what may stand at the end of a command line, as the function of the shell reads it.

    Args:
        cuts: the signs at which the shell cuts words.
    """
    word, candidates = complete(app, line)
    kept = max((word.rfind(sign) + 1 for sign in cuts), default=0)
    for value, summary in candidates:
        if shell == "bash":
            print(value[kept:])
        elif shell == "zsh":
            print(value.replace(":", "\\:") + (f":{summary}" if summary else ""))
        else:
            print(f"{value}\t{summary}")


def complete(app: "App", line: str) -> tuple[str, list[tuple[str, str]]]:
    """The last word of a command line, and what it may become, each with a summary; nothing where files are meant."""
    from cyclopts.completion._engine import compute_full_completions, resolve_slot

    words = _words(line)[1:] or [""]
    slot = resolve_slot(app, words)
    # An empty word that no argument takes is the place of an option.
    if slot is not None and slot.active is None and not words[-1]:
        commands = compute_full_completions(app, words).candidates
        words = words if commands else [*words[:-1], "-"]
    completions = compute_full_completions(app, words)
    return words[-1], [(f"{completions.prefix}{value}", summary) for value, summary in completions.candidates]


def _words(line: str) -> list[str]:
    """The words of a command line up to the cursor, at which a quotation may be open."""
    for closing in ("", "'", '"'):
        try:
            # What stands at the cursor is a word even where it is empty.
            *words, last = shlex.split(f"{line}\0{closing}")
        except ValueError:
            continue
        return [*words, last.removesuffix("\0")]
    return ["", ""]


def _listed(names: Iterable[str], context: "CompletionContext") -> Iterator[str]:
    """What a list with commas may become: each of `names` that is not in it yet, behind those that are."""
    before, comma, _ = context.incomplete.rpartition(",")
    yield from (f"{before}{comma}{name}" for name in names if name not in before.split(","))


def _suite(context: "CompletionContext") -> "Suite":
    """The suite that the command line names."""
    from kdbench.suites.loading import load_suite

    named = context.get("--suite")
    return load_suite(named.value if named and named.value else "proxy")


def suite_names(context: "CompletionContext") -> Iterator[str]:
    """The suites that come with kdbench and their variants, and suite files."""
    from kdbench.suites.loading import available, load_suite
    from kdbench.suites.schema import VARIANT

    for name in available():
        yield name
        yield from (f"{name}{VARIANT}{variant}" for variant in load_suite(name).variants)


def method_names(context: "CompletionContext") -> Iterator[str]:
    """A list of methods."""
    from kdbench.registry import Registry

    return _listed(["all", *Registry.installed().names], context)


def pair_names(context: "CompletionContext") -> Iterator[str]:
    """A list of pairs of the suite."""
    return _listed(["all", "hetero", "homo", *_suite(context).pair_names], context)


def teacher_names(context: "CompletionContext") -> Iterator[str]:
    """A list of teachers of the suite."""
    return _listed(dict.fromkeys(pair.teacher for pair in _suite(context).pairs), context)


def model_names(context: "CompletionContext") -> list[str]:
    """The models of the suite."""
    return list(_suite(context).models)


def protocol_names(context: "CompletionContext") -> list[str]:
    """The protocols of published numbers."""
    from kdbench.analysis.published import protocols

    return list(protocols())
