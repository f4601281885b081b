"""Where the kernel comes from: the host's own, one that lab fetched from Debian, or one that somebody names.

Debian's package ``user-mode-linux`` is a kernel that is a program, with modules that lab has no use for. It is
fetched as gVisor's is (`lab.images.debian.fetching`), and kept as
``<home>/programs/user-mode-linux-<version>/linux``. It is always of the same release of Debian, whose C library is
old enough for all hosts that lab runs on.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from lab.backends.support import binary
from lab.backends.support.binary import Binary, locate
from lab.errors import LabError, UsageError
from lab.images.debian import fetching
from lab.images.debian.fetching import Unpacked

PACKAGE, SUITE, RELEASE = "user-mode-linux", "bookworm", "Debian 12"
PROGRAM, KEPT_AS = "linux.uml", "linux"
OLDEST = (5, 7)
"""The first whose card can be a descriptor that it is given (drivers/vector_user.c of arch/um, Linux 5.7)."""

ASKED_SECONDS = 10.0
LIBRARY = re.compile(r"(?:=>\s*)?(/\S+)\s+\(0x")
VERSION = re.compile(r"(\d+)\.(\d+)[\w.+-]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A kernel that is a program: as it was when it was first looked at."""

    binary: Binary
    release: str  # as ``--version`` says: 6.1.176; "" of what is none
    libraries: tuple[Path, ...]  # that it is linked with, and its loader

    @property
    def path(self) -> Path:
        """Its file."""
        return self.binary.path

    @property
    def trouble(self) -> str:
        """Why it can't be used, in a line; "" of one that can."""
        found = VERSION.fullmatch(self.release)
        if found is None:
            return "it does not say its release when asked by --version, as a User-mode Linux does"
        if (int(found[1]), int(found[2])) < OLDEST:
            return f"Linux {self.release} is older than {'.'.join(map(str, OLDEST))}, which lab needs"
        return ""

    @property
    def identity(self) -> Mapping[str, str]:
        """What a run keeps of it. Raises LabError when it is not the one that it was."""
        self.binary.require_unchanged()
        return {"path": str(self.path), "version": f"Linux {self.release}", "digest": self.binary.digest}


@cache
def look_at(path: Path) -> Program:
    """The program at ``path``, the same one in this process from then on."""
    release = _said(path, "--version")
    libraries = () if not VERSION.fullmatch(release) else _libraries(path)
    return Program(binary=binary.look_at(path), release=release, libraries=libraries)


def installed() -> Program | None:
    """The host's own."""
    try:
        return look_at(locate(PROGRAM))
    except UsageError:
        return None


def find() -> Program | None:
    """The one to use: the host's if it can be used, else the latest that was fetched; None when there is neither."""
    own = installed()
    if own is not None and not own.trouble:
        return own
    kept = sorted(fetching.programs().glob(f"{PACKAGE}-*/{KEPT_AS}"), key=lambda path: path.stat().st_mtime)
    return look_at(kept[-1]) if kept else None


def fetch(told: Callable[[str], None]) -> Program:
    """The one to use, fetched if need be, of which ``told`` gets a sentence before. Raises as
    `lab.images.debian.fetching.fetch_once` does.
    """

    def tell(place: Path) -> None:
        told(f"lab: fetching {RELEASE}'s {PACKAGE}, 40 MB, into {place}: once, the host stays as it is")

    return fetching.fetch_once(PACKAGE, SUITE, told=tell, known=find, keep=_keep)


def _keep(package: Unpacked, made: Path) -> Program:
    shutil.copy(package.root / "usr/bin" / PROGRAM, made / KEPT_AS)
    shutil.copy(package.root / "usr/share/doc" / PACKAGE / "copyright", made / "copyright")
    if why := look_at(made / KEPT_AS).trouble:
        raise LabError(f"{RELEASE}'s {PACKAGE} can't be used: {why}", hint="lab doctor --on uml")
    wanted = fetching.programs() / f"{PACKAGE}-{package.version}"
    made.rename(wanted)
    return look_at(wanted / KEPT_AS)


def _libraries(path: Path) -> tuple[Path, ...]:
    """As its loader finds them; none of one that is static."""
    return tuple(Path(found) for found in LIBRARY.findall(_asked("ldd", path)))


def _said(path: Path, word: str) -> str:
    lines = _asked(path, word).strip().splitlines()
    return lines[0].strip() if len(lines) == 1 else ""


def _asked(*words: str | Path) -> str:
    try:
        done = subprocess.run(
            words, stdin=subprocess.DEVNULL, capture_output=True, timeout=ASKED_SECONDS, check=False, cwd="/",
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"},
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode("utf-8", "replace") if done.returncode == 0 else ""
