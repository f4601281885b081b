"""What a shell is offered: names of what there is, quickly."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lab.backends.registry import available
from lab.cli.app import app
from lab.commands import completion
from lab.experiment.scenarios import scenario

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


@pytest.fixture
def completed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[[str], list[str]]:
    """What a shell is offered at the end of a line."""

    def ask(line: str) -> list[str]:
        monkeypatch.setenv("_LAB_COMPLETE", "complete_bash")
        monkeypatch.setenv("COMP_WORDS", line)
        monkeypatch.setenv("COMP_CWORD", str(len(line.split(" ")) - 1))
        with pytest.raises(SystemExit):
            app(prog_name="lab")
        out, err = capsys.readouterr()
        assert err == ""
        return out.split()

    return ask


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
        ("lab isolation --probe kvm,kex", ["kvm,kexec"]),
        ("lab isolation ls --group kern", ["kernel"]),
        ("lab isolation explain kex", ["kexec"]),
        ("lab compare --on vm --factor fir", ["firmware=direct,seabios,ovmf"]),
        ("lab compare --on container,microvm --factor fir", []),
        ("lab compare --on vm --factor firmware=ovmf,", ["firmware=ovmf,direct", "firmware=ovmf,seabios"]),
        ("lab compare --factor mem", ["memory=256M,512M"]),
        ("lab compare --factor arg", ["arg."]),
        ("lab run --on vm --knob tuned=", ["tuned=no", "tuned=yes"]),
        ("lab run --on container --knob t", []),
        ("lab isolation --scenario data", ["database"]),
        ("lab isolation ladder data", ["database"]),
        ("lab scenario show data", ["database"]),
        ("lab kill -s SIGUS", ["SIGUSR1", "SIGUSR2"]),
        ("lab inspec", ["inspect"]),
    ],
)
def test_a_shell_completes(completed: Callable[[str], list[str]], line: str, words: list[str]) -> None:
    assert completed(line) == words


@pytest.mark.usefixtures("own_home")
def test_completion_knows_what_there_is_and_imports_nothing_heavy() -> None:
    assert set(completion.complete_backend("")) == {kind.name for kind in available()}
    assert completion.complete_scenario("") == sorted(scenario.names())
    code = "import sys; from lab.commands import completion as i; i.complete_runnable(''); i.complete_instance(''); "
    code += f"print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_completion_without_a_home_is_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAB_HOME", str(tmp_path / "absent"))
    assert completion.complete_instance("") == completion.complete_image("") == []


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What bash reads, and ``asked``, which asks a lab of this environment."""
    caller = tmp_path_factory.mktemp("completion") / "lab"
    caller.write_text("#!/bin/sh\nexec " + shlex.join(COMPLETE) + "\n")
    caller.chmod(0o755)
    environment = {**os.environ, "_LAB_COMPLETE": "source_bash"}
    done = subprocess.run(COMPLETE, env=environment, capture_output=True, text=True, check=True)
    return f"{done.stdout}\nasked() {{ _lab_completion {shlex.quote(str(caller))}; }}\n"


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (("--on", "vm", "--factor", "firm"), ["firmware=direct,seabios,ovmf"]),
        (("--on", "vm", "--factor", "firmware", "="), ["direct", "ovmf", "seabios"]),
        (("--on", "vm", "--factor", "firmware", "=", ""), ["direct", "ovmf", "seabios"]),
        (("--factor", "firmware", "=", "ovmf", "--factor", "tuned", "=", "yes,n"), ["yes,no"]),
    ],
)
def test_bash_which_parts_words_at_equals_signs_is_offered_what_is_missing(
    words: tuple[str, ...], offered: list[str], script: str
) -> None:
    """The words as bash would have parted them."""
    line = shlex.join(("lab", "compare", *words))
    ask = f"{script}COMP_WORDS=({line}); COMP_CWORD={len(words) + 1}; asked\nprintf '%s\\n' \"${{COMPREPLY[@]}}\"\n"
    done = subprocess.run(["bash", "--norc", "-c", ask], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.split() == offered
