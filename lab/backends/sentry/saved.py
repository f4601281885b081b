"""A sandbox of gVisor's that was saved with its application running, and whether another may go on from it.

runsc writes what its kernel in user space knows and what its memory holds; the host's kernel has no part in it, and
so no criu either. Whoever goes on gets a network stack of its own, filled from the namespace that it is started in,
and standard streams and bound files by their places in the configuration.

What is restored is executed: so it has to be the very files that were saved, root's (or the user's) alone, and read
by the same program with the same options.

Source: gvisor.dev, "Checkpoint/Restore"; runsc help checkpoint, restore.
"""

from __future__ import annotations

import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lab.errors import LaunchError
from lab.host.identity import privilege
from lab.runtime.launcher.checkpoint import Checkpoint

if TYPE_CHECKING:
    from lab.backends.support.programs.ociprogram import Runtime

SAVE_SECONDS = 120.0
OTHERS_MAY = stat.S_IRWXG | stat.S_IRWXO


def saving(images: Path) -> tuple[str, ...]:
    """The verb that saves, and its options. Packing would cost each of those that go on the unpacking."""
    return ("checkpoint", "--compression", "none", "--image-path", str(images))


def restoring(checkpoint: Checkpoint) -> tuple[str, ...]:
    """The verb that makes a container of what was saved, and its options."""
    return ("restore", "--detach", "--image-path", str(checkpoint.images))


@dataclass(frozen=True, slots=True, kw_only=True)
class SentryCheckpoint(Checkpoint):
    """One that runsc saved. ``maker`` is the digest of its program and the options it was called with; ``stamps`` are
    the saved files as they were then: name, device, inode, size, times of the last change of content and of inode.
    """

    maker: tuple[str, ...]
    stamps: tuple[tuple[str, ...], ...]

    @classmethod
    def of(cls, images: Path, upper: Path, runtime: Runtime) -> SentryCheckpoint:
        """What ``runtime`` has just written."""
        return cls(images=images, upper=upper, maker=_maker(runtime), stamps=_stamps(images))

    def require_safe(self, runtime: Runtime) -> None:
        """Raises LaunchError where the files are not those that were saved, are not this user's alone, or were saved
        by another program or with other options than ``runtime`` has.
        """
        if why := self._trouble(runtime):
            raise LaunchError(f"{self.images} is not restored: {why}", hint="start=boot", exit_code=125)

    def _trouble(self, runtime: Runtime) -> str:
        if _maker(runtime) != self.maker:
            return f"{runtime.name} is another than the one that saved it, or has other options"
        try:
            folder, stamps = self.images.lstat(), _stamps(self.images)
        except OSError as error:
            return str(error)
        if not stat.S_ISDIR(folder.st_mode) or folder.st_uid != privilege.user_id() or folder.st_mode & OTHERS_MAY:
            return "others than its owner can reach it"
        return "" if stamps == self.stamps else "it was changed since it was saved"


def _maker(runtime: Runtime) -> tuple[str, ...]:
    runtime.binary.require_unchanged()
    return (runtime.binary.digest, *runtime.options)


def _stamps(images: Path) -> tuple[tuple[str, ...], ...]:
    found = ((path.name, path.lstat()) for path in sorted(images.iterdir()))
    return tuple(
        (name, *map(str, (at.st_dev, at.st_ino, at.st_size, at.st_mtime_ns, at.st_ctime_ns))) for name, at in found
    )
