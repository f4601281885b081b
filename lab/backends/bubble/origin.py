"""Where bubblewrap's program comes from: the host's own, or Debian's, fetched past what the host has installed.

Debian's package is one small program and its manual. It is linked with libcap and libselinux, which are essential to
Debian and Ubuntu; where they are missing it does not tell its version, and can't be used.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from lab.backends.support.programs import binary
from lab.backends.support.programs.fetched import Program, Source, asked, fetched_at, trouble_of

PROGRAM, PACKAGE = "bwrap", "bubblewrap"
OLDEST = (0, 8)
"""The oldest that lab was tried with: Debian 12's."""

VERSION = re.compile(rf"{PACKAGE} (\d+)\.(\d+)(\.\d+)*")


@cache
def look_at(path: Path) -> Program:
    """The program at ``path``, the same one in this process from then on."""
    said = asked(path, "--version").strip()
    version = said if VERSION.fullmatch(said) else ""
    return Program(binary=binary.look_at(path), version=version, trouble=_trouble(version))


def _trouble(version: str) -> str:
    found = VERSION.fullmatch(version)
    if found is None:
        return f"it does not say {PACKAGE} and a version when asked by --version"
    if (int(found[1]), int(found[2])) < OLDEST:
        return f"{version} is older than {'.'.join(map(str, OLDEST))}, which lab needs"
    return ""


SOURCE = Source(
    backend=PROGRAM, package=PACKAGE, suite="bookworm", release="Debian 12", size="50 KB", program=PROGRAM,
    kept_as=PROGRAM, look_at=look_at, trouble=trouble_of, newness=fetched_at,
)  # fmt: skip
