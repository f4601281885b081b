"""Mounts of podman's own: what it would read of the host's settings, or write on the host, is hidden.

The mount namespace has no name and no process that keeps it: it is there as long as a descriptor, a conmon or a
container is in it, so that nothing of it can be left (mount_namespaces(7)).
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

from lab.errors import LabError
from lab.host import syscalls

HIDDEN: Mapping[str, Collection[str]] = {
    "/run": ("containers", "libpod", "podman", "netns", "cni", "runc", "crun", "lab-oci"),
    "/dev/shm": ("libpod_lock",),
    "/var/lib": ("containers", "cni"),
}
"""What podman, its runtimes and its networks keep outside of the folders that they can be told: by its parent."""
SETTINGS = Path("/etc/containers")
NETWORKS = Path("/etc/cni")
OWN = "/proc/thread-self/ns/mnt"


class Place:
    """One such namespace, held until `close`."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    @classmethod
    def make(cls, settings: Mapping[str, str]) -> Place:
        """Like the host's mounts, but for what is hidden; ``settings`` are the files of /etc/containers there.

        Raises LabError.
        """

        def unshare() -> Place:
            syscalls.unshare(syscalls.CLONE_NEWNS)
            syscalls.mount("none", "/", "", syscalls.MS_REC | syscalls.MS_PRIVATE)
            for folder, names in HIDDEN.items():
                if Path(folder).is_dir():
                    _hide(folder, names)
            for place in (SETTINGS, NETWORKS):
                if place.is_dir():
                    syscalls.mount("tmpfs", str(place), "tmpfs", 0, "mode=0755")
            for name, text in settings.items():
                (SETTINGS / name).write_text(text)
            return cls(os.open(OWN, os.O_RDONLY | os.O_CLOEXEC))

        try:
            with ThreadPoolExecutor(1, "lab-podman-mounts") as thread:  # what it unshares is its own (unshare(2))
                return thread.submit(unshare).result()
        except OSError as error:
            raise LabError(f"podman can't be given mounts of its own: {error}", hint="lab doctor") from error

    @classmethod
    def of(cls, pid: int) -> Place:
        """The one that process ``pid`` is in. Raises OSError when it has ended."""
        return cls(os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC))

    def enter(self) -> None:
        """Move the *calling thread* in; for threads whose end is near (setns(2))."""
        syscalls.unshare(syscalls.CLONE_FS)
        syscalls.setns(self._descriptor, syscalls.CLONE_NEWNS)

    def close(self) -> None:
        """Let go of it. Idempotent."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _hide(folder: str, names: Collection[str]) -> None:
    """A tmpfs over ``folder`` in which everything is as it was but ``names``: volumes may come from there."""
    with ExitStack() as opened:
        below = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        opened.callback(os.close, below)
        mode = os.fstat(below).st_mode & 0o7777
        syscalls.mount("tmpfs", folder, "tmpfs", 0, f"mode={mode:o}")
        source = f"/proc/thread-self/fd/{below}"
        for entry in [each for each in os.scandir(source) if each.name not in names]:
            target = Path(folder, entry.name)
            if entry.is_symlink():
                target.symlink_to(os.readlink(entry.path))  # noqa: PTH115
                continue
            target.mkdir() if entry.is_dir() else target.touch()
            syscalls.mount(entry.path, str(target), "", syscalls.MS_BIND | syscalls.MS_REC)
