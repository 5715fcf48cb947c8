"""The command line, as tests call it: exit code and output, whichever process it runs in."""

import json
import os
import subprocess
import sys
from contextlib import chdir, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

from cyclopts.argument import Argument

from kdbench.cli.main import main, make_app

COMMAND = (sys.executable, "-m", "kdbench.cli.main")


def kdbench(*arguments: object, cwd: Path | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
    """`kdbench ARGUMENTS` in the folder `cwd`.

    In this process, which has torch loaded; in one of its own where environment variables are set.
    """
    words = [str(argument) for argument in arguments]
    if variables:
        environment = {**os.environ, **variables}
        return subprocess.run([*COMMAND, *words], capture_output=True, text=True, cwd=cwd, env=environment, timeout=300)
    out, err = StringIO(), StringIO()
    with chdir(cwd or Path.cwd()), redirect_stdout(out), redirect_stderr(err):
        try:
            code = main(words)
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(bool(end.code))
    return subprocess.CompletedProcess(words, code, out.getvalue(), err.getvalue())


LIGHT = """
import json, sys
from kdbench.cli.main import main
heavy, words = json.loads(sys.argv[1])
try:
    code = main(words)
except SystemExit as end:
    code = end.code
loaded = [name for name in heavy if name in sys.modules]
sys.exit(f"{loaded} need not be loaded" if loaded else code)
"""


def kdbench_without(heavy: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """`kdbench ARGUMENTS` in a process of its own, which fails with 1 if it has loaded one of these modules."""
    given = json.dumps([heavy.split(), [str(argument) for argument in arguments]])
    return subprocess.run([sys.executable, "-c", LIGHT, given], capture_output=True, text=True, timeout=60)


def arguments_of(*words: str) -> dict[tuple[str, ...], list[Argument]]:
    """The arguments of the command that is called by `words`, and those of the commands below it."""
    root = make_app()
    _, apps, _ = root.parse_commands(words)
    with root.app_stack(apps):
        own = apps[-1].assemble_argument_collection() if apps[-1].default_command else []
        found = {words: [argument for argument in own if argument.name != "*"]}
    for name in (name for name in apps[-1] if not name.startswith("-")):
        found |= arguments_of(*words, name)
    return found
