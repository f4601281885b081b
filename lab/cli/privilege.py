"""What a command can't do without root, said before it begins."""

from __future__ import annotations

import os
import shlex
import sys

from lab.errors import LabError


def require_root() -> None:
    """Raise LabError with the line to type unless this process is root's."""
    if os.geteuid() != 0:
        words = shlex.join(sys.argv[1:])
        command = next((word for word in sys.argv[1:] if not word.startswith("-")), "")
        raise LabError(f"lab {command} needs root", hint=f"sudo ./bootstrap lab {words}")
