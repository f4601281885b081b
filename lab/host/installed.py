"""How lab is here: a checkout, whose `bootstrap` installs and starts it, or installed by pip or as a Debian package.

A checkout has scenarios and the sample beside the modules; an installation has them below ``share/lab`` of its prefix
(pyproject.toml, data-files; debian/rules). `lab-oci` imports this too, so nothing else is imported.
"""

from __future__ import annotations

import os
import sys

BESIDE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SHARED = f"{sys.prefix}/share/lab"

BOOTSTRAP = "./bootstrap " if os.path.exists(f"{BESIDE}/bootstrap") else ""
"""What stands before ``lab`` in a command line that somebody may copy."""


def shipped(name: str) -> str:
    """The path of a folder or file that comes with lab, as it is called in a checkout; it need not be there."""
    return next(
        (path for path in (f"{BESIDE}/{name}", f"{SHARED}/{name}") if os.path.exists(path)), f"{BESIDE}/{name}"
    )
