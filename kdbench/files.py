"""JSON files and others, written as a whole or not at all; imports neither torch nor timm."""

import hashlib
import json
import os
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from kdbench.errors import KdbenchError

PART = ".part"
"""How a file ends that is being written; one that stays behind is of a process that was killed."""


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no spaces: equal values give equal bytes."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def content_key(value: Any) -> str:
    """SHA-256 (hex) of the canonical JSON of `value`."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def write_json(path: Path, value: Any) -> None:
    """Write atomically: readers see the old file or the new one, never a part of it."""
    write_bytes(path, (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Atomic write of `content` to `path`, its folder made as needed.

    Raises:
        KdbenchError: the folder cannot be written (missing rights, full disk).
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # The name tells whose it is, should the process be killed here.
        prefix = f".{path.name[:40]}."
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=prefix, suffix=PART, delete=False) as file:
            temporary = Path(file.name)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except OSError as error:
        if temporary is not None:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
        raise KdbenchError(f"cannot write {path}: {error.strerror or error}; free space or choose --out") from error


def read_json(path: Path) -> Any:
    """Read one JSON file.

    Raises:
        KdbenchError: the file is unreadable, is not JSON, or has a key twice, of which one would be lost.
    """
    try:
        return json.loads(path.read_bytes(), object_pairs_hook=_each_once)
    except (OSError, ValueError) as error:
        raise KdbenchError(f"cannot read {path}: {error}; move it away and run again") from error
    except RecursionError as error:
        raise KdbenchError(f"cannot read {path}: it is nested too deeply; move it away and run again") from error


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"it has the key {next(name for name in names if names.count(name) > 1)!r} twice")
    return content
