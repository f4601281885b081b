"""Where the kernel comes from: the host's own, one that lab fetched from Debian, or one that somebody names.

Debian's package ``user-mode-linux`` is a kernel that is a program, with modules that lab has no use for. It is always
of the same release of Debian, whose C library is old enough for all hosts that lab runs on.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from lab.backends.support.programs import binary
from lab.backends.support.programs.fetched import Program, Source, asked, fetched_at, trouble_of
from lab.host.survey.virtualisation import processor_flags

OLDEST = (5, 7)
"""The first whose card can be a descriptor that it is given (drivers/vector_user.c of arch/um, Linux 5.7)."""

KEEPS_ALL_REGISTERS = (6, 13)
"""The first that asks the host how many bytes a processor's registers take (arch/um, "switch to regset API and depend
on XSTATE"). Those before know as many as there were with AVX-512: they hand back less than PTRACE_SETREGSET takes
where Intel's AMX added 8 KiB, and their first process ends as the guest's kernel panics.
"""
FETCHED = (6, 1)
"""Linux of `SOURCE`'s release."""

LIBRARY = re.compile(r"(?:=>\s*)?(/\S+)\s+\(0x")
RELEASE = re.compile(r"(\d+)\.(\d+)[\w.+-]*")


@cache
def look_at(path: Path) -> Program:
    """The program at ``path``, the same one in this process from then on."""
    said = asked(path, "--version").strip()  # 6.1.176
    release = RELEASE.fullmatch(said)
    return Program(
        binary=binary.look_at(path),
        version=f"Linux {said}" if release else "",
        trouble=_trouble(release),
        libraries=_libraries(path) if release else (),
    )


def _trouble(release: re.Match[str] | None) -> str:
    if release is None:
        return "it does not say its release when asked by --version, as a User-mode Linux does"
    if (int(release[1]), int(release[2])) < OLDEST:
        return f"Linux {release[0]} is older than {'.'.join(map(str, OLDEST))}, which lab needs"
    return unkept_registers((int(release[1]), int(release[2])))


def unkept_registers(release: tuple[int, int] = FETCHED) -> str:
    """Why a kernel of that release can't run a program on this processor; "" of one that can."""
    if "amx_tile" not in processor_flags() or release >= KEEPS_ALL_REGISTERS:
        return ""
    first = ".".join(map(str, KEEPS_ALL_REGISTERS))
    return f"as User-mode Linux, a Linux before {first} can't put back all registers of this processor (AMX)"


def _libraries(path: Path) -> tuple[Path, ...]:
    """As its loader finds them; none of one that is static."""
    return tuple(Path(found) for found in LIBRARY.findall(asked("ldd", path)))


SOURCE = Source(
    backend="uml", package="user-mode-linux", suite="bookworm", release="Debian 12", size="40 MB",
    program="linux.uml", kept_as="linux", look_at=look_at, trouble=trouble_of, newness=fetched_at,
)  # fmt: skip
