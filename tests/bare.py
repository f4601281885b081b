"""A host that has none of the programs that lab would fetch, and whose apt knows no Debian to fetch them from."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.backends.support.programs import binary
from lab.images.debian import apt


def bare_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str = "/usr/bin:/bin") -> Path:
    """The folder that comes first in its PATH, before ``path``; lab's home is ``tmp_path / "home"``."""
    monkeypatch.setenv("LAB_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{path}")
    monkeypatch.setattr(binary, "SYSTEM_FOLDERS", "/sbin")
    monkeypatch.setattr(binary, "_located", {})
    monkeypatch.setattr(apt, "sources_beyond", lambda suite: "")
    return tmp_path / "bin"


def program(path: Path, *said: str) -> Path:
    """One that prints these lines whatever it is asked."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n" + "".join(f"echo '{line}'\n" for line in said))
    path.chmod(0o755)
    return path
