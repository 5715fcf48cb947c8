"""`kdbench clean`: remove what nothing needs any more from a results folder."""

from kdbench.cli import options
from kdbench.cli.console import open_console, print_json, say
from kdbench.errors import KdbenchError
from kdbench.names import plural


def clean(
    results: options.Results, /, *, delete: bool = False, unplanned: bool = False, json: options.Json = False
) -> None:
    """List, or remove, what nothing needs in a results folder.

    Args:
        results: A results folder that no run is at work in.
        delete: Remove what is listed; without this option it is only listed.
        unplanned: List also what belongs to cells that the last run into the folder did not plan, as it had other
            settings or seeds.
    """
    from kdbench.results.folder import Results
    from kdbench.results.leftovers import leftovers

    unneeded = leftovers(Results(results), unplanned)
    size = sum(path.stat().st_size for path, _ in unneeded)
    if delete:
        for path, _ in unneeded:
            try:
                path.unlink()
            except OSError as error:
                raise KdbenchError(f"cannot remove {path}: {error.strerror or error}") from error
    if json:
        files = [{"file": str(path), "reason": reason} for path, reason in unneeded]
        print_json({"files": files, "bytes": size, "deleted": delete})
        return
    console = open_console()
    for path, reason in unneeded:
        say(console, f"{path.relative_to(results)}: {reason}")
    done = "removed" if delete else "can go; --delete removes them"
    what = plural(len(unneeded), "file")
    say(console, f"{what}, {size / 1e6:.1f} MB {done}" if unneeded else "there is nothing to remove")
