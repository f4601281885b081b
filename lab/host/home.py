"""Where lab keeps things. Nothing is created on import.

home     what should outlive a command: images, guest kernels, caches
runtime  what must not: sockets, ledgers, scratch, one folder per session
"""

from __future__ import annotations

import os
from pathlib import Path

from lab.host.identity import private, privilege

SHARED = "/tmp/lab-{}"


def home() -> Path:
    """``$LAB_HOME``, else ``/var/lib/lab`` for root, else ``$XDG_DATA_HOME/lab``."""
    if override := os.environ.get("LAB_HOME"):
        return Path(override).absolute()
    if privilege.is_system_wide():
        return Path("/var/lib/lab")
    return (_folder("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "lab"


def runtime_root() -> Path:
    """The parent of all sessions' folders: short, since socket paths hold 107 bytes (unix(7)).

    Raises LabError if somebody else has made what would be ours.
    """
    if privilege.is_system_wide():
        return Path("/run/lab")
    if given := _folder("XDG_RUNTIME_DIR"):
        return given / "lab"
    own = Path(SHARED.format(privilege.account()))
    private.require_own(own)
    return own / "lab"


def _folder(variable: str) -> Path | None:
    """What is not absolute counts as unset (XDG Base Directory Specification)."""
    given = Path(os.environ.get(variable, ""))
    return given if given.is_absolute() else None
