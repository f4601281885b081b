"""Directories that are removed with all their files, never through a mount.

This lies on the path of ``lab run``: standard library only, and quick.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from lab.errors import LabError


def remove_tree(directory: Path) -> None:
    """Remove a directory with all its files; never through a mount, whose files belong to someone else."""
    if directory.is_symlink():
        raise LabError("is a symbolic link where a directory was made")
    if mounts := _mounts_at_or_below(str(directory)):
        raise LabError(f"{mounts[0]} is mounted in it", hint=f"umount {mounts[0]}")
    shutil.rmtree(directory, onerror=_unless_vanished)


def _unless_vanished(_function: object, _path: object, error: tuple[type, BaseException, object]) -> None:
    """What another cleaner has just removed, the launcher for one, is no reason to leave the rest."""
    if not isinstance(error[1], FileNotFoundError):
        raise error[1]


def _mounts_at_or_below(path: str) -> list[str]:
    """Mount points of this mount namespace at or below ``path`` (proc_pid_mountinfo(5), which escapes in octal)."""
    escaped = path.rstrip("/").replace("\\", "\\134")
    for character in " \t\n":
        escaped = escaped.replace(character, f"\\{ord(character):03o}")
    points = [line.split(" ")[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return [point for point in points if point == escaped or point.startswith(escaped + "/")]
