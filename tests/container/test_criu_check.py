"""A host where criu can't start: it is asked in a /run of its own, and what it says is told. With programs made here;
the real one works in a guest, see inside_criu.py.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from host_state import assert_unchanged, snapshot

from lab.host.survey import criu

CAN = '#!/bin/sh\n[ "$1" = check ] && echo known >/run/criu.kdat\n'
CAN_NOT = f"{CAN}echo 'Error (criu/vdso.c:381): vdso: as no other' >&2\nexit 1\n"


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    host, cache = snapshot(), criu.CACHE.exists()
    criu.obstacle.cache_clear()
    criu.look.cache_clear()
    yield
    criu.obstacle.cache_clear()
    criu.look.cache_clear()
    assert criu.CACHE.exists() == cache
    assert_unchanged(host)


def install(script: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "criu").write_text(script)
    (folder / "criu").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")


def test_what_it_finds_out_is_kept_for_those_that_follow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(CAN, tmp_path, monkeypatch)
    assert criu.obstacle() == ""
    assert criu.look() == b"known\n"
    (tmp_path / "known").write_bytes(b"by another")
    (tmp_path / "criu").write_text(f'#!/bin/sh\necho "$@"; cat {criu.CACHE}')
    done = subprocess.run(criu.knowing(tmp_path / "known", "dump", "--tree", "1"), capture_output=True, check=True)
    assert done.stdout == b"dump --tree 1\nby another"


def test_who_asks_for_the_knob_is_told_why_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(CAN_NOT, tmp_path, monkeypatch)
    words = [sys.executable, "-m", "lab.cli.main", "run", "idle", "--on", "container", "--knob", "start=restore"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=250, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    line, remedy = done.stderr.splitlines()
    assert line == "lab: start=restore of container can't be had here: criu check fails: vdso: as no other"
    assert remedy.strip() == criu.REMEDY
