"""Finding plug-ins: installed, files, dotted names; broken ones harm nothing."""

from pathlib import Path

import pytest

from kdbench.errors import KdbenchError
from kdbench.registry import Plugin, Registry, read_source
from kdbench.study.verify import declarations
from kdbench.suites.schema import Suite

METHOD = '''"""A plug-in."""

from torch import Tensor

from kdbench.method import Batch, Method, Outputs


class Mine(Method):
    """Hard labels with a weight."""

    aliases = ("my-own",)
    weight: float = 1.0

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> dict[str, Tensor]:
        return {"ce": self.weight * batch.cross_entropy(student.logits)}
'''


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(METHOD)
    return path


def test_all_lists_control_and_baseline_first() -> None:
    names = [plugin.name for plugin in Registry.installed().select("all")]
    assert names[:2] == ["scratch", "kd"]
    assert {"fitnet", "ofa", "assistant"} <= set(names)


def test_aliases() -> None:
    assert [p.name for p in Registry.installed().select("tas,fbt,assistant")] == ["assistant"]


@pytest.mark.parametrize("ending", ["", ":Mine"])
def test_a_file_takes_part(mine: Path, ending: str) -> None:
    (plugin,) = Registry.installed().select(f"{mine}{ending}")
    assert plugin.name == "mine"
    assert plugin.source.summary == "Hard labels with a weight."
    assert plugin.hyperparameters().model_dump() == {"weight": 1.0}
    assert plugin.method.__name__ == "Mine"


def test_a_dotted_name_takes_part() -> None:
    (plugin,) = Registry().select("kdbench_methods.kd:KD")
    assert plugin.name == "kd"
    names = {"temperature", "ce_weight", "kd_weight", "standardise", "entropy_weights"}
    assert set(plugin.hyperparameters.model_fields) == names


def test_two_files_of_one_name_do_not_meet(tmp_path: Path) -> None:
    plugins = []
    for number in (1, 2):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "mine.py").write_text(METHOD.replace("1.0", f"{number}.5"))
        plugins.append(Registry().select(str(folder / "mine.py"))[0])
    assert [plugin.hyperparameters().model_dump()["weight"] for plugin in plugins] == [1.5, 2.5]
    assert plugins[0].source_sha256 != plugins[1].source_sha256


def test_the_source_of_a_method_is_also_what_it_imports_of_its_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "shared_pieces"
    package.mkdir()
    text = 'from kdbench.method import Method\nfrom .losses import one\n\n\nclass Mine(Method):\n    """One."""\n'
    for name, source in (("__init__", ""), ("mine", text), ("losses", "from . import deep\none = 1\n"), ("deep", "")):
        (package / f"{name}.py").write_text(source)
    (package / "other.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))

    def found() -> str:
        return Plugin("mine", "shared_pieces.mine:Mine", "test").source_sha256

    before = found()
    (package / "other.py").write_text("two = 2\n")
    assert found() == before, "what it does not import"
    for name in ("losses", "deep"):
        (package / f"{name}.py").write_text((package / f"{name}.py").read_text() + "more = 3\n")
        assert found() != before, name
        before = found()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("def broken(:\n", "line 1: invalid syntax"),
        ("import no_such_package\n" + METHOD, "imports no_such_package, which is not installed"),
        ("x = 1\n", r"should define one subclass of Method \(none found\)"),
        (METHOD + METHOD.replace("Mine", "Other"), r"\(Mine, Other found\)"),
    ],
)
def test_broken_files_are_told_without_importing(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "broken.py"
    path.write_text(content)
    with pytest.raises(KdbenchError, match=message):
        read_source(str(path))


def test_errors_at_import_are_told(tmp_path: Path) -> None:
    path = tmp_path / "raises.py"
    path.write_text("1 / 0\n" + METHOD)
    plugin = Plugin("raises", str(path), "a file")
    with pytest.raises(KdbenchError, match="fails to import: ZeroDivisionError: division by zero"):
        _ = plugin.method


def test_a_class_that_is_no_method(tmp_path: Path) -> None:
    path = tmp_path / "other.py"
    path.write_text("class Other:\n    pass\n")
    with pytest.raises(KdbenchError, match=r"is no kdbench\.method\.Method"):
        _ = Plugin("other", f"{path}:Other", "a file").method


def test_an_unknown_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "kinds.py"
    path.write_text(METHOD + '    kind = "logits"\n')
    with pytest.raises(KdbenchError, match=r"unknown kind of method 'kinds' \(a file\) 'logits'; did you mean logit"):
        _ = Plugin("kinds", str(path), "a file").method


@pytest.mark.parametrize(
    ("line", "passes", "detail"),
    [
        ("presets = {'proksy': {'weight': 1.0}}", False, "no suite has the preset 'proksy'; did you mean proxy?"),
        ("presets = {'proxy': {'wieght': 1.0}}", False, "unknown hyperparameter of preset 'proxy' 'wieght'"),
        ("published = ('Nonsense',)", False, "unknown published method 'Nonsense'"),
        ("scale = 2.0", True, "without annotation, and so no hyperparameter: scale"),
        ("published = ('KD',)", True, "known names"),
    ],
)
def test_what_a_method_says_of_itself(proxy: Suite, tmp_path: Path, line: str, passes: bool, detail: str) -> None:
    path = tmp_path / "says.py"
    path.write_text(METHOD + f"    weight: float = 1.0\n    {line}\n")
    check = declarations(Plugin("says", str(path), "a file"), proxy)
    assert check.passed is passes and detail in check.detail


@pytest.mark.parametrize("name", Registry.installed().names)
def test_what_the_installed_methods_say_of_themselves(proxy: Suite, name: str) -> None:
    check = declarations(Registry.installed().plugins[name], proxy)
    assert check.passed and check.detail == "known names", check.detail


def test_a_broken_plugin_is_listed_and_harms_nothing() -> None:
    registry = Registry.installed()
    registry.add(Plugin("gone", "no_such_package.module:Class", "some package"))
    registry.add(Plugin("kd", "other.module:KD", "a rival package"))
    assert "cannot find module no_such_package.module" in registry.errors["gone"]
    assert "taken by kdbench" in registry.errors["kd (a rival package)"]
    assert "gone" not in [plugin.name for plugin in registry.select("all")]
    assert "kd" in [plugin.name for plugin in registry.select("all")]
    with pytest.raises(KdbenchError, match="method 'gone' is broken"):
        registry.select("gone")


def test_mistyped_names() -> None:
    with pytest.raises(KdbenchError, match="unknown method 'fitnett'; did you mean fitnet"):
        Registry.installed().select("fitnett")
    with pytest.raises(KdbenchError, match="cannot read"):
        Registry.installed().select("./no_such_file.py")
    with pytest.raises(KdbenchError, match="no method named"):
        Registry.installed().select(",")
