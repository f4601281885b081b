"""What the kernel tells of a process in one line: /proc/PID/stat (proc_pid_stat(5)). `lab-oci` imports it."""

from __future__ import annotations

import os

ENDED = (b"Z", b"X")
"""States of a process that has ended, reaped or not."""


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


def is_first_of_namespace(pid: int) -> bool:
    """Whether ``pid`` is process 1 of a pid namespace below this /proc's (proc_pid_status(5), NSpid)."""
    try:
        with open(f"/proc/{pid}/status", "rb") as file:  # noqa: PTH123 - `lab-oci` does without pathlib
            numbers = next((line.split()[1:] for line in file if line.startswith(b"NSpid:")), [])
    except (FileNotFoundError, ProcessLookupError):
        return False
    return len(numbers) > 1 and numbers[-1] == b"1"
