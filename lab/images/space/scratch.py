"""Temporary space beside the store, on its file system, so that finished work is moved into place by rename(2).

Every process has one folder, ``<home>/tmp/<pid>-<start time>``. The start time (proc(5), ``stat`` field 22)
makes the name unique within a host boot, so that a folder whose owner is dead can be told from one in use.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lab.host.procstat import start_time


def _owner(pid: int) -> str | None:
    """The name of a live process's folder, or None."""
    started = start_time(pid)
    return None if started is None else f"{pid}-{started}"


_FOLDER = threading.Lock()  # one thread must not remove the process's folder while another enters it


@contextmanager
def scratch(home: Path, purpose: str) -> Iterator[Path]:
    """A fresh private directory, removed with all it holds on leaving."""
    mine = home / "tmp" / str(_owner(os.getpid()))
    with _FOLDER:
        mine.mkdir(parents=True, exist_ok=True, mode=0o700)
        directory = Path(tempfile.mkdtemp(prefix=f"{purpose}-", dir=mine))
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)
        with _FOLDER:
            try:
                mine.rmdir()
            except OSError:  # another thread still works in it
                pass


def stale_scratch(home: Path) -> list[Path]:
    """The folders in ``<home>/tmp`` whose owner is dead."""
    folders = sorted((home / "tmp").glob("*-*"))
    pids = [folder.name.partition("-")[0] for folder in folders]
    return [
        folder for folder, pid in zip(folders, pids, strict=True) if pid.isdigit() and _owner(int(pid)) != folder.name
    ]


def clean_scratch(home: Path) -> list[Path]:
    """Remove what dead processes left in ``<home>/tmp``; returns the folders removed."""
    removed = stale_scratch(home)
    for folder in removed:
        shutil.rmtree(folder, ignore_errors=True)
    return removed
