"""Where bubblewrap's program comes from: the host's own, or Debian's, fetched past what the host has installed.

Debian's package is one small program and its manual. It is fetched as gVisor's is (`lab.images.debian.fetching`),
and kept as ``<home>/programs/bubblewrap-<version>/bwrap``. It is linked with libcap and libselinux, which are
essential to Debian and Ubuntu; where they are missing it does not tell its version, and can't be used.
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

PROGRAM, PACKAGE = "bwrap", "bubblewrap"
SUITE, RELEASE = "bookworm", "Debian 12"
OLDEST = (0, 8)
"""The oldest that lab was tried with: Debian 12's."""

ASKED_SECONDS = 10.0
VERSION = re.compile(rf"{PACKAGE} (\d+)\.(\d+)(\.\d+)*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A bwrap, as it was when it was first looked at."""

    binary: Binary
    version: str  # as ``--version`` says: bubblewrap 0.8.0; "" of what is none

    @property
    def path(self) -> Path:
        """Its file."""
        return self.binary.path

    @property
    def trouble(self) -> str:
        """Why it can't be used, in a line; "" of one that can."""
        found = VERSION.fullmatch(self.version)
        if found is None:
            return f"it does not say {PACKAGE} and a version when asked by --version"
        if (int(found[1]), int(found[2])) < OLDEST:
            return f"{self.version} is older than {'.'.join(map(str, OLDEST))}, which lab needs"
        return ""

    @property
    def identity(self) -> Mapping[str, str]:
        """What a run keeps of it. Raises LabError when it is not the one that it was."""
        self.binary.require_unchanged()
        return {"path": str(self.path), "version": self.version, "digest": self.binary.digest}


@cache
def look_at(path: Path) -> Program:
    """The program at ``path``, the same one in this process from then on."""
    return Program(binary=binary.look_at(path), version=_version(path))


def installed() -> Program | None:
    """The host's own, whether it can be used or not."""
    try:
        return look_at(locate(PROGRAM))
    except UsageError:
        return None


def find() -> Program | None:
    """The one to use: the host's if it can be used, else the latest that was fetched; None when there is neither."""
    own = installed()
    if own is not None and not own.trouble:
        return own
    kept = sorted(fetching.programs().glob(f"{PACKAGE}-*/{PROGRAM}"), key=lambda path: path.stat().st_mtime)
    return look_at(kept[-1]) if kept else None


def fetch(told: Callable[[str], None]) -> Program:
    """The one to use, fetched if need be, of which ``told`` gets a sentence before. Raises as
    `lab.images.debian.fetching.fetch_once` does.
    """

    def tell(place: Path) -> None:
        told(f"lab: fetching {RELEASE}'s {PACKAGE} into {place}: once, the host stays as it is")

    return fetching.fetch_once(PACKAGE, SUITE, told=tell, known=find, keep=_keep)


def _keep(package: Unpacked, made: Path) -> Program:
    shutil.copyfile(package.root / "usr/bin" / PROGRAM, made / PROGRAM)
    (made / PROGRAM).chmod(0o755)  # some packages have it set-uid: root has no use for that
    shutil.copy(package.root / "usr/share/doc" / PACKAGE / "copyright", made / "copyright")
    if why := look_at(made / PROGRAM).trouble:
        raise LabError(f"{RELEASE}'s {PACKAGE} can't be used: {why}", hint="lab doctor --on bwrap")
    wanted = fetching.programs() / f"{PACKAGE}-{package.version}"
    made.rename(wanted)
    return look_at(wanted / PROGRAM)


def _version(path: Path) -> str:
    try:
        done = subprocess.run(
            [path, "--version"], stdin=subprocess.DEVNULL, capture_output=True, timeout=ASKED_SECONDS, check=False,
            cwd="/", env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"},
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return ""
    said = done.stdout.decode("utf-8", "replace").strip()
    return said if done.returncode == 0 and VERSION.fullmatch(said) else ""
