"""What the kernel tells of a process in one line: /proc/PID/stat (proc_pid_stat(5)). `lab-oci` imports it."""

from __future__ import annotations

import os

ENDED = (b"Z", b"X")
"""States of a process that has ended, reaped or not."""

PARENT = 1
"""Of `fields`: the parent's pid."""


def line(pid: int) -> bytes:
    """All of it. Raises OSError."""
    descriptor = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(descriptor, 4096)
    finally:
        os.close(descriptor)


def fields(pid: int) -> list[bytes]:
    """From the third field on, the state: a program's name, the second, may hold any sign. Raises OSError."""
    return line(pid).rpartition(b")")[2].split()


def start_time(pid: int) -> int | None:
    """When the living process ``pid`` started, in clock ticks since boot (field 22). None when it has ended."""
    try:
        state, *rest = fields(pid)
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if state in ENDED else int(rest[18])
