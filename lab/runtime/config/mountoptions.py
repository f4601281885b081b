"""The words of a mount's ``options`` (config.md, "Linux mount options"; mount(8)), and what each asks of the kernel.

A word may mean a flag of mount(2), an attribute of mount_setattr(2), a propagation type, or something that the
runtime does; what is none of these is the file system's own data.
"""

from __future__ import annotations

from lab.host import syscalls
from lab.host.syscalls import (
    MOUNT_ATTR_ATIME,
    MOUNT_ATTR_NOATIME,
    MOUNT_ATTR_NODEV,
    MOUNT_ATTR_NODIRATIME,
    MOUNT_ATTR_NOEXEC,
    MOUNT_ATTR_NOSUID,
    MOUNT_ATTR_NOSYMFOLLOW,
    MOUNT_ATTR_RDONLY,
    MOUNT_ATTR_STRICTATIME,
    MS_BIND,
    MS_NOATIME,
    MS_NODEV,
    MS_NODIRATIME,
    MS_NOEXEC,
    MS_NOSUID,
    MS_NOSYMFOLLOW,
    MS_PRIVATE,
    MS_RDONLY,
    MS_REC,
    MS_RELATIME,
    MS_SHARED,
    MS_SLAVE,
    MS_STRICTATIME,
    MS_UNBINDABLE,
)
from lab.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

PER_MOUNT = {  # word: flags of mount(2) to set and to clear, attributes of mount_setattr(2) to set and to clear
    "ro": (MS_RDONLY, 0, MOUNT_ATTR_RDONLY, 0),
    "rw": (0, MS_RDONLY, 0, MOUNT_ATTR_RDONLY),
    "nosuid": (MS_NOSUID, 0, MOUNT_ATTR_NOSUID, 0),
    "suid": (0, MS_NOSUID, 0, MOUNT_ATTR_NOSUID),
    "nodev": (MS_NODEV, 0, MOUNT_ATTR_NODEV, 0),
    "dev": (0, MS_NODEV, 0, MOUNT_ATTR_NODEV),
    "noexec": (MS_NOEXEC, 0, MOUNT_ATTR_NOEXEC, 0),
    "exec": (0, MS_NOEXEC, 0, MOUNT_ATTR_NOEXEC),
    "noatime": (MS_NOATIME, 0, MOUNT_ATTR_NOATIME, MOUNT_ATTR_ATIME),
    "atime": (0, MS_NOATIME, 0, MOUNT_ATTR_ATIME),
    "nodiratime": (MS_NODIRATIME, 0, MOUNT_ATTR_NODIRATIME, 0),
    "diratime": (0, MS_NODIRATIME, 0, MOUNT_ATTR_NODIRATIME),
    "relatime": (MS_RELATIME, 0, 0, MOUNT_ATTR_ATIME),
    "norelatime": (0, MS_RELATIME, 0, MOUNT_ATTR_ATIME),
    "strictatime": (MS_STRICTATIME, 0, MOUNT_ATTR_STRICTATIME, MOUNT_ATTR_ATIME),
    "nostrictatime": (0, MS_STRICTATIME, 0, MOUNT_ATTR_ATIME),
    "nosymfollow": (MS_NOSYMFOLLOW, 0, MOUNT_ATTR_NOSYMFOLLOW, 0),
    "symfollow": (0, MS_NOSYMFOLLOW, 0, MOUNT_ATTR_NOSYMFOLLOW),
}
PER_FILE_SYSTEM = {  # flags to set and to clear: they belong to the file system, so a bind mount can't have its own
    "sync": (syscalls.MS_SYNCHRONOUS, 0),
    "async": (0, syscalls.MS_SYNCHRONOUS),
    "dirsync": (syscalls.MS_DIRSYNC, 0),
    "iversion": (syscalls.MS_I_VERSION, 0),
    "noiversion": (0, syscalls.MS_I_VERSION),
    "lazytime": (syscalls.MS_LAZYTIME, 0),
    "nolazytime": (0, syscalls.MS_LAZYTIME),
    "mand": (syscalls.MS_MANDLOCK, 0),
    "nomand": (0, syscalls.MS_MANDLOCK),
    "silent": (syscalls.MS_SILENT, 0),
    "loud": (0, syscalls.MS_SILENT),
    "acl": (syscalls.MS_POSIXACL, 0),
    "noacl": (0, syscalls.MS_POSIXACL),
    "remount": (syscalls.MS_REMOUNT, 0),
}
PROPAGATION = {
    "private": MS_PRIVATE,
    "rprivate": MS_PRIVATE | MS_REC,
    "slave": MS_SLAVE,
    "rslave": MS_SLAVE | MS_REC,
    "shared": MS_SHARED,
    "rshared": MS_SHARED | MS_REC,
    "unbindable": MS_UNBINDABLE,
    "runbindable": MS_UNBINDABLE | MS_REC,
}
BINDS = {"bind": MS_BIND, "rbind": MS_BIND | MS_REC}
IDMAPS = ("idmap", "ridmap")


class Options(Record):
    """What the words ask for; the last word on a matter decides.

    ``recursive_set`` and ``recursive_clear`` are the attributes of ``rro`` and its kin, for everything below too.
    ``misplaced`` are words that mean nothing for a bind mount.
    """

    flags: int
    attributes: tuple[int, int]
    recursive: tuple[int, int]
    propagation: tuple[int, ...]
    data: tuple[str, ...]
    misplaced: tuple[str, ...]
    copy_up: bool
    idmap: str


def parse(words: Sequence[str]) -> Options:
    """mount(8) words in mount(2)'s and mount_setattr(2)'s terms."""
    flags, attributes, recursive = 0, (0, 0), (0, 0)
    propagation, data, misplaced = [], [], []
    copy_up, idmap = False, ""
    for word in words:
        if word in PER_MOUNT:
            on, off, *bits = PER_MOUNT[word]
            flags = (flags | on) & ~off
            attributes = _join(attributes, bits)
        elif word in BINDS:
            flags |= BINDS[word]
        elif word in PROPAGATION:
            propagation.append(PROPAGATION[word])
        elif word[:1] == "r" and word[1:] in PER_MOUNT:
            recursive = _join(recursive, PER_MOUNT[word[1:]][2:])
        elif word in PER_FILE_SYSTEM:
            on, off = PER_FILE_SYSTEM[word]
            flags = (flags | on) & ~off
            misplaced += [word] if word != "remount" else []
        elif word in IDMAPS:
            idmap = word
        elif word == "tmpcopyup":
            copy_up = True
        elif word != "defaults":
            data.append(word)
    return Options(
        flags=flags,
        attributes=attributes,
        recursive=recursive,
        propagation=tuple(propagation),
        data=tuple(data),
        misplaced=(*misplaced, *data),
        copy_up=copy_up,
        idmap=idmap,
    )


def _join(before: tuple[int, int], bits: Sequence[int]) -> tuple[int, int]:
    """Attributes to set and to clear, and two more of them; the field of access times is always written whole."""
    on, off = bits
    was_on, was_off = before
    return (was_on & ~off) | on, (was_off & ~on) | off
