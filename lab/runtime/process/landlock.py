"""Landlock: a process gives up rights to files for good, by its own decision and without being root (landlock(7)).

Rules name directories: everything below is allowed to be read and executed, and to be changed except below a few.
What no rule allows is refused, mounting anything included, whoever asks; so is tracing and signalling whoever is
not bound by the same rules. The OCI runtime specification has no property for it, so no configuration asks for it:
it is an option of lab's own, for `lab isolation ladder`. Standard library only; see `lab.runtime.spawner.spawner`.
"""

from __future__ import annotations

import errno
import os

from lab.host import syscalls
from lab.host.kernel import landlock

EXECUTE, READ_FILE, READ_DIRECTORY = 1 << 0, 1 << 2, 1 << 3
RIGHTS_BY_ABI = ((5, 16), (3, 15), (2, 14), (1, 13))
"""How many of the rights in linux/landlock.h, from bit 0 on, an interface of that version or a later one knows."""

SCOPES, SCOPES_SINCE = 0b11, 6  # abstract Unix sockets, signals

READ = EXECUTE | READ_FILE | READ_DIRECTORY


def available() -> int:
    """The interface's version, 0 where this kernel has none."""
    try:
        return landlock.abi()
    except OSError as error:
        if error.errno in (errno.ENOSYS, errno.EOPNOTSUPP):
            return 0
        raise


def rights(abi: int) -> int:
    """Every right to files that version ``abi`` of the interface can refuse, as a mask."""
    for since, count in RIGHTS_BY_ABI:
        if abi >= since:
            return (1 << count) - 1
    return 0


def restrict(read_only: tuple[str, ...] | list[str]) -> None:
    """From here on nothing below the names of / in ``read_only`` can be changed, nor anything in / itself.

    Raises OSError, ENOSYS or EOPNOTSUPP where there is no Landlock: a process that runs with less isolation than
    was asked for would be worse than none.
    """
    abi = landlock.abi()
    every = rights(abi)
    rules = landlock.create_ruleset(every, scoped=SCOPES if abi >= SCOPES_SINCE else 0)
    try:
        _allow(rules, "/", READ)
        with os.scandir("/") as entries:
            for entry in entries:
                if entry.name not in read_only and entry.is_dir(follow_symlinks=False):
                    _allow(rules, entry.path, every)
        landlock.restrict_self(rules)
    finally:
        os.close(rules)


def _allow(rules: int, path: str, access: int) -> None:
    directory = os.open(path, syscalls.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        landlock.add_rule(rules, directory, access)
    finally:
        os.close(directory)
