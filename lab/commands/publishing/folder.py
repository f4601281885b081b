"""The folder of a site: whole files only, the first page last, then what nothing leads to any more is removed.

At any moment the page that stands there leads to files that are there: data files are called by their content and are
removed only after a page that does not need them has taken its place. A page that was loaded before says so.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lab.errors import ResultsError

OWN = ".lab"
"""The folder in the site's that makes it one: what was read of runs, and the lock."""

INDEX, FEED = "index.html", "feed.xml"
PLACES = ("data", "runs", "changes")
MADE = re.compile(r"(data|runs|changes)/[a-z0-9][a-z0-9.-]*\.(js|html)|\.[a-z0-9.-]+\.tmp")
"""What is written there; nothing else is ever removed."""


@contextmanager
def owned(path: Path) -> Iterator[Path]:
    """``path`` as a site's folder of which this process is the only writer. Raises ResultsError where it is
    another's.
    """
    try:
        if path.exists() and not (path / OWN).is_dir() and any(path.iterdir()):
            raise ResultsError(f"{path} holds files that are no site of lab's", hint="name a new or an empty folder")
        for each in (path, path / OWN, *(path / place for place in PLACES)):
            each.mkdir(parents=True, exist_ok=True)
        lock = os.open(path / OWN / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    except OSError as error:
        raise ResultsError(f"{path} can't be written: {error.strerror}", hint="name a folder of your own") from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ResultsError(f"another lab publishes into {path}", hint="wait for it") from error
        yield path
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        hint = "free some space, then publish again: the old site still stands" if full else "check its owner"
        raise ResultsError(f"{path} can't be written: {error.strerror}", hint=hint) from error
    finally:
        os.close(lock)


def put(root: Path, name: str, data: bytes) -> None:
    """Whole or not at all, and on the disk before it has its name."""
    target = root / name
    scratch = target.with_name(f".{target.name}.tmp")
    with suppress(FileNotFoundError):
        scratch.unlink()
    with scratch.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    scratch.replace(target)


def remove_others(root: Path, kept: set[str]) -> None:
    """Remove what was made there and is not ``kept``."""
    for place in PLACES:
        for path in (root / place).iterdir():
            name = f"{place}/{path.name}"
            if name not in kept and (MADE.fullmatch(name) or MADE.fullmatch(path.name)):
                path.unlink()
