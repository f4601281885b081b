"""The kernel's control files and the processes they name: reading, writing, waiting (cgroups(7)).

Imports little: every verb of `lab-oci` needs it.
"""

from __future__ import annotations

import errno
import os
import select
import time

from lab.errors import LabError
from lab.host import procstat
from lab.host.cgroup import delegation
from lab.shims import suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    StrPath = str | os.PathLike[str]

DELEGATED = ("cpu", "memory", "pids", "io")
"""The v2 controllers that lab passes down to its groups through cgroup.subtree_control."""

OURS = ("lab/", "lab-")
"""How the path of a group begins whose parent is lab's to write to: see `lab.host.cgroup.delegation`."""

V1_UNLIMITED = 1 << 62  # v1 shows "no limit" as the largest multiple of a page below 2^63
PF_KTHREAD = 0x00200000  # include/linux/sched.h
LINKS_OF_A_LEAF = 2  # its name and its own "."; each folder in it adds its ".."
SURELY_ALL = 2048
"""Bytes. A read(2) ends early only before a line for which its page had no room (seq_file.rst), and none of these
files has lines of half a page: less than that is all there is.
"""
ATTEMPTS = 100  # each lost to another session that removed an empty parent just then


def make(mount: StrPath, path: StrPath, *, delegate: bool, weigh: bool = True) -> None:
    """Make ``path``, and its parents where there are none. Raises FileExistsError, or OSError.

    Whoever removes the last group of a parent removes the parent too, maybe between our making it and our using it.
    A parent of ours passes its controllers down, also one that is a unit of systemd's, or was made as a leaf itself.
    """
    whole = os.path.join(mount, path)
    for attempt in range(ATTEMPTS):
        try:
            os.mkdir(whole)
        except FileNotFoundError:
            if attempt == ATTEMPTS - 1:
                raise
        else:
            if delegate and os.fspath(path).startswith(OURS):
                with suppress(OSError):  # then it has what its parent gives it, and a limit says what it lacks
                    pass_down(os.path.dirname(whole), DELEGATED)
            return
        with passing(mount):
            _make_parents(mount, path, delegate=delegate, weigh=weigh)


def make_parents(mount: StrPath, path: StrPath, *, delegate: bool) -> None:
    """Make every parent of ``path``, for a program that will make it without trying again. Raises OSError.

    The last of them is its user's own: as long as that is there, nobody removes those that are common to all.
    """
    for _ in range(ATTEMPTS):
        with passing(mount):
            _make_parents(mount, path, delegate=delegate, weigh=True)
            return
    _make_parents(mount, path, delegate=delegate, weigh=True)


class passing:  # noqa: N801
    """Suppress what says that a group went while it was used: ENOENT, or ENODEV if its files were open (kernfs)."""

    def __init__(self, mount: StrPath) -> None:
        self._mount = mount

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        gone = isinstance(error, OSError) and error.errno in (errno.ENOENT, errno.ENODEV)
        return gone and os.path.exists(self._mount)


def _make_parents(mount: StrPath, path: StrPath, *, delegate: bool, weigh: bool = True) -> None:
    """Make every parent of ``path``; on v2 pass the controllers down, from the root to the leaf's parent.

    What belongs to systemd is left as it is: a unit's group has been made, and has the controllers, or it is gone.
    ``weigh``: see `weigh_as_many`. Raises OSError.
    """
    parts = os.fspath(path).split("/")
    units = delegation.units_of(os.fspath(path))
    parent = "/".join([os.fspath(mount), *parts[:units]])
    if delegate:
        pass_down(parent, DELEGATED)
    for name in parts[units:-1]:
        above, parent = parent, f"{parent}/{name}"
        try:
            os.mkdir(parent)
        except FileExistsError:
            pass
        else:
            fill_cpuset(parent, above)
            if weigh:
                weigh_as_many(parent)
        if delegate:
            pass_down(parent, DELEGATED)


def pass_down(parent: str, controllers: Iterable[str]) -> None:
    """Let groups below ``parent`` have ``controllers``, as far as it has them itself."""
    offered = read(f"{parent}/cgroup.controllers").split()
    enabled = read(f"{parent}/cgroup.subtree_control").split()
    missing = [name for name in controllers if name in offered and name not in enabled]
    if missing:
        write(f"{parent}/cgroup.subtree_control", " ".join(f"+{name}" for name in missing))


