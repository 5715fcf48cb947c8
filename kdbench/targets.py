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
    """The source file of a target, then its own modules that it imports, directly or through each other.

    A module's own are those of its package, a file's own those beside it.
    """
    first, *others = _own_modules(target.partition(":")[0]).values()
    return [first, *sorted(others)]


def sources_sha256(target: str) -> str:
    """The hash of the source of a target and of its own modules that it imports."""
    digest = hashlib.sha256()
    for path in own_sources(target):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _own_modules(where: str) -> dict[str, Path]:
    """The file of `where`, the part of a target before the colon, and of its own modules, by name."""
    found = {where: file_of(where)}
    waiting = [where]
    while waiting:
        module = waiting.pop()
        for name in _imports(module, found[module]):
            path = _beside(Path(where), name) if where.endswith(".py") else _in_package(where, name)
            if path is not None and name not in found:
                found[name] = path
                waiting.append(name)
    return found


def _in_package(where: str, name: str) -> Path | None:
    """The file of a module, where that is in the package of the module `where`."""
    if name.partition(".")[0] != where.partition(".")[0]:
        return None
    try:
        return file_of(name)
    except KdbenchError:
        return None  # a name in a module, or a package without source


def _beside(file: Path, name: str) -> Path | None:
    """The file of a module that lies beside `file`, or in a package there."""
    path = file.parent.joinpath(*name.split("."))
    return next((found for found in (path.with_suffix(".py"), path / "__init__.py") if found.is_file()), None)


def _imports(module: str, path: Path) -> Iterator[str]:
    """What a module imports, as absolute names; of `from a import b` both a and a.b."""
    is_file = module.endswith(".py")
    package = "" if is_file else module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            name = "." * node.level + (node.module or "")
            if node.level > 0 and not package:
                continue  # a file has no package, and so no module relative to it
            origin = importlib.util.resolve_name(name, package)
            yield origin
            yield from (f"{origin}.{alias.name}" for alias in node.names)


def module_of(target: str) -> ModuleType:
    """The module that a target stands in, imported; what a file imports is also looked for beside it.

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
    _refuse_namesakes(path)
    sys.modules[name] = module
    sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    finally:
        sys.path.remove(str(path.parent))
    # What is imported later, in a function, is found last: nothing there hides a module of Python's.
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    return module


def _refuse_namesakes(path: Path) -> None:
    """Refuse to import a file that would get another module than the one beside it.

    Raises:
        ImportError: a module of the same name from elsewhere is loaded already.
    """
    for name, own in _own_modules(str(path)).items():
        loaded = getattr(sys.modules.get(name), "__file__", None)
        if loaded is not None and Path(loaded).resolve() != own.resolve():
            raise ImportError(f"{own} has the name of {loaded}, which is loaded already; rename it")


def short(error: BaseException) -> str:
    """An error in a line."""
    first = str(error).splitlines()[0] if str(error) else ""
    return f"{type(error).__name__}: {first}" if first else type(error).__name__
