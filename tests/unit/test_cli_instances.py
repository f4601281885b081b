"""The verbs of detached instances, as far as no instance is needed: words, numbers, completion."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.backends.registry import available
from lab.cli import instances
from lab.cli.ending import parse_signal
from lab.cli.logs import _start_of_last
from lab.errors import UsageError
from lab.experiment import scenario

COMPLETE = [sys.executable, "-c", "from lab.cli.main import main; main()"]
HEAVY = ("pandas", "pyroute2", "libvirt", "zstandard", "rich.live")


@pytest.fixture
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LAB_HOME", str(tmp_path))
    for name in ("web-1", "web-2", "db", ".new-x.1"):
        (tmp_path / "instances" / name).mkdir(parents=True)
    entries = [{"annotations": {"org.opencontainers.image.ref.name": name}} for name in ("my:latest", "my:v2")]
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "index.json").write_text(json.dumps({"manifests": entries}))
    return tmp_path


def completed(line: str) -> list[str]:
    """What a shell is offered at the end of ``line``."""
    environment = {**os.environ, "_LAB_COMPLETE": "complete_bash", "COMP_WORDS": line}
    environment["COMP_CWORD"] = str(len(line.split(" ")) - 1)
    done = subprocess.run(COMPLETE, env=environment, capture_output=True, text=True, timeout=30, check=False)
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.usefixtures("own_home")
@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("lab stop web", ["web-1", "web-2"]),
        ("lab exec d", ["db"]),
        ("lab run my", ["my", "my:v2"]),
        ("lab run web-", ["web-app"]),
        ("lab run --on micro", ["microvm"]),
        ("lab compare --on vm,micro", ["vm,microvm"]),
        ("lab compare data", ["database"]),
        ("lab density data", ["database"]),
        ("lab noisy data", ["database"]),
        ("lab isolation --on v", ["vm"]),
        ("lab isolation --scenario data", ["database"]),
        ("lab isolation ladder data", ["database"]),
        ("lab scenario show data", ["database"]),
        ("lab kill -s SIGUS", ["SIGUSR1", "SIGUSR2"]),
        ("lab inspec", ["inspect"]),
    ],
)
def test_a_shell_completes(line: str, words: list[str]) -> None:
    assert completed(line) == words


@pytest.mark.usefixtures("own_home")
def test_completion_knows_what_there_is_and_imports_nothing_heavy() -> None:
    assert set(instances.complete_backend("")) == {kind.name for kind in available()}
    assert instances.complete_scenario("") == sorted(scenario.names())
    code = "import sys; from lab.cli import instances as i; i.complete_runnable(''); i.complete_instance(''); "
    code += f"print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_completion_without_a_home_is_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAB_HOME", str(tmp_path / "absent"))
    assert instances.complete_instance("") == instances.complete_image("") == []


@pytest.mark.parametrize(("word", "number"), [("KILL", 9), ("sigterm", 15), ("9", 9), ("USR1", 10)])
def test_signals_by_name_and_number(word: str, number: int) -> None:
    assert parse_signal(word) == number


@pytest.mark.parametrize("word", ["", "NOSUCH", "0", "999", "-9", "9x"])
def test_what_is_no_signal(word: str) -> None:
    with pytest.raises(UsageError):
        parse_signal(word)


@given(
    st.lists(st.binary(max_size=6).map(lambda line: line.replace(b"\n", b"")), max_size=20),
    st.integers(0, 25),
    st.booleans(),
)
def test_the_last_lines_are_those_that_tail_shows(lines: list[bytes], wanted: int, ended: bool) -> None:
    content = b"\n".join(lines) + (b"\n" if ended and lines else b"")
    expected = b"".join(re.findall(rb"[^\n]*\n|[^\n]+", content)[-wanted:]) if wanted else b""
    with io.BytesIO(content) as file:
        assert content[_start_of_last(file, wanted) :] == expected
