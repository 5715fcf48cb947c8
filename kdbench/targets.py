"""Things that are named by where they stand: `package.module:name`, or `path/to/file.py:name`."""

import ast
import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from kdbench.errors import KdbenchError


def is_target(text: str) -> bool:
    """Whether a word names something by where it stands."""
    where, colon, name = text.partition(":")
    if not colon or not name:
        return False
    try:
        return where.endswith(".py") or importlib.util.find_spec(where.partition(".")[0]) is not None
    except (ImportError, ValueError):  # No name of a package, or that of the program which runs.
        return False


def file_of(target: str) -> Path:
    """The source file that a target stands in; nothing is imported but the packages around its module.

    Raises:
        KdbenchError: there is no such module, or it has no source.
    """
    where = target.partition(":")[0]
    if where.endswith(".py"):
        return Path(where)
    try:
        spec = importlib.util.find_spec(where)
    except (ImportError, ValueError, AttributeError) as error:
        raise KdbenchError(f"cannot find module {where}: {short(error)}") from error
    except Exception as error:
        raise KdbenchError(f"the package of {where} fails to import: {short(error)}") from error
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        raise KdbenchError(f"cannot find the source of module {where}")
    return Path(spec.origin)


def own_sources(target: str) -> list[Path]:
    """The source file of a target, then those of its own package that it imports, directly or through each other."""
    where = target.partition(":")[0]
    sources, waiting = {where: file_of(where)}, [] if where.endswith(".py") else [where]
    while waiting:
        module = waiting.pop()
        for name in _imports(module, sources[module]):
            if name.partition(".")[0] != where.partition(".")[0] or name in sources:
                continue
            try:
                sources[name] = file_of(name)
            except KdbenchError:
                continue  # a name in a module, or a package without source
            waiting.append(name)
    first, *others = sources.values()
    return [first, *sorted(others)]


def _imports(module: str, path: Path) -> Iterator[str]:
    """What a module imports, as absolute names; of `from a import b` both a and a.b."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            name = "." * node.level + (node.module or "")
            origin = importlib.util.resolve_name(name, package)
            yield origin
            yield from (f"{origin}.{alias.name}" for alias in node.names)


def module_of(target: str) -> ModuleType:
    """The module that a target stands in, imported.

    Raises:
        Exception: whatever importing it raises.
    """
    where = target.partition(":")[0]
    if not where.endswith(".py"):
        return importlib.import_module(where)
    path = Path(where).resolve()
    # The path is part of the name, so that two files called mine.py do not meet in sys.modules.
    name = f"kdbench_file_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def short(error: BaseException) -> str:
    """An error in a line."""
    first = str(error).splitlines()[0] if str(error) else ""
    return f"{type(error).__name__}: {first}" if first else type(error).__name__
