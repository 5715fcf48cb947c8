"""Finding methods: entry points of installed packages, files, dotted names.

Listing never imports a plug-in (and so not torch): names, summaries, aliases and published names are read from its
source.
"""

import ast
import importlib.util
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from kdbench.errors import KdbenchError, unknown_name
from kdbench.names import plain_name
from kdbench.targets import file_of, module_of, short, sources_sha256

if TYPE_CHECKING:
    from pydantic import BaseModel

    from kdbench.method import Method

GROUP = "kdbench.methods"


@dataclass(frozen=True)
class Plugin:
    """A method that is known by name, imported only when asked for.

    Attributes:
        name: what the command line and the records call it.
        target: `package.module:Class`, or `path/to/file.py:Class` (the class may be left out where a file has one).
        origin: who registered it, for messages.
    """

    name: str
    target: str
    origin: str

    def __reduce__(self) -> tuple[Any, ...]:
        # What was imported here is imported anew where a plug-in is sent.
        return Plugin, (self.name, self.target, self.origin)

    @cached_property
    def source(self) -> "PluginSource":
        """What the plug-in's source says of itself.

        Raises:
            KdbenchError: the source cannot be found or parsed, or has no such class.
        """
        return read_source(self.target)

    @cached_property
    def method(self) -> "type[Method]":
        """The class, imported.

        Raises:
            KdbenchError: the import fails or what it yields is no method.
        """
        from kdbench.method import Kind, Method

        try:
            method = getattr(module_of(self.target), self.source.class_name)
        except KdbenchError:
            raise
        except Exception as error:
            raise KdbenchError(f"method '{self.name}' ({self.origin}) fails to import: {short(error)}") from error
        if not (isinstance(method, type) and issubclass(method, Method)):
            raise KdbenchError(f"method '{self.name}' ({self.origin}): {self.target} is no kdbench.method.Method")
        if method.kind not in get_args(Kind):
            raise unknown_name(f"kind of method '{self.name}' ({self.origin})", str(method.kind), get_args(Kind))
        return method

    @cached_property
    def hyperparameters(self) -> "type[BaseModel]":
        """The typed hyperparameters (imports the class)."""
        from kdbench.hyperparameters import schema
        from kdbench.method import Method

        return schema(self.method, Method)

    @cached_property
    def source_sha256(self) -> str:
        """Hash of the file the class stands in and of what that imports of its own package.

        It is part of a cell's key: an edited method is a new method.
        """
        return sources_sha256(self.target)


@dataclass(frozen=True)
class PluginSource:
    """What can be known of a plug-in without importing it."""

    path: Path
    class_name: str
    summary: str
    aliases: tuple[str, ...] = ()
    published: tuple[str, ...] = ()
    role: str = "method"


