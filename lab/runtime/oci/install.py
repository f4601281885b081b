"""Where the executable is, for those who start it by themselves."""

from __future__ import annotations

import sys
from pathlib import Path

EXECUTABLE = Path(__file__).with_name("lab-oci")


def command() -> list[str]:
    """The words that start it, by the interpreter this one is made from: without an environment's site packages."""
    return [getattr(sys, "_base_executable", "") or sys.executable, "-IS", str(EXECUTABLE)]
