"""Where gVisor's program, runsc, comes from: the host, or Debian 13's package, fetched past the host's own releases.

Its package is one static program, kept as ``<home>/programs/runsc-<version>/runsc``; how it is fetched:
`lab.images.debian.fetching`. Debian 12's is of 2022, and ended after about a hundred requests.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

from lab.backends.support.binary import Binary, locate, look_at
from lab.errors import LabError, UsageError
from lab.images.debian import fetching
from lab.images.debian.fetching import Unpacked

PROGRAM, SUITE, RELEASE = "runsc", "trixie", "Debian 13"
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


def installed() -> Binary | None:
    """The host's own, whether it can be used or not."""
    try:
        return look_at(locate(PROGRAM))
    except UsageError:
        return None


def fetched() -> Binary | None:
    """The latest of those that were fetched."""
    known = [look_at(path) for path in fetching.programs().glob(f"{PROGRAM}-*/{PROGRAM}")]
    return max(known, key=date_of, default=None)


def find() -> Binary | None:
    """The one to use: the host's if it is new enough, else one that was fetched; None when there is neither."""
    own = installed()
    if own is not None and not trouble(own):
        return own
    return fetched()


def can_be_fetched() -> bool:
    """Whether the host's apt has a Debian archive to ask."""
    return fetching.can_be_fetched(SUITE)


def fetch(told: Callable[[str], None]) -> Binary:
    """The one to use, fetched if need be, of which ``told`` gets a sentence before.

    Raises BackendUnavailable where there is no archive to ask, LabError when it can't be had.
    """

    def tell(place: Path) -> None:
        told(f"lab: fetching {RELEASE}'s {PROGRAM}, gVisor's program, into {place}: once, the host stays as it is")

    return fetching.fetch_once(PROGRAM, SUITE, told=tell, known=find, keep=_keep)


def _keep(package: Unpacked, made: Path) -> Binary:
    wanted = fetching.programs() / f"{PROGRAM}-{package.version}"
    shutil.copy(package.root / "usr/bin" / PROGRAM, made / PROGRAM)
    shutil.copy(package.root / "usr/share/doc" / PROGRAM / "copyright", made / "copyright")
    if why := trouble(look_at(made / PROGRAM)):
        raise LabError(f"{RELEASE}'s {PROGRAM} can't be used: {why}", hint="lab doctor --on gvisor")
    made.rename(wanted)
    return look_at(wanted / PROGRAM)
