"""What a light installation says where something would be measured.

``pip install lab-boundaries`` brings what reads results: reports, differences, tables, on any system. Measuring needs
Linux, system packages and the extra ``measure``; ``./bootstrap`` installs all of that.
"""

from __future__ import annotations

import sys

from lab.errors import LabError

MEASURE = {
    "dask": "distributed", "distributed": "distributed", "docker": "docker", "dockerfile": "dockerfile",
    "libvirt": "libvirt-python", "libvirt_qemu": "libvirt-python",
    "pyroute2": "pyroute2", "zstandard": "zstandard",
}  # fmt: skip
"""The modules that the extra ``measure`` of pyproject.toml brings, and each one's distribution."""

LINUX = frozenset({"fcntl", "grp", "pwd", "resource", "termios"})
"""Modules of the standard library that are not everywhere, on which what measures rests."""

READS = "lab report, lab diff, lab results and lab race --replay read runs that were measured elsewhere"


def explained(error: ModuleNotFoundError) -> LabError | None:
    """What to do about a module that only a full installation has; None for any other, whose lack is a bug."""
    name = (error.name or "").partition(".")[0]
    if name in LINUX or (name in MEASURE and sys.platform != "linux"):
        return LabError("this command of lab runs on Linux alone", hint=f"here, {READS}")
    if name in MEASURE:
        return LabError(
            f"this is a light installation, which reads results; what measures needs {MEASURE[name]}",
            hint=f"in a checkout: sudo ./bootstrap lab …, which installs all of it. Here, {READS}",
        )
    return None
