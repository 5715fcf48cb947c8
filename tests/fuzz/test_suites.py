"""Suite files with other values, keys and lines: every pair of the file is listed, or one line says what is wrong."""

import json
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdbench.suites.loading import available
from tests.support.harness import answer, drawn, other_bytes

VALUES = [
    *("0", "-1", "1", "3", "1e308", "5e-324", "inf", "-inf", "nan", "99999999999999999999", "1" * 5000, "true", "[]"),
    *(
        "{}",
        '""',
        '"a"',
        '"../../x"',
        '"/etc/passwd"',
        '"a\\u0000b"',
        '"[/red]"',
        '"a\\nb"',
        "'''\n'''",
        "[[1]]",
        "[1, 2]",
    ),
    *("[2.0, 1.0]", "{ a = 1 }", "1979-05-27", '"@"', '"vit-t"', '"cnn"', f'"{"x" * 3000}"', "[" * 2000 + "]" * 2000),
    *(
        '"folder:../.."',
        '"folder:/etc"',
        '"reader:wds/../x"',
        '"reader:torch/cifar10"',
        '"reader:hfds/a/b"',
        '"os:system"',
    ),
    *('"./evil.py:build"', '"torch.hub:load"', '"hf-hub:a/b"', '"local-dir:/x"', '{ checkpoint_path = "evil.pth" }'),
    *("{ pretrained = true }", "{ layers = [1], layers = [2] }", '{ extends = "cnn" }', '"\\U0001F642"', "0x7f", "1_0"),
]
LINES = [
    *(
        "[data]",
        "[recipes.cnn]",
        "[[pairs]]",
        "[models.x]",
        'teacher = "x"',
        'extends = "token"',
        'extends = "a"',
        "= 1",
    ),
    *(
        "unknown = 1",
        "folder = '/'",
        "recipes = 3",
        "[variants.x]",
        "[variants.y.data]",
        "variants = 1",
        "a.b.c = 1",
        "]",
    ),
    *('name = "x/../y"', '[recipes.a]\nextends = "b"\n[recipes.b]\nextends = "a"', "[models]", 'student = "resnet-s"'),
    "".join(f'[recipes.r{i}]\nextends = "r{i + 1}"\n' for i in range(1500)),
]


@st.composite
def other_suite(draw: st.DrawFn, text: str) -> bytes:
    """The text of a suite with a few lines changed."""
    lines = text.splitlines()
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, len(lines) - 1))
        what = draw(st.sampled_from(["value", "value", "value", "key", "line", "delete", "twice", "move", "bytes"]))
        key, equals, _ = lines[place].partition("=")
        if what == "value":
            places = [number for number, line in enumerate(lines) if " = " in line and not line.startswith("#")]
            place = draw(st.sampled_from(places))
            lines[place] = f"{lines[place].partition('=')[0]}= {draw(st.sampled_from(VALUES))}"
        elif what == "key" and equals:
            lines[place] = lines[place].replace(
                key.strip(), draw(st.sampled_from(["x", '"a b"', '"\\u0000"', '""', "ü"]))
            )
        elif what == "line":
            lines.insert(place, draw(st.sampled_from(LINES)))
        elif what == "delete":
            del lines[place]
        elif what == "twice":
            lines.insert(place, lines[place])
        elif what == "move":
            lines.insert(draw(st.integers(0, len(lines) - 1)), lines.pop(place))
        else:
            return draw(other_bytes("\n".join(lines).encode()))
    return "\n".join(lines).encode(errors="surrogatepass")


@pytest.mark.runs
@drawn(40)
@given(data=st.data())
def test_suites(data: st.DataObject, tmp_path: Path) -> None:
    name = data.draw(st.sampled_from(sorted(available())))
    # Where the data of the suite is not there, a run ends with its plan.
    text = available()[name].read_text().replace('source = "fashion-mnist-5k2k"', 'source = "folder:not-there"')
    content = data.draw(other_suite(text))
    file = tmp_path / "other.toml"
    file.write_bytes(content)
    suite = str(file) + data.draw(st.sampled_from(["", "", "", "@short", "@x"]))
    listed = answer("list", "pairs", "--suite", suite, "--json")
    if listed.returncode == 0:
        pairs = [f"{pair['teacher']}:{pair['student']}" for pair in tomllib.loads(content.decode()).get("pairs", [])]
        assert [row["pair"] for row in json.loads(listed.stdout)] == pairs
    else:
        assert listed.returncode == 3 and (str(file) in listed.stderr or "unknown" in listed.stderr)
    command = data.draw(
        st.sampled_from(
            [
                ["list", "models"],
                ["list", "pairs"],
                ["teachers", "list", "--data", "not-there"],
                ["run", "--methods", "scratch", "--data", "not-there", "--out", tmp_path / "results"],
                ["bench", "--methods", "kd", "--pairs", "all", "--data", "not-there", "--out", tmp_path / "results"],
                ["published"],
            ]
        )
    )
    done = answer(*command, "--suite", suite, cwd=tmp_path)
    assert listed.returncode == 0 or done.returncode == 3
    assert not (tmp_path / "results").exists(), "nothing was trained"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('name = "proxy"', 'name = "../../proxy"', "'name': has a '/'"),
        ('name = "proxy"', 'name = ".."', "'name': begins with a dot"),
        ("[models.vit-t]", '[models."../vit-t"]', "has a '/'"),
        ('source = "fashion-mnist-5k2k"', 'source = "folder:../secret"', "../secret leads out of the data folder"),
        ('source = "fashion-mnist-5k2k"', 'source = "folder:/etc"', "/etc leads out of the data folder"),
        ('source = "fashion-mnist-5k2k"', 'source = "reader:wds/../x"', "../x leads out of the data folder"),
        ('timm = "resnet18"', 'timm = "./evil.py:build"', "code that a suite may not name"),
        ('timm = "resnet18"', 'timm = "torch.hub:load"', "code that a suite may not name"),
        ("kwargs = { layers", 'kwargs = { checkpoint_path = "x.pth", layers', "may not hold checkpoint_path"),
        ("image_size = 32", "image_size = 1000000000", "less than or equal to 4096"),
        ("seeds = 3", "seeds = 99999999999999999999", "'seeds': input should be less than or equal to 10000"),
        ("lr = 0.05", "lr = inf", "should be a finite number"),
    ],
)
def test_what_a_suite_may_not_say(old: str, new: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "other.toml"
    file.write_text(available()["proxy"].read_text().replace(old, new))
    (tmp_path / "evil.py").write_text("raise SystemExit('imported')")
    done = answer("run", "--suite", file, "--methods", "scratch", "--data", "not-there", cwd=tmp_path)
    assert done.returncode == 3 and message in done.stderr
