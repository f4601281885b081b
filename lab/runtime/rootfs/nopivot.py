"""A root that is entered without pivot_root(2): what of the host stays mounted below it, out of sight.

The kernel lets whoever makes a user namespace mount a new /proc or /sys as long as the mount namespace holds a whole
one (mount_namespaces(7), "Restrictions on mount namespaces"). The container's own have masks; the host's, still
mounted below the root, have none. So these are unmounted first, or covered where that is refused. Standard library
only; see `lab.runtime.spawner.spawner`.
"""

from __future__ import annotations

import errno

from lab.host import syscalls

KINDS = ("proc", "sysfs")


def hide_the_hosts(root: str) -> None:
    """Every whole procfs and sysfs of this mount namespace but those on ``root`` and below. Raises OSError."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        lines = file.read().splitlines()
    for place in reversed([place for place, kind, of in map(parsed, lines) if kind in KINDS and of == "/"]):
        if place == root or place.startswith(f"{root}/"):
            continue
        syscalls.mount("none", place, "", syscalls.MS_SLAVE | syscalls.MS_REC)
        try:
            syscalls.umount2(place, syscalls.MNT_DETACH)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EPERM):
                raise
            syscalls.mount("tmpfs", place, "tmpfs", syscalls.MS_RDONLY, "size=0")


def parsed(line: str) -> tuple[str, str, str]:
    """Where, what kind, and which directory of it, from a line of proc_pid_mountinfo(5)."""
    words, _, rest = line.partition(" - ")
    of, place = words.split(" ")[3:5]
    for octal, sign in ((r"\040", " "), (r"\011", "\t"), (r"\012", "\n"), (r"\134", "\\")):
        place = place.replace(octal, sign)
    return place, rest.split(" ")[0], of
