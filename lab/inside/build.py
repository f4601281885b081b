"""The static helper program: compiled once per source, kept in lab's home.

Every instance sees the folder that holds it at ``/.lab``, so the folder holds nothing else.
"""

from __future__ import annotations

import fcntl
import hashlib
import tempfile
from functools import cache
from pathlib import Path

from lab.errors import CommandError, LabError
from lab.host import home as places
from lab.host.command import run

SOURCES = Path(__file__).parent

COMPILE = ("gcc", "-std=gnu11", "-static", "-O2", "-ffp-contract=off", "-D_GNU_SOURCE", "-Wall", "-Wextra")
"""``-ffp-contract=off`` keeps the fixed computation's bits the same whatever the compiler may fuse."""

REMEDY = "apt-get install gcc libc6-dev"
COMPILE_SECONDS = 120.0


@cache
def digest() -> str:
    """SHA-256 over the compile command and the sources, 16 hex digits: the same digest, the same program."""
    whole = hashlib.sha256("\0".join(COMPILE).encode())
    for source in _sources(".c") + _sources(".h"):
        whole.update(f"\0{source.name}\0".encode() + source.read_bytes())
    return whole.hexdigest()[:16]


def program(home: Path | None = None) -> Path:
    """``<home>/inside/<digest>/inside``, compiled if it is not there yet; ``home`` is lab's unless given.

    Safe against a second lab that compiles at the same time. Raises LabError, with the remedy, when there is
    no compiler or no static C library.
    """
    finished = (home or places.home()) / "inside" / digest() / "inside"
    if finished.exists():
        return finished
    cellar = finished.parent.parent
    cellar.mkdir(parents=True, exist_ok=True)
    with (cellar / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not finished.exists():
            with tempfile.TemporaryDirectory(dir=cellar, prefix=".build-") as scratch:
                built = _compile(Path(scratch) / "inside")
                finished.parent.mkdir(exist_ok=True)
                finished.parent.chmod(0o755)
                built.rename(finished)
    return finished


def _compile(target: Path) -> Path:
    stamp = f'-DSOURCE_DIGEST="{digest()}"'
    try:
        run([*COMPILE, stamp, "-o", target, *_sources(".c"), "-lm"], timeout_seconds=COMPILE_SECONDS)
    except CommandError as error:
        raise LabError(
            "lab's helper program can't be compiled", hint=REMEDY, detail=error.detail or error.message
        ) from error
    target.chmod(0o755)
    return target


def _sources(suffix: str) -> list[Path]:
    return sorted(SOURCES.glob(f"*{suffix}"))
