"""A host that refuses user namespaces to ordinary users, for a command: ``python refusing.py HOW COMMAND…``, by root.

``making``: none can be made, as Debian's kernel.unprivileged_userns_clone and Docker's filter have it. ``using``:
one can be made, and its root may mount nothing, as AppArmor has it on Ubuntu. ``limit``: there may be none, by the
setting of a user namespace around, which root has made. The first two are filters of system calls, without
no_new_privs, since newuidmap has to change its user.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import sys
from pathlib import Path

PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 22, 2
MOUNT, UNSHARE, CLONE_NEWUSER = 165, 272, 0x10000000  # x86-64
LOAD, IF_EQUAL, IF_SET, RETURN = 0x20, 0x15, 0x45, 0x06
NUMBER, FIRST_ARGUMENT = 0, 16  # in struct seccomp_data
ALLOW, ERRNO = 0x7FFF0000, 0x00050000
Instruction = tuple[int, int, int, int]
FILTERS: dict[str, list[Instruction]] = {
    "making": [
        (LOAD, 0, 0, NUMBER),
        (IF_EQUAL, 0, 3, UNSHARE),
        (LOAD, 0, 0, FIRST_ARGUMENT),
        (IF_SET, 0, 1, CLONE_NEWUSER),
        (RETURN, 0, 0, ERRNO | errno.EPERM),
        (RETURN, 0, 0, ALLOW),
    ],
    "using": [
        (LOAD, 0, 0, NUMBER),
        (IF_EQUAL, 0, 1, MOUNT),
        (RETURN, 0, 0, ERRNO | errno.EACCES),
        (RETURN, 0, 0, ALLOW),
    ],
}


def forbid_in_another_namespace() -> None:
    """All ids are mapped to themselves, which takes somebody outside (user_namespaces(7))."""
    made, told = os.pipe()
    outside = os.fork()
    if outside == 0:
        os.close(told)
        os.read(made, 1)
        for name in ("uid_map", "gid_map"):
            Path(f"/proc/{os.getppid()}/{name}").write_text("0 0 4294967294")
        os._exit(0)
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWUSER):
        raise OSError(ctypes.get_errno(), "unshare")
    os.close(told)
    os.waitpid(outside, 0)
    Path("/proc/sys/user/max_user_namespaces").write_text("0")


def main(how: str, *command: str) -> None:
    if how == "limit":
        forbid_in_another_namespace()
        os.execvp(command[0], command)
    code = b"".join(struct.pack("=HBBI", *instruction) for instruction in FILTERS[how])
    kept = ctypes.create_string_buffer(code)
    program = struct.pack("@HP", len(FILTERS[how]), ctypes.addressof(kept))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, program, 0, 0):
        raise OSError(ctypes.get_errno(), "seccomp")
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(*sys.argv[1:])
