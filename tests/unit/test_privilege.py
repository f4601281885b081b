"""Who lab is, asked in one place: rootless use will change that place alone."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import lab
from lab.errors import LabError
from lab.host import home
from lab.host.identity import privilege
from lab.host.identity.privilege import Need

SOURCE = Path(lab.__file__).parent
ASKING = (
    SOURCE / "host" / "identity" / "privilege.py",
    SOURCE / "host" / "identity" / "ownspace.py",
)  # the second for those that import little
ASKS = re.compile(r"\b(?:os|posix)\s*\.\s*(?:get(?:e|res)?[ug]id|getlogin)\b|import .*\bget(?:e|res)?[ug]id\b")


def test_nothing_else_asks_who_we_are() -> None:
    asking = [
        f"{path.relative_to(SOURCE)}:{number}: {line.strip()}"
        for path in sorted(SOURCE.rglob("*.py"))
        if path not in ASKING
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if ASKS.search(line)
    ]
    assert asking == []


def test_the_search_would_find_one() -> None:
    assert ASKS.search("if os.geteuid() == 0:")
    assert ASKS.search("from os import geteuid")
    assert ASKS.search((SOURCE / "host" / "identity" / "privilege.py").read_text())


@pytest.mark.parametrize("need", Need)
def test_root_is_granted_everything_and_others_are_told_what_to_type(
    need: Need, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    privilege.require(need, "lab run", "run web-app")
    assert privilege.check().ok
    assert "privileged" in privilege.remedy()
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert not privilege.granted(need)
    assert privilege.remedy("clean") == "sudo ./bootstrap lab clean"
    with pytest.raises(LabError, match="lab run needs root") as caught:
        privilege.require(need, "lab run", "run web-app")
    assert caught.value.hint == "sudo ./bootstrap lab run web-app"
    assert (privilege.check().ok, privilege.check().found) == (False, "user id 1000")


def test_where_lab_keeps_things_follows(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LAB_HOME", "XDG_DATA_HOME", "XDG_RUNTIME_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert (str(home.home()), str(home.runtime_root())) == ("/var/lib/lab", "/run/lab")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert home.home() == Path.home() / ".local/share/lab"
    assert str(home.runtime_root()) == "/tmp/lab-1000/lab"


@pytest.mark.skipif(os.geteuid() != 0, reason="root alone can leave root")
def test_nothing_is_imported_once_root_is_left() -> None:
    """A checkout in a home folder is out of others' reach."""
    guarded = (
        "import builtins, os; from lab.host.identity import privilege; real = builtins.__import__\n"
        "def guarded(name, *more):\n"
        "    assert os.geteuid() == 0, name\n"
        "    return real(name, *more)\n"
        "builtins.__import__ = guarded; privilege.leave_root(); print(os.geteuid())"
    )
    done = subprocess.run([sys.executable, "-c", guarded], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(privilege.NOBODYS)
