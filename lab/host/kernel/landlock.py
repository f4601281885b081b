"""The system calls of landlock(7), as `lab.host.syscalls` has others. Standard library only."""

from __future__ import annotations

import sys

from lab.host import ctypes_shim as ctypes
from lab.host.syscalls import system_call

LANDLOCK_CREATE_RULESET_VERSION = 1
LANDLOCK_RULE_PATH_BENEATH = 1


class _Ruleset(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_uint64) for name in ("handled_access_fs", "handled_access_net", "scoped"))


def abi() -> int:
    """The version of Landlock's interface that this kernel has: landlock_create_ruleset(2) with its one flag.

    Raises OSError: ENOSYS for a kernel without it, EOPNOTSUPP where it was switched off at boot.
    """
    return system_call("landlock_create_ruleset", 0, 0, LANDLOCK_CREATE_RULESET_VERSION)


def create_ruleset(access: int, *, scoped: int = 0) -> int:
    """landlock_create_ruleset(2): a descriptor of rules that refuse what is in ``access`` unless one allows it.

    A field that an older kernel doesn't know must be 0 (that is how it is told from E2BIG).
    """
    rules = _Ruleset(handled_access_fs=access, scoped=scoped)
    return system_call("landlock_create_ruleset", ctypes.byref(rules), ctypes.sizeof(rules), 0)


def add_rule(ruleset: int, directory: int, access: int) -> None:
    """landlock_add_rule(2) LANDLOCK_RULE_PATH_BENEATH: ``access`` is allowed to all that lies below ``directory``."""
    beneath = access.to_bytes(8, sys.byteorder) + directory.to_bytes(4, sys.byteorder)  # the struct is packed
    system_call("landlock_add_rule", ruleset, LANDLOCK_RULE_PATH_BENEATH, ctypes.c_char_p(beneath), 0)


def restrict_self(ruleset: int) -> None:
    """landlock_restrict_self(2): from here on, for this thread and its children. No way back."""
    system_call("landlock_restrict_self", ruleset, 0)
