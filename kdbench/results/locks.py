"""Locks of cells: runs in one results folder share its cells, because the process that trains a cell holds its lock.

The system gives a lock back when its holder dies, however it dies, so there are no stale ones. On a file system without
locks everybody gets what it asks for.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO

try:
    import fcntl
except ImportError:
    fcntl = None


@contextmanager
def claimed(paths: Iterable[Path]) -> Iterator[list[Path]]:
    """Those of the locks that nobody held, held until the end and removed then.

    Raises:
        OSError: the folder cannot be written.
    """
    with ExitStack() as stack:
        held = []
        for path in paths:
            file = _lock(path)
            if file is not None:
                stack.enter_context(file)
                held.append(path)
        try:
            yield held
        finally:
            for path in held:
                path.unlink(missing_ok=True)


def is_claimed(path: Path) -> bool:
    """Whether a process holds the lock."""
    if fcntl is None:
        return False
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        pass
    return False


def _lock(path: Path) -> IO[bytes] | None:
    """The locked file, or None where somebody else holds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        file = path.open("ab")
        if fcntl is None:
            return file
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return None
        except OSError:
            return file
        # The last holder may have removed the file between our opening and our locking it.
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        file.close()
