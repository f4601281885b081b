"""Where systemd-nspawn comes from: the host's own, or that of the host's release of Debian, fetched past what it has.

The program is linked with a library of systemd's that is of the very same version, and is fetched with it. What else
it takes (libseccomp, libmount, libcap, …) every Debian with systemd has; where something is missing it does not tell
its version, and can't be used.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path

from lab.backends.support.programs import binary
from lab.backends.support.programs.fetched import Program, Source, asked, fetched_at, trouble_of
from lab.images.debian.apt import RELEASES

BACKEND, PROGRAM, PACKAGE, LIBRARY = "nspawn", "systemd-nspawn", "systemd-container", "libsystemd-shared"
OLDEST = 249
"""The oldest that is worth a try: Ubuntu 22.04's. lab was tried with Debian's, 252 and 257."""

VERSION = re.compile(r"systemd (\d+)\b.*")
OTHERWISE = ("bookworm", "12")


@cache
def look_at(path: Path) -> Program:
    """The program at ``path``, the same one in this process from then on."""
    libraries = tuple(sorted(path.parent.glob(f"{LIBRARY}-*.so")))
    said = asked(path, "--version", environment=environment(libraries)).partition("\n")[0].strip()
    found = VERSION.fullmatch(said)
    return Program(
        binary=binary.look_at(path), version=said if found else "", trouble=_trouble(found), libraries=libraries
    )


def environment(libraries: tuple[Path, ...]) -> Mapping[str, str]:
    """The variables by which it finds the libraries beside it."""
    return {"LD_LIBRARY_PATH": str(libraries[0].parent)} if libraries else {}


def _trouble(found: re.Match[str] | None) -> str:
    if found is None:
        return "it does not say systemd and a version when asked by --version"
    return f"systemd {found[1]} is older than {OLDEST}, which lab needs" if int(found[1]) < OLDEST else ""


def _release() -> tuple[str, str]:
    """The name and the number of the host's release of Debian, with whose libraries the program works."""
    with suppress(OSError):
        said = platform.freedesktop_os_release()
        if said.get("VERSION_CODENAME") in RELEASES:
            return said["VERSION_CODENAME"], said.get("VERSION_ID", said["VERSION_CODENAME"])
    return OTHERWISE


SUITE, NUMBER = _release()
SOURCE = Source(
    backend=BACKEND, package=PACKAGE, suite=SUITE, release=f"Debian {NUMBER}", size="2 MB", program=PROGRAM,
    kept_as=PROGRAM, look_at=look_at, trouble=trouble_of, newness=fetched_at, also=(LIBRARY,),
    beside=(f"usr/lib/*/systemd/{LIBRARY}-*.so",),
)  # fmt: skip
