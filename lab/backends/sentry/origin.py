"""Where gVisor's program, runsc, comes from: the host, or Debian 13's package, fetched past the host's own releases.

Its package is one static program. Debian 12's is of 2022, and ended after about a hundred requests.
"""

from __future__ import annotations

import re

from lab.backends.support.programs.binary import Binary, look_at
from lab.backends.support.programs.fetched import Source

PROGRAM = "runsc"
OLDEST = 20240729
"""The oldest date in a version that lab was tried with: Debian 13's."""

DATE = re.compile(r"\b(20\d{6})\b")


def date_of(binary: Binary) -> int:
    """When a runsc was released, as its version tells: 20240729; 0 of what tells no date."""
    found = DATE.search(binary.answers.version)
    return int(found[1]) if found else 0


def trouble(binary: Binary) -> str:
    """Why a program can't be used as gVisor's, in a line; "" of one that can."""
    answers = binary.answers
    if answers.trouble:
        return answers.trouble
    if answers.program != PROGRAM:
        return f"it says {answers.version or 'no version'!r}, and is no {PROGRAM}"
    if (date := date_of(binary)) < OLDEST:
        ended = "; Debian 12's ends after about a hundred requests" if str(date).startswith("2022") else ""
        return f"{answers.version} is older than {OLDEST}, which lab needs{ended}"
    return ""


SOURCE = Source(
    backend="gvisor", package=PROGRAM, suite="trixie", release="Debian 13", size="7 MB", program=PROGRAM,
    kept_as=PROGRAM, look_at=look_at, trouble=trouble, newness=lambda path: date_of(look_at(path)),
)  # fmt: skip
