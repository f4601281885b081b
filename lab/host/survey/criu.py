"""Whether this host can save and restore processes: criu(8) is asked, whose own check tries what it needs."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from lab.errors import CommandError
from lab.host.command import SYSTEM_FOLDERS, run
from lab.host.home import home
from lab.model import Check

SECONDS = 30.0
RUN = Path("/run")
CACHE = RUN / "criu.kdat"
"""What criu has found out about the kernel it writes there, for the next time, whoever asked and whatever was allowed
to them. lab gives it a /run of its own each time, and nothing of it is left.
"""
OWN_MOUNTS = ("unshare", "--mount", "--propagation", "slave", "sh", "-ec")
OWN_RUN = f"mount -t tmpfs tmpfs {RUN}"
LOOK = f'{OWN_RUN}; "$0" check >&2; cat {CACHE}'
KNOWING = f'exec 3<"$0"; {OWN_RUN}; cat <&3 >{CACHE}; exec "$@" 3<&-'

REMEDY = "a criu or a kernel that go together; start=boot needs neither"

ERROR, PROBED = "Error (", "exited, status="


def program() -> str | None:
    """Where it is installed."""
    return shutil.which("criu", path=f"{os.environ.get('PATH', '')}:{SYSTEM_FOLDERS}")


def check() -> Check:
    """What ``criu check`` says: no version and no kernel is known to it that fits by its name alone."""
    why = obstacle()
    return Check(
        name="criu",
        ok=not why,
        found=why or "criu check: looks good",
        remedy=REMEDY if program() else "apt-get install criu, where the distribution has it",
        costs="--knob start=restore of containers",
    )


@cache
def obstacle() -> str:
    """Why nothing can be restored here, in one line; "" when it can. Asks once."""
    if program() is None:
        return "criu is not installed"
    if home().is_relative_to(RUN):
        return f"LAB_HOME is below {RUN}, which criu does not get to see"
    try:
        look()
    except CommandError as error:
        said = error.detail.splitlines() or [error.message]
        return f"criu check fails: {reason(said) or said[-1]}"
    return ""


@cache
def look() -> bytes:
    """What criu finds out about the kernel, as it keeps it. Raises CommandError when that is not enough for it."""
    return run([*OWN_MOUNTS, LOOK, program() or "criu"], timeout_seconds=SECONDS).stdout


def knowing(known: Path, *words: str) -> list[str]:
    """The command that runs criu with ``words``; the file ``known`` is what `look` has found."""
    return [*OWN_MOUNTS, KNOWING, str(known), program() or "criu", *words]


def reason(lines: Iterable[str]) -> str:
    """The first of its errors, without the place in its source; "" where there is none.

    That a child of its own exited with 1 is how it finds out what the kernel lacks, and no error.
    """
    found = (line.partition(ERROR)[2].partition("): ")[2] for line in lines if PROBED not in line)
    return next(filter(None, found), "")


def reason_in(log: Path) -> str:
    """The `reason` in a log file of its; "" without one."""
    try:
        return reason(log.read_text(errors="replace").splitlines())
    except OSError:
        return ""
