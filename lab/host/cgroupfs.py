"""The kernel's control files and the processes they name: reading, writing, waiting (cgroups(7))."""

from __future__ import annotations

import errno
import os
import select
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath

from lab.errors import LabError
from lab.host.hierarchy import DELEGATED

LINKS_OF_A_LEAF = 2  # its name and its own "."; each folder in it adds its ".."
ATTEMPTS = 100  # each lost to another session that removed an empty parent just then


def make(mount: Path, path: PurePosixPath, *, delegate: bool) -> None:
    """Make ``path``, and its parents where there are none. Raises FileExistsError, or OSError.

    Whoever removes the last group of a parent removes the parent too, maybe between our making it and our using it.
    """
    for attempt in range(ATTEMPTS):
        try:
            (mount / path).mkdir()
        except FileNotFoundError:
            if attempt == ATTEMPTS - 1:
                raise
        else:
            return
        try:
            make_parents(mount, path, delegate=delegate)
        except OSError as error:  # ENODEV: its files are open, and it is gone (kernfs)
            if error.errno not in (errno.ENOENT, errno.ENODEV) or not mount.exists():
                raise


def make_parents(mount: Path, path: PurePosixPath, *, delegate: bool) -> None:
    """Make every parent of ``path``; on v2 pass the controllers down, from the root to the leaf's parent."""
    for parent in [PurePosixPath("."), *reversed(list(path.parents)[:-1])]:
        with suppress(FileExistsError):
            (mount / parent).mkdir()
            weigh_as_many(mount / parent)
        if delegate:
            offered = (mount / parent / "cgroup.controllers").read_text().split()
            enabled = (mount / parent / "cgroup.subtree_control").read_text().split()
            missing = [name for name in DELEGATED if name in offered and name not in enabled]
            if missing:
                write(mount / parent / "cgroup.subtree_control", " ".join(f"+{name}" for name in missing))


def weigh_as_many(parent: Path) -> None:
    """Let a parent weigh one ordinary task per CPU.

    A group competes as a whole, by default with the weight of a single task (sched-design-CFS.rst, cpu.weight in
    cgroup-v2.rst): every instance of a session together would count no more than one busy process of the host.
    """
    cpus = os.cpu_count() or 1
    for name, one_task in (("cpu.shares", 1024), ("cpu.weight", 100)):
        with suppress(FileNotFoundError):
            write(parent / name, str(min(one_task * cpus, 10_000 if name == "cpu.weight" else 262_144)))


def read(path: Path) -> str:
    """The whole file, in one read(2) where a page holds it."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts = []
        while part := os.read(descriptor, 1 << 16):
            parts.append(part)
        return b"".join(parts).decode().strip()
    finally:
        os.close(descriptor)


def write(path: Path, value: str) -> None:
    """One write(2), as the kernel's files want it; never creates."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, value.encode())
    except OSError as error:
        raise OSError(error.errno, f"{error.strerror} (writing {value!r})", str(path)) from error
    finally:
        os.close(descriptor)


def children(directory: Path) -> list[Path]:
    try:
        if directory.stat().st_nlink == LINKS_OF_A_LEAF:
            return []  # the usual case, told without listing some thirty control files
        return [Path(entry.path) for entry in os.scandir(directory) if entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return []


def walk(directory: Path) -> Iterator[Path]:
    yield directory
    for child in children(directory):
        yield from walk(child)


def pairs(text: str) -> dict[str, int]:
    return {name: int(value) for name, value in (line.split() for line in text.splitlines())}


def lives(pid: int) -> bool:
    """False for zombies and for processes that are gone (proc_pid_stat(5), field 3)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return False
    return stat[stat.rindex(b")") + 2 : stat.rindex(b")") + 3] not in (b"Z", b"X")


def wait_dead(pids: set[int], timeout_seconds: float) -> None:
    """Until every process has ended: a pidfd becomes readable then, even while nobody has reaped it."""
    deadline = time.monotonic() + timeout_seconds
    for pid in pids:
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        try:
            select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))
        finally:
            os.close(descriptor)


def wait_until(condition: Callable[[], bool], timeout_seconds: float, complaint: str) -> None:
    deadline = time.monotonic() + timeout_seconds
    while not condition():
        if time.monotonic() > deadline:
            raise LabError(f"{complaint} within {timeout_seconds:g} s")
        time.sleep(0.001)