def fill_cpuset(directory: str, above: str) -> None:
    """A new v1 cpuset is empty, and an empty one takes no process (cpuset(7)). Elsewhere there is nothing to do."""
    for name in ("cpuset.cpus", "cpuset.mems"):
        with suppress(FileNotFoundError):
            if not read(f"{directory}/{name}") and os.path.exists(f"{directory}/cgroup.clone_children"):
                write(f"{directory}/{name}", read(f"{above}/{name}"))


def weigh_as_many(parent: str) -> None:
    """Let a parent weigh one ordinary task per CPU.

    A group competes as a whole, by default with the weight of a single task (sched-design-CFS.rst, cpu.weight in
    cgroup-v2.rst): every instance of a session together would count no more than one busy process of the host.
    """
    cpus = os.cpu_count() or 1
    for name, one_task in (("cpu.shares", 1024), ("cpu.weight", 100)):
        with suppress(FileNotFoundError):
            write(f"{parent}/{name}", str(min(one_task * cpus, 10_000 if name == "cpu.weight" else 262_144)))


def read(path: StrPath) -> str:
    """The whole file, in one read(2) where half a page holds it."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts = []
        while part := os.read(descriptor, 1 << 16):
            parts.append(part)
            if len(part) < SURELY_ALL:
                break
        return b"".join(parts).decode().strip()
    finally:
        os.close(descriptor)


def write_and_read(path: StrPath, value: str) -> str:
    """As `write`, and what the file, a short one, says then: whether the kernel has made something else of it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        _write(descriptor, value, path)
        return os.pread(descriptor, 1 << 12, 0).decode().strip()
    finally:
        os.close(descriptor)


def write(path: StrPath, value: str) -> None:
    """One write(2), as the kernel's files want it; never creates."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        _write(descriptor, value, path)
    finally:
        os.close(descriptor)


def _write(descriptor: int, value: str, path: StrPath) -> None:
    try:
        os.write(descriptor, value.encode())
    except OSError as error:
        raise OSError(error.errno, f"{error.strerror} (writing {value!r})", os.fspath(path)) from error


def children(directory: StrPath) -> list[str]:
    try:
        if os.stat(directory).st_nlink == LINKS_OF_A_LEAF:
            return []  # the usual case, told without listing some thirty control files
        return [entry.path for entry in os.scandir(os.fspath(directory)) if entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return []


def walk(directory: StrPath) -> Iterator[str]:
    yield os.fspath(directory)
    for child in children(directory):
        yield from walk(child)


def pairs(text: str) -> dict[str, int]:
    return {name: int(value) for name, value in (line.split() for line in text.splitlines())}


def processes(directories: Iterable[StrPath]) -> set[int]:
    """The process ids in these groups and below, without zombies and threads of the kernel: see `lives`."""
    found: set[int] = set()
    for directory in directories:
        for place in walk(directory):
            with suppress(OSError):
                found.update(map(int, read(f"{place}/cgroup.procs").split()))
    return {pid for pid in found if lives(pid)}


def remove_tree(directory: StrPath, deadline: float) -> None:
    """Remove a group and those below it. Raises LabError when ``deadline`` (time.monotonic) passes before."""
    pause = 0.0005
    while True:
        try:
            os.rmdir(directory)
            return
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
        for child in children(directory):
            remove_tree(child, deadline)
        if time.monotonic() > deadline:
            living = ", ".join(map(str, sorted(processes([directory])))) or "none"
            raise LabError(f"cgroup {directory} can't be removed; living processes in it: {living}")
        time.sleep(pause)
        pause = min(pause * 2, 0.05)


def lives(pid: int) -> bool:
    """False for zombies, for processes that are gone, and for threads of the kernel (proc_pid_stat(5), fields 3, 9).

    KVM puts a thread of the kernel into the group of each QEMU, and ends it with the virtual machine. It holds
    nothing, obeys no signal, and is nobody's process.
    """
    try:
        state, *rest = procstat.fields(pid)
    except OSError:
        return False
    return state not in procstat.ENDED and not int(rest[5]) & PF_KTHREAD


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
