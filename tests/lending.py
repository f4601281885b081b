"""What a build in a test has to be lent on some hosts."""

from __future__ import annotations

import re
import subprocess
import sys


def certificates() -> dict[str, str]:
    """``LAB_CA``, where the host's pip is told whose certificates to trust: a build's pip has to be told, too."""
    words = [sys.executable, "-m", "pip", "config", "list"]
    told = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    found = re.search(r"^\S+\.cert='(.*)'$", told, re.MULTILINE)
    return {"LAB_CA": found[1]} if found else {}