@dataclass
class Registry:
    """All methods known by name or alias. Broken ones stay in it with their error."""

    plugins: dict[str, Plugin] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    _aliases: dict[str, str] = field(default_factory=dict)

    @classmethod
    def installed(cls) -> "Registry":
        """The methods that installed packages register under the entry-point group `kdbench.methods`."""
        registry = cls()
        # A package that registers forty methods is looked at once.
        name_of = cache(lambda package: package.name if package else "unknown package")
        for point in entry_points(group=GROUP):
            registry.add(Plugin(point.name, point.value, name_of(point.dist)))
        return registry

    def add(self, plugin: Plugin) -> None:
        """Register; a name that is taken or a source that cannot be read is kept as an error under its name."""
        name = plugin.name
        taken = self.plugins.get(name)
        if taken is not None:
            self.errors[f"{name} ({plugin.origin})"] = (
                f"the name is taken by {taken.origin} ({taken.target}); rename the entry point"
            )
            return
        self.plugins[name] = plugin
        try:
            plain_name(name)
            aliases = plugin.source.aliases
        except ValueError as error:
            self.errors[name] = f"the name {error}, and records are called after it; rename the entry point"
            return
        except KdbenchError as error:
            self.errors[name] = str(error)
            return
        for alias in aliases:
            self._aliases.setdefault(alias, name)

    @property
    def names(self) -> list[str]:
        """Usable names in order."""
        return sorted((name for name in self.plugins if name not in self.errors), key=self.order)

    def order(self, name: str) -> tuple[int, str]:
        """Sort key of a method: the control, the baseline, then the others by name."""
        return {"control": 0, "baseline": 1}.get(self.plugins[name].source.role, 2), name

    def by_role(self, role: str) -> str:
        """The name of the method with that role (`control`, `baseline`).

        Raises:
            KdbenchError: none is installed.
        """
        for name in self.names:
            if self.plugins[name].source.role == role:
                return name
        raise KdbenchError(f"no installed method has the role '{role}'; is kdbench_methods installed?")

    def select(self, request: str) -> list[Plugin]:
        """The methods of a request such as `all`, `kd,ofa`, `all,./mine.py`, `pkg.mod:Class`; files are registered.

        Raises:
            KdbenchError: an unknown name, or a named plug-in that is broken.
        """
        chosen: dict[str, Plugin] = {}
        for word in filter(None, (part.strip() for part in request.split(","))):
            if word == "all":
                chosen |= {name: self.plugins[name] for name in self.names}
                continue
            name = self._aliases.get(word, word)
            if name not in self.plugins and (":" in word or word.endswith(".py")):
                name = self._add_direct(word)
            if name not in self.plugins:
                raise unknown_name("method", word, [*self.names, *self._aliases, "all"])
            if name in self.errors:
                raise KdbenchError(f"method '{name}' is broken: {self.errors[name]}")
            chosen[name] = self.plugins[name]
        if not chosen:
            raise KdbenchError("no method named; try --methods all")
        return list(chosen.values())

    def importable(self, plugins: Sequence[Plugin], request: str) -> list[Plugin]:
        """Those of `plugins` that can be imported; the others are kept as errors (this imports torch).

        Raises:
            KdbenchError: a plug-in that `request` names, rather than reaches by `all`, is broken.
        """
        words = {self._aliases.get(word, word) for word in map(str.strip, request.split(","))}
        usable = []
        for plugin in plugins:
            try:
                _ = plugin.hyperparameters
            except KdbenchError as error:
                if "all" not in words or {plugin.name, plugin.target} & words:
                    raise
                self.errors[plugin.name] = str(error)
                continue
            usable.append(plugin)
        return usable

    def _add_direct(self, target: str) -> str:
        source = read_source(target)
        plugin = Plugin(source.class_name.lower(), target, str(source.path))
        registered = self.plugins.get(plugin.name)
        if registered is not None and registered.source.path != source.path:
            raise KdbenchError(
                f"{target} would be called '{plugin.name}', which {registered.origin} has; rename the class"
            )
        self.add(plugin)
        return plugin.name


def read_source(target: str) -> PluginSource:
    """Find and parse the source of `package.module:Class`, `file.py:Class` or `file.py`.

    Raises:
        KdbenchError: no such file, module or class, or a syntax error.
    """
    where, _, class_name = target.partition(":")
    path = file_of(where)
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    except SyntaxError as error:
        raise KdbenchError(f"{path}, line {error.lineno}: {error.msg}") from error
    except (OSError, ValueError) as error:
        raise KdbenchError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error
    _check_imports(tree, path)
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    if not class_name:
        methods = [node for node in classes if any(_base_name(base) == "Method" for base in node.bases)]
        if len(methods) != 1:
            names = ", ".join(node.name for node in methods) or "none"
            raise KdbenchError(f"{path} should define one subclass of Method ({names} found); name it as {path}:Class")
        class_name = methods[0].name
    for node in classes:
        if node.name == class_name:
            constants = _constants(node)
            return PluginSource(
                path=path.resolve(),
                class_name=class_name,
                summary=(ast.get_docstring(node) or "").partition("\n")[0],
                aliases=tuple(constants.get("aliases", ())),
                published=tuple(constants.get("published", ())),
                role=constants.get("role", "method"),
            )
    raise KdbenchError(f"{path} defines no class {class_name}")


def _check_imports(tree: ast.Module, path: Path) -> None:
    """Find what the module imports without importing it, so that a listing can say that a package is missing."""
    for node in tree.body:
        modules: list[str] = []
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            modules = [node.module]
        for module in modules:
            package = module.partition(".")[0]
            if package not in sys.modules and importlib.util.find_spec(package) is None:
                raise KdbenchError(f"{path} imports {package}, which is not installed")


def _constants(node: ast.ClassDef) -> dict[str, Any]:
    """Class attributes with literal values."""
    values: dict[str, Any] = {}
    for statement in node.body:
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name) and statement.value:
            target, value = statement.target, statement.value
        elif isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
            target, value = statement.targets[0], statement.value
        else:
            continue
        try:
            values[target.id] = ast.literal_eval(value)
        except ValueError:
            continue
    return values


def _base_name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")
