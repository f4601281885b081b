"""A /run/libvirt for an ordinary user's libvirt, which takes root of a user namespace for root of the host: it will
have a folder there, whatever root its driver is given.

Only this mount namespace, lab's own, sees another /run: a tmpfs with all of what was there before, bound, and that
folder. What the host adds to /run later is not seen in it; what is in a folder of it is. Nothing is left of it.
Source: https://libvirt.org/drvqemu.html, "Embedded driver", and what libvirt says without it.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from lab.errors import LabError
from lab.host import syscalls
from lab.host.identity import privilege

RUN, NAME = Path("/run"), "libvirt"


def make() -> None:
    """Make it, once, for an ordinary user alone. Raises LabError."""
    place = RUN / NAME
    if not privilege.is_rootless() or (place.is_dir() and os.access(place, os.W_OK)):
        return
    try:
        if place.is_dir():
            syscalls.mount("lab", str(place), "tmpfs", syscalls.MS_NOSUID | syscalls.MS_NODEV, "mode=0700")
        else:
            _cover()
    except OSError as error:
        raise LabError(f"{place} can't be made in lab's namespace: {error.strerror}") from error


def _cover() -> None:
    """Copies of all that is mounted there are held while it is covered, and put where they were."""
    trees: dict[str, int] = {}
    links: dict[str, Path] = {}
    try:
        for entry in sorted(RUN.iterdir()):
            with suppress(FileNotFoundError):
                if entry.is_symlink():
                    links[entry.name] = entry.readlink()
                else:
                    trees[entry.name] = syscalls.open_tree(str(entry), recursive=True)
        folders = {name for name in trees if (RUN / name).is_dir()}
        syscalls.mount("lab", str(RUN), "tmpfs", syscalls.MS_NOSUID | syscalls.MS_NODEV, "mode=0755")
        for name, where in links.items():
            (RUN / name).symlink_to(where)
        for name, tree in trees.items():
            place = RUN / name
            place.mkdir() if name in folders else place.touch()
            target = os.open(place, os.O_PATH | os.O_CLOEXEC)
            try:
                syscalls.move_mount(tree, target)
            finally:
                os.close(target)
        (RUN / NAME).mkdir(mode=0o700)
    finally:
        for tree in trees.values():
            os.close(tree)
