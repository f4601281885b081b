"""Kernel samepage merging: equal pages of memory that was offered for it are kept once (KSM).

A kernel thread, ksmd, compares the pages that programs offer: a VMM with madvise(2), any program with prctl(2). Its
work is charged to nobody, and it looks at what all programs of the host have offered, lab's or not.

Source: Documentation/admin-guide/mm/ksm.rst in the kernel's tree.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from lab.errors import LabError
from lab.host import syscalls
from lab.host.kernel import settings
from lab.host.session.ledger import Resource, ResourceKind, Session
from lab.model import KSM_PASSES

FOLDER = Path("/sys/kernel/mm/ksm")
RUNNING = "1"
STOP, STOP_AND_UNMERGE = "0", "2"
SAVED = "ksm.settings"
SETTLE_SECONDS = 60.0
PAGES_TO_SCAN = 1000
"""At each waking, every 20 ms where nobody has changed that: up to 200 MB of present pages per second. The kernel's
own 100 would take longer for one pass over a small guest than an instance is watched."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Merged:
    """What one process has of it (proc_pid_ksm_stat in ksm.rst). ``None`` where this kernel doesn't tell."""

    offered: bool | None
    merged_pages: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What the whole host has of it since it was switched on."""

    running: bool
    full_scans: int  # passes over all that is offered; the second that sees a page merges it, at the earliest
    shared_pages: int  # kept once
    sharing_pages: int  # … and mapped so many times more: what is saved
    daemon_seconds: float | None  # of ksmd on a processor, since the host's boot; while it runs


def state(folder: Path = FOLDER) -> State | None:
    """None for a kernel without it."""
    try:
        running = (folder / "run").read_text().strip() == RUNNING
        return State(
            running=running,
            full_scans=int((folder / "full_scans").read_text()),
            shared_pages=int((folder / "pages_shared").read_text()),
            sharing_pages=int((folder / "pages_sharing").read_text()),
            daemon_seconds=_daemon_seconds() if running else None,
        )
    except OSError:
        return None


def of_process(pid: int) -> Merged:
    """What a living process has offered and what of it is merged; nothing for one that has ended."""
    with suppress(OSError):
        pairs = (line.split() for line in Path(f"/proc/{pid}/ksm_stat").read_text().splitlines())
        found = {words[0].rstrip(":"): words[-1] for words in pairs if words}
        offered = found.get("ksm_mergeable")
        merged = found.get("ksm_merging_pages")
        return Merged(
            offered=None if offered is None else offered == "yes",
            merged_pages=None if merged is None else int(merged),
        )
    return Merged(offered=None, merged_pages=None)


def can_be_asked_for() -> bool:
    """Whether a process can offer all its memory: prctl(2) PR_SET_MEMORY_MERGE, Linux 6.4."""
    try:
        return syscalls.prctl(syscalls.PR_GET_MEMORY_MERGE) >= 0
    except OSError:
        return False


def require_off() -> State:
    """Raises LabError where KSM is somebody's already, or missing: what it did by then could not be told apart."""
    found = state()
    if found is None:
        raise LabError("this kernel has no KSM", hint="a kernel with CONFIG_KSM")
    if found.running or found.shared_pages:
        raise LabError(
            "KSM is in use on this host, and not by this session of lab",
            hint=f"who uses it? If nobody: echo {STOP_AND_UNMERGE} > {FOLDER / 'run'}",
        )
    return found


@contextmanager
def on(session: Session) -> Iterator[State]:
    """Let ksmd run, for the whole host, until this is left; then unmerge, and set everything as it was.

    After a SIGKILL the session's ledger does that. Yields the state before. Raises LabError as `require_off`.
    """
    before = require_off()
    run, pages_to_scan = str(FOLDER / "run"), str(FOLDER / "pages_to_scan")
    former = [(path, Path(path).read_text().strip()) for path in (pages_to_scan, run)]
    file = session.directory / SAVED
    session.record(Resource(kind=ResourceKind.SETTINGS, name=str(file)))
    settings.save(file, [(run, STOP_AND_UNMERGE), *former])
    try:
        settings.write(pages_to_scan, str(PAGES_TO_SCAN))
        settings.write(run, RUNNING)
        yield before
    finally:
        settings.put_back(file)


def settle(passes: int = KSM_PASSES, timeout_seconds: float = SETTLE_SECONDS) -> int:
    """Wait until ksmd has ended so many passes, or the time is over; returns how many it did.

    Nobody tells when a pass ends: looked at every 50 ms.
    """
    first, deadline = _full_scans(), time.monotonic() + timeout_seconds
    while (done := _full_scans() - first) < passes and time.monotonic() < deadline:
        time.sleep(0.05)
    return done


def _full_scans() -> int:
    return int((FOLDER / "full_scans").read_text())


def _daemon_seconds() -> float | None:
    """proc_pid_stat(5), fields 14 and 15, of a child of kthreadd."""
    for place in Path("/proc").glob("[0-9]*/comm"):
        with suppress(OSError):
            if place.read_text() == "ksmd\n":
                fields = place.with_name("stat").read_text().rpartition(")")[2].split()
                return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK") if fields[1] == "2" else None
    return None
