"""What a command can't do without root, said before it begins."""

from __future__ import annotations

import shlex
import sys

from lab.host.privilege import Need, require


def require_root() -> None:
    """Raise LabError with the line to type unless this process may do what lab does."""
    command = next((word for word in sys.argv[1:] if not word.startswith("-")), "")
    require(Need.CONTAIN, f"lab {command}", shlex.join(sys.argv[1:]))
