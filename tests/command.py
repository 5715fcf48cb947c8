"""The command line, as tests call it: exit code and output, whichever process it runs in."""

import os
import subprocess
import sys
from contextlib import chdir, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

from kdbench.cli.main import main

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
