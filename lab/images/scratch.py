"""Temporary space beside the store, on its file system, so that finished work is moved into place by rename(2).

Every process has one folder, ``<home>/tmp/<pid>-<start time>``. The start time (proc(5), ``stat`` field 22)
makes the name unique within a host boot, so that a folder whose owner is dead can be told from one in use.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def _owner(pid: int) -> str | None:
    """``pid-starttime`` of a live process, or None. The command name may hold spaces and parentheses."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    state, *fields = stat.rpartition(b")")[2].split()
    if state in (b"Z", b"X"):
        return None
    return f"{pid}-{int(fields[18])}"


@contextmanager
def scratch(home: Path, purpose: str) -> Iterator[Path]:
    """A fresh private directory, removed with all it holds on leaving."""
    mine = home / "tmp" / str(_owner(os.getpid()))
    mine.mkdir(parents=True, exist_ok=True, mode=0o700)
    directory = Path(tempfile.mkdtemp(prefix=f"{purpose}-", dir=mine))
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)
        try:
            mine.rmdir()
        except OSError:  # another thread of this process still uses it
            pass


def clean_scratch(home: Path) -> list[Path]:
    """Remove what dead processes left in ``<home>/tmp``; returns the folders removed."""
    removed = []
    for folder in sorted((home / "tmp").glob("*-*")):
        pid = folder.name.partition("-")[0]
        if pid.isdigit() and _owner(int(pid)) != folder.name:
            shutil.rmtree(folder, ignore_errors=True)
            removed.append(folder)
    return removed
