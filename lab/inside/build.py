"""The static helper program: compiled once per source, kept in lab's home.

Every instance sees the folder that holds it at ``/.lab``, so the folder holds nothing else.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from lab.host import compiler
from lab.host import home as places

SOURCES = Path(__file__).parent

COMPILE = ("gcc", "-std=gnu11", "-static", "-O2", "-ffp-contract=off", "-D_GNU_SOURCE", "-Wall", "-Wextra")
"""``-ffp-contract=off`` keeps the fixed computation's bits the same whatever the compiler may fuse."""


@cache
def digest() -> str:
    """As `compiler.digest_of` says, of the helper: the same digest, the same program."""
    return compiler.digest_of(COMPILE, _sources(".c") + _sources(".h"))


def program(home: Path | None = None) -> Path:
    """``<home>/inside/<digest>/inside``, compiled if it is not there yet; ``home`` is lab's unless given.

    Raises as `compiler.compiled` does.
    """
    finished = (home or places.home()) / "inside" / digest() / "inside"
    stamp = f'-DSOURCE_DIGEST="{digest()}"'
    return compiler.compiled(finished, (*COMPILE, stamp), _sources(".c"), libraries=("-lm",))


@cache
def _sources(suffix: str) -> list[Path]:
    return sorted(SOURCES.rglob(f"*{suffix}"))
