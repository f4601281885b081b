"""What lab.shims stands in for is the measure of it: the same calls on both, the same answers."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import lab
from lab import shims

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


def outcome(function: Callable[[str], object], text: str) -> object:
    try:
        return function(text)
    except ValueError as error:
        return str(error)


@given(JSON)
def test_json_goes_there_and_back(value: object) -> None:
    assert shims.dumps(value) == json.dumps(value)
    assert shims.loads(json.dumps(value)) == value
    assert shims.loads(f" \n{json.dumps(value, indent=2)}\r\n\t".encode()) == value


@example(" {")
@given(st.text(alphabet='{}[]",:0123456789eE+-.truefalsn\\u \n', max_size=12))
def test_whatever_is_no_json_is_told_by_the_same_error(text: str) -> None:
    assert outcome(shims.loads, text) == outcome(json.loads, text)


BARE = """
import sys
sys.path.insert(0, sys.argv[1])
from lab import shims
for text in ('{"a"', '"\\n"', '"\\\\x"', "[" * 100_000, '{1: 2}', "", '"'):
    assert "json" not in sys.modules or text
    try:
        shims.loads(text)
    except ValueError:
        pass
    else:
        raise SystemExit(f"{text[:9]} is JSON")
    for name in [name for name in sys.modules if name.startswith("json")]:
        del sys.modules[name]
"""


def test_where_nobody_has_imported_json_the_error_is_the_same() -> None:
    """The scanner takes its exception from there, and has none without."""
    source = str(Path(lab.__file__).parents[1])
    done = subprocess.run([sys.executable, "-IS", "-c", BARE, source], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_what_json_has_no_form_for_is_refused() -> None:
    with pytest.raises(TypeError):
        shims.dumps({"path": Path("/")})


@pytest.mark.parametrize("library", [contextlib, shims])
def test_an_exit_stack_undoes_in_reverse_and_goes_on_after_an_error(library: ModuleType) -> None:
    done: list[str] = []

    def fail() -> None:
        done.append("fail")
        raise OSError("undoing failed")

    def use() -> None:
        with library.ExitStack() as stack:
            stack.callback(done.append, "first")
            stack.callback(fail)
            stack.enter_context(library.suppress(KeyError))
            stack.callback(done.append, "last")
            raise KeyError("suppressed by the context manager")

    with pytest.raises(OSError, match="undoing failed"):
        use()
    assert done == ["last", "fail", "first"]


@pytest.mark.parametrize("library", [contextlib, shims])
def test_what_was_popped_is_not_undone(library: ModuleType) -> None:
    done: list[str] = []
    with library.ExitStack() as stack:
        stack.callback(done.append, "kept")
        kept = stack.pop_all()
    assert done == []
    kept.close()
    kept.close()
    assert done == ["kept"]


@pytest.mark.parametrize("library", [contextlib, shims])
def test_only_what_is_named_is_suppressed(library: ModuleType) -> None:
    with library.suppress(FileNotFoundError):
        raise FileNotFoundError
    with pytest.raises(PermissionError), library.suppress(FileNotFoundError):
        raise PermissionError


def test_importing_it_imports_nothing_else() -> None:
    source = str(Path(lab.__file__).parent.parent)
    code = f"import sys; sys.path.insert(0, {source!r}); before = set(sys.modules); import lab.shims; "
    code += "print(sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['__future__', '_json', 'lab', 'lab.shims']"
