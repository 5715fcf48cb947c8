"""What the fuzz tests share: how many examples, hostile values, damaged files, and what any answer must look like.

CI draws a few examples, always the same. `KDBENCH_FUZZ=500 pytest tests/fuzz` draws so many in each test.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, event, settings
from hypothesis import strategies as st
from hypothesis.errors import InvalidArgument

from tests.support.command import kdbench

FULL = int(os.environ.get("KDBENCH_FUZZ", "0"))
TEXTS = [
    *("", " ", ".", "..", "-", "--json", "a", "kd", "test", "done", "failed", "proxy", "vit-t:resnet-s", "x" * 5000),
    *("../../x", "/etc/passwd", "a/b", "a\\b", "C:x", "con", "nul\0", "~", "$HOME", "`id`", "$(id)", "%s{0}", "\ufeff"),
    *("[/red]", "[bold]x", "[link=x]", "a|b", "<script>alert(1)</script>", "[x](y)", "\\input{/etc/passwd}", "=1+1"),
    *("two\nlines", "\r", "\x1b[31mred", "\u202eabc", "\u00a0", "ü", "日本", "🙂", "nan", "inf", "1e999", "NaN"),
]
NUMBERS = [
    *(-1, 0, 1, 2, 3, 2**31, 2**53 + 1, 2**63, 10**400, -(10**30)),
    *(-0.5, 0.5, 1.5, 1e308, 5e-324, float("nan"), float("inf"), -float("inf")),
]
SCALARS = st.one_of(
    st.sampled_from([None, True, False, *NUMBERS, *TEXTS, "\ud800"]),
    st.text(max_size=8),
    st.floats(),
    st.integers(),
)
VALUES = st.one_of(
    SCALARS,
    st.recursive(
        SCALARS,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=5,
    ),
)


def drawn(usual: int) -> settings:
    """Settings of a test that draws `usual` examples in CI."""
    return settings(
        max_examples=FULL or usual,
        derandomize=True,
        database=None,
        deadline=None,
        # The files of an example are put back after it, so that examples may share a folder.
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
    )


def answer(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """What a command says: a documented exit code, and where it refuses, why, in one line that can be printed.

    `check` alone may end with 3 and a table: that nothing there can be held against the baseline.
    """
    done = kdbench(*arguments, cwd=cwd)
    assert done.returncode in (0, 1, 2, 3), (done.returncode, done.stdout, done.stderr)
    assert "Traceback" not in done.stdout + done.stderr and "unforeseen" not in done.stderr, _log(done.stderr)
    if done.returncode == 3 and not (arguments[0] == "check" and done.stdout and not done.stderr):
        lines = done.stderr.splitlines()
        assert lines and lines[-1].startswith("kdbench: ") and lines[-1].isprintable(), done.stderr
        assert len(lines[-1]) < 3000, done.stderr
    with suppress(InvalidArgument):  # Outside of a test that draws.
        event(f"{arguments[0]} ends with {done.returncode}")
    return done


def _log(message: str) -> str:
    """The calls that led to an error nobody foresaw."""
    path = Path(message.rstrip().rpartition(" ")[2])
    return path.read_text() if path.suffix == ".log" and path.is_file() else message


@contextmanager
def damaged(path: Path, content: bytes | None) -> Iterator[None]:
    """`path` with other content, or a folder in its place (None), for a while."""
    original = path.read_bytes()
    path.unlink()
    try:
        if content is None:
            path.mkdir()
        else:
            path.write_bytes(content)
        yield
    finally:
        if path.is_dir():
            shutil.rmtree(path)
        path.write_bytes(original)


@st.composite
def other_json(draw: st.DrawFn, content: bytes) -> bytes:
    """A JSON file with other values, without some, or with some twice."""
    value = json.loads(content)
    for _ in range(draw(st.integers(1, 2))):
        _change(draw, value)
    return json.dumps(value).encode()


def _change(draw: st.DrawFn, value: Any) -> None:
    """Change something somewhere in `value`, which is a dict or a list that holds something."""
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    key = draw(st.sampled_from(keys)) if keys else None
    if key is not None and isinstance(value[key], dict | list) and value[key] and draw(st.booleans()):
        _change(draw, value[key])
        return
    what = draw(st.sampled_from(["replace", "replace", "delete", "add", "copy"]))
    if what == "add" or key is None:
        if isinstance(value, dict):
            value[draw(st.text(max_size=6))] = draw(VALUES)
        else:
            value.append(draw(VALUES))
    elif what == "delete":
        del value[key]
    elif what == "copy":
        value[key] = value[draw(st.sampled_from(keys))]
    else:
        value[key] = draw(VALUES)


@st.composite
def other_bytes(draw: st.DrawFn, content: bytes) -> bytes:
    """A file cut short, with bits turned, with bytes taken out or put in, or with other content altogether."""
    what = draw(st.sampled_from(["cut", "flip", "flip", "put", "take", "twice", "noise", "empty"]))
    place = draw(st.integers(0, max(0, len(content) - 1)))
    if what == "cut":
        return content[:place]
    if what == "flip":
        changed = bytearray(content)
        for _ in range(draw(st.integers(1, 4))):
            if changed:
                changed[draw(st.integers(0, len(changed) - 1))] ^= 1 << draw(st.integers(0, 7))
        return bytes(changed)
    if what == "put":
        return content[:place] + draw(st.binary(min_size=1, max_size=9)) + content[place:]
    if what == "take":
        return content[:place] + content[place + draw(st.integers(1, 300)) :]
    return {"twice": content + content, "noise": draw(st.binary(max_size=64)), "empty": b""}[what]


def other_file(content: bytes) -> st.SearchStrategy[bytes | None]:
    """What may lie in the place of a JSON file."""
    odd = [None, b"", b"{}", b"[]", b"null", b"[" * 5000, b'{"a":' * 3000, b"\xff\xfe{}", b'{"schema": 1, "schema": 1}']
    return st.one_of(other_json(content), other_json(content), other_bytes(content), st.sampled_from(odd))
