"""Linux system calls that Python's standard library lacks, each declared once, under its man-page name.

Every function raises OSError by itself. Standard library only, and little of that: the small process that
forks containers imports this, and what it imports is copied with every container.
"""

from __future__ import annotations

import os

from lab.host import ctypes_shim as ctypes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from ctypes import Array, c_char

_libc = ctypes.CDLL(None, use_errno=True)

# Numbers from the kernel's asm/unistd_64.h and asm-generic/unistd.h, for calls glibc 2.35 has no wrapper for.
_NUMBERS = {
    "x86_64": {
        "clone": 56, "pivot_root": 155, "set_mempolicy": 238, "keyctl": 250, "ioprio_set": 251, "kcmp": 312,
        "sched_setattr": 314, "seccomp": 317, "bpf": 321,
    },
    "aarch64": {
        "clone": 220, "ioprio_set": 30, "pivot_root": 41, "keyctl": 219, "set_mempolicy": 237, "kcmp": 272,
        "sched_setattr": 274, "seccomp": 277, "bpf": 280,
    },
}  # fmt: skip
_EVERYWHERE = {
    "open_tree": 428, "move_mount": 429, "fsopen": 430, "fsconfig": 431, "fsmount": 432,
    "clone3": 435, "close_range": 436, "openat2": 437, "pidfd_getfd": 438, "mount_setattr": 442,
    "landlock_create_ruleset": 444, "landlock_add_rule": 445, "landlock_restrict_self": 446,
}  # fmt: skip
_MACHINE = os.uname().machine
_NR = _NUMBERS.get(_MACHINE, {}) | _EVERYWHERE

_MAP_FAILED = (1 << 64) - 1  # (void *) -1, mmap(2)

# clone(2), unshare(2), setns(2)
CLONE_FS = 0x00000200  # for unshare: a root and a working directory of its own
CLONE_NEWTIME = 0x00000080  # not for clone, where the bits are a signal's
CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
NS_GET_PARENT = 0xB702  # of ioctl, by a descriptor of a user namespace: ioctl_ns(2)

CLONE_PIDFD = 0x00001000
CLONE_PARENT = 0x00008000
CLONE_INTO_CGROUP = 0x200000000  # clone3 alone

# mount(2)
MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_SYNCHRONOUS = 16
MS_REMOUNT = 32
MS_MANDLOCK = 64
MS_DIRSYNC = 128
MS_NOSYMFOLLOW = 256
MS_NOATIME = 1024
MS_NODIRATIME = 2048
MS_BIND = 4096
MS_MOVE = 8192
MS_REC = 16384
MS_SILENT = 32768
MS_POSIXACL = 1 << 16
MS_UNBINDABLE = 1 << 17
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19
MS_SHARED = 1 << 20
MS_RELATIME = 1 << 21
MS_I_VERSION = 1 << 23
MS_STRICTATIME = 1 << 24
MS_LAZYTIME = 1 << 25
MNT_DETACH = 2

# mount_setattr(2), open_tree(2)
MOUNT_ATTR_RDONLY = 0x01
MOUNT_ATTR_NOSUID = 0x02
MOUNT_ATTR_NODEV = 0x04
MOUNT_ATTR_NOEXEC = 0x08
MOUNT_ATTR_ATIME = 0x70  # the field; relatime is its 0
MOUNT_ATTR_NOATIME = 0x10
MOUNT_ATTR_STRICTATIME = 0x20
MOUNT_ATTR_NODIRATIME = 0x80
MOUNT_ATTR_IDMAP = 0x00100000
MOUNT_ATTR_NOSYMFOLLOW = 0x00200000
AT_FDCWD = -100
AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000
OPEN_TREE_CLONE = 1

# fsopen(2), fsconfig(2), fsmount(2)
FSOPEN_CLOEXEC = 1
FSCONFIG_SET_FLAG = 0
FSCONFIG_SET_STRING = 1
FSCONFIG_CMD_CREATE = 6
FSMOUNT_CLOEXEC = 1

# prctl(2)
PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_KEEPCAPS = 8
PR_CAPBSET_DROP = 24
PR_SET_SECUREBITS = 28
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT = 47
PR_SET_MEMORY_MERGE = 67
PR_GET_MEMORY_MERGE = 68
PR_CAP_AMBIENT_RAISE = 2
PR_CAP_AMBIENT_CLEAR_ALL = 4

# openat2(2)
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10
O_PATH = 0o10000000

KEYCTL_JOIN_SESSION_KEYRING = 1
SECCOMP_SET_MODE_FILTER = 1
_CAPABILITY_VERSION_3 = 0x20080522


class _CloneArgs(ctypes.Structure):
    _fields_ = tuple(
        (name, ctypes.c_uint64)
        for name in (
            "flags", "pidfd", "child_tid", "parent_tid", "exit_signal", "stack", "stack_size", "tls", "set_tid",
            "set_tid_size", "cgroup",
        )
    )  # fmt: skip


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


class _MountAttr(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_uint64) for name in ("attr_set", "attr_clr", "propagation", "userns_fd"))


class _SchedAttr(ctypes.Structure):
    _fields_ = (
        ("size", ctypes.c_uint32),
        ("policy", ctypes.c_uint32),
        ("flags", ctypes.c_uint64),
        ("nice", ctypes.c_int32),
        ("priority", ctypes.c_uint32),
        ("runtime", ctypes.c_uint64),
        ("deadline", ctypes.c_uint64),
        ("period", ctypes.c_uint64),
    )


class _CapHeader(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _CapData(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


class _SockFprog(ctypes.Structure):
    _fields_ = (("len", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def _check(result: int, name: str, *about: object) -> int:
    if result < 0:
        number = ctypes.get_errno()
        where = " ".join(os.fsdecode(word) if isinstance(word, bytes) else str(word) for word in about if word)
        raise OSError(number, f"{name}({where}): {os.strerror(number)}")
    return result


def system_call(name: str, *arguments: object, about: object = "") -> int:
    """syscall(2) by name, with up to six integers, bytes, None or references, each as wide as a register.

    A start makes some two hundred: nothing is converted here that the C part of ctypes converts by itself.
    """
    if name not in _NR:
        raise OSError(38, f"lab knows no number for {name} on {_MACHINE}")
    result: int = _libc.syscall(_NR[name], *arguments, *_ZEROS[len(arguments) :])
    return result if result >= 0 else _check(result, name, about)


_ZEROS = (0,) * 6
_libc.syscall.restype = ctypes.c_long
_libc.syscall.argtypes = (ctypes.c_long, *(ctypes.c_void_p,) * len(_ZEROS))
_libc.ptrace.restype = ctypes.c_long
_libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_long, ctypes.c_long)
_libc.mount.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p)
_libc.umount2.argtypes = (ctypes.c_char_p, ctypes.c_int)
_libc.unshare.argtypes = (ctypes.c_int,)
_libc.setns.argtypes = (ctypes.c_int, ctypes.c_int)
_libc.sethostname.argtypes = (ctypes.c_char_p, ctypes.c_size_t)
_libc.setdomainname.argtypes = (ctypes.c_char_p, ctypes.c_size_t)
_libc.personality.argtypes = (ctypes.c_ulong,)
_libc.prctl.argtypes = (ctypes.c_int, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong)
_libc.capset.argtypes = (ctypes.POINTER(_CapHeader), ctypes.POINTER(_CapData))
_libc.mmap.argtypes = (ctypes.c_ulong, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long)
_libc.mmap.restype = ctypes.c_ulong
_libc.munmap.argtypes = (ctypes.c_ulong, ctypes.c_size_t)
_libc.mincore.argtypes = (ctypes.c_ulong, ctypes.c_size_t, ctypes.c_char_p)


def clone(flags: int) -> int:
    """clone(2) as fork with ``flags`` (a signal number is among them); 0 in the child.

    The caller has one thread only, and the child must end in execve or _exit: Python's own after-fork
    handlers don't run.
    """
    return system_call("clone", flags, 0, 0, 0, 0)


def clone3(flags: int, exit_signal: int, cgroup: int) -> tuple[int, int]:
    """clone3(2) as `clone_pidfd`, born in the cgroup v2 directory open as ``cgroup`` (Linux 5.7)."""
    handle = ctypes.c_int(-1)
    arguments = _CloneArgs(
        flags=flags | CLONE_INTO_CGROUP | CLONE_PIDFD,
        pidfd=ctypes.addressof(handle),
        exit_signal=exit_signal,
        cgroup=cgroup,
    )
    pid = system_call("clone3", ctypes.byref(arguments), ctypes.sizeof(arguments))
    return pid, handle.value if pid else -1


def unshare(flags: int) -> None:
    """unshare(2)."""
    _check(_libc.unshare(flags), "unshare", hex(flags))


def setns(descriptor: int, flags: int = 0) -> None:
    """setns(2); ``descriptor`` may be a pidfd with several flags since Linux 5.8."""
    _check(_libc.setns(descriptor, flags), "setns", hex(flags))


def mount(source: str, target: str, kind: str, flags: int, data: str = "") -> None:
    """mount(2)."""
    result = _libc.mount(os.fsencode(source), os.fsencode(target), kind.encode(), flags, os.fsencode(data))
    _check(result, "mount", kind, source, target, data)


def umount2(target: str, flags: int) -> None:
    """umount2(2)."""
    _check(_libc.umount2(os.fsencode(target), flags), "umount2", target)


def pivot_root(new_root: str, put_old: str) -> None:
    """pivot_root(2); ``pivot_root(".", ".")`` stacks the old root on the new one, to be unmounted next."""
    system_call("pivot_root", os.fsencode(new_root), os.fsencode(put_old), about=new_root)


def sethostname(name: str) -> None:
    """sethostname(2)."""
    encoded = name.encode()
    _check(_libc.sethostname(encoded, len(encoded)), "sethostname", name)


def setdomainname(name: str) -> None:
    """setdomainname(2)."""
    encoded = name.encode()
    _check(_libc.setdomainname(encoded, len(encoded)), "setdomainname", name)


def personality(persona: int) -> None:
    """personality(2)."""
    _check(_libc.personality(persona), "personality", hex(persona))


def mount_setattr(
    mount: int,
    attr_set: int,
    attr_clr: int,
    *,
    propagation: int = 0,
    recursive: bool = False,
    userns_fd: int = 0,
) -> None:
    """mount_setattr(2) on the mount whose root is open as ``mount``, and those below it (Linux 5.12)."""
    attributes = _MountAttr(attr_set=attr_set, attr_clr=attr_clr, propagation=propagation, userns_fd=userns_fd)
    flags, size = AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0), ctypes.sizeof(attributes)
    system_call("mount_setattr", mount, b"", flags, ctypes.byref(attributes), size, about=f"{attr_set:#x}")


def open_tree(path: str, *, recursive: bool, directory: int = AT_FDCWD) -> int:
    """open_tree(2) with OPEN_TREE_CLONE: a bind mount that is nowhere yet, close-on-exec (Linux 5.2).

    Of what is open as ``directory`` itself for an empty ``path``.
    """
    flags = OPEN_TREE_CLONE | os.O_CLOEXEC | (AT_RECURSIVE if recursive else 0) | (0 if path else AT_EMPTY_PATH)
    return system_call("open_tree", directory, os.fsencode(path), flags, about=path)


def move_mount(tree: int, target: int) -> None:
    """move_mount(2): put the mount open as ``tree`` on what is open as ``target`` (Linux 5.2)."""
    move_from_and_to_descriptors = 0x04 | 0x40  # MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH
    system_call("move_mount", tree, b"", target, b"", move_from_and_to_descriptors)


def fsopen(kind: str) -> int:
    """fsopen(2): the context of a file system to be set up, close-on-exec (Linux 5.2)."""
    return system_call("fsopen", kind.encode(), FSOPEN_CLOEXEC, about=kind)


def fsconfig_create(context: int) -> None:
    """fsconfig(2) FSCONFIG_CMD_CREATE: make it, or find the one that there is."""
    system_call("fsconfig", context, FSCONFIG_CMD_CREATE, None, None, 0)


def fsconfig_string(context: int, name: str, value: str) -> None:
    """fsconfig(2) FSCONFIG_SET_STRING: a parameter with its value."""
    encoded = name.encode(), os.fsencode(value)
    system_call("fsconfig", context, FSCONFIG_SET_STRING, *encoded, 0, about=f"{name}={value}")


def fsconfig_flag(context: int, name: str) -> None:
    """fsconfig(2) FSCONFIG_SET_FLAG: a parameter that has no value."""
    system_call("fsconfig", context, FSCONFIG_SET_FLAG, name.encode(), None, 0, about=name)


def fsmount(context: int, attributes: int = 0) -> int:
    """fsmount(2): its root, mounted nowhere, close-on-exec. The mount ends with the descriptor unless it is moved."""
    return system_call("fsmount", context, FSMOUNT_CLOEXEC, attributes)


def join_session_keyring() -> None:
    """keyctl(2) KEYCTL_JOIN_SESSION_KEYRING: a new one without a name, in place of the one that was inherited."""
    system_call("keyctl", KEYCTL_JOIN_SESSION_KEYRING, None, 0, 0, 0)


def sched_setattr(pid: int = 0, **fields: int) -> None:
    """sched_setattr(2) of ``pid``, or the calling thread; ``fields`` of struct sched_attr, times in nanoseconds."""
    attributes = _SchedAttr(size=ctypes.sizeof(_SchedAttr), **fields)
    system_call("sched_setattr", pid, ctypes.byref(attributes), 0)


def set_mempolicy(mode: int, nodes: int) -> None:
    """set_mempolicy(2) of the calling thread; ``nodes`` is a mask with bit n for node n, ``mode`` with its flags."""
    words = (nodes.bit_length() + 63) // 64
    mask = nodes.to_bytes(words * 8, "little") if words else None
    system_call("set_mempolicy", mode, mask, words * 64 + 1 if words else 0)  # the kernel takes one off


def ioprio_set(io_class: int, priority: int) -> None:
    """ioprio_set(2) of the calling thread."""
    system_call("ioprio_set", 1, 0, io_class << 13 | priority)  # IOPRIO_WHO_PROCESS


def prctl(option: int, argument: int = 0, third: int = 0) -> int:
    """prctl(2) with integer arguments; those not given are 0, which newer options insist on."""
    return _check(_libc.prctl(option, argument, third, 0, 0), "prctl", option, argument)


def capset(*, effective: int, permitted: int, inheritable: int) -> None:
    """capset(2) of the calling thread; each argument is a mask with bit n for capability n."""
    prepared_capset(effective=effective, permitted=permitted, inheritable=inheritable)()


def prepared_capset(*, effective: int, permitted: int, inheritable: int) -> Callable[[], None]:
    """The same for later, when it is to be the only system call."""
    header = _CapHeader(_CAPABILITY_VERSION_3, 0)
    halves = [((mask & 0xFFFFFFFF), (mask >> 32)) for mask in (effective, permitted, inheritable)]
    data = (_CapData * 2)(_CapData(*(low for low, _ in halves)), _CapData(*(high for _, high in halves)))

    def call() -> None:
        _check(_libc.capset(ctypes.byref(header), data), "capset")

    return call


def seccomp_filter(program: bytes, flags: int = 0) -> Callable[[], int]:
    """seccomp(2) SECCOMP_SET_MODE_FILTER for later, when it is to be the only system call; ``program`` is an array of
    struct sock_filter, 8 bytes each.

    The call returns 0, or the listener that SECCOMP_FILTER_FLAG_NEW_LISTENER asks for, close-on-exec.
    """
    descriptor = _SockFprog(len(program) // 8, program)
    return lambda: system_call("seccomp", SECCOMP_SET_MODE_FILTER, flags, ctypes.byref(descriptor))


def clone_pidfd(flags: int) -> tuple[int, int]:
    """`clone` that also tells a pidfd of the child, close-on-exec: pid and pidfd, or 0 and -1 in the child."""
    handle = ctypes.c_int(-1)
    pid = system_call("clone", flags | CLONE_PIDFD, 0, ctypes.byref(handle), 0, 0)
    return pid, handle.value if pid else -1


def mmap(length: int, descriptor: int) -> int:
    """mmap(2) of a file from its start, shared and read-only: its address. Nothing is read until it is looked at."""
    address = int(_libc.mmap(0, length, 1, 1, descriptor, 0))  # PROT_READ, MAP_SHARED
    _check(-1 if address == _MAP_FAILED else 0, "mmap", length)
    return address


def munmap(address: int, length: int) -> None:
    """munmap(2)."""
    _check(_libc.munmap(address, length), "munmap", hex(address))


def mincore(address: int, length: int, pages: Array[c_char]) -> None:
    """mincore(2): ``pages`` gets a byte per page, whose lowest bit says whether it is in memory."""
    _check(_libc.mincore(address, length, pages), "mincore", hex(address))


def ptrace(request: int, pid: int, address: int = 0, data: int = 0) -> int:
    """ptrace(2): its result. The calling thread is the tracer."""
    return _check(_libc.ptrace(request, pid, address, data), "ptrace", hex(request), pid)


def close_range(first: int, last: int) -> None:
    """close_range(2), both ends included (Linux 5.9)."""
    system_call("close_range", first, last, 0)


def pidfd_getfd(process: int, descriptor: int) -> int:
    """pidfd_getfd(2): a duplicate of another process's descriptor, close-on-exec. Needs the right to trace it."""
    return system_call("pidfd_getfd", process, descriptor, 0)


def openat2(directory: int, path: str | bytes, flags: int, resolve: int) -> int:
    """openat2(2) without a mode; the descriptor is close-on-exec.

    While anything on the host is renamed the kernel may be unable to tell whether a ``..`` has left the root, and
    answers EAGAIN: it is asked again, some dozen times, before that is an error.
    """
    key = flags | os.O_CLOEXEC, resolve
    if key not in _hows:
        _hows[key] = _OpenHow(key[0], 0, resolve)
    name, how = os.fsencode(path), ctypes.byref(_hows[key])
    for _ in range(OPENAT2_TRIES - 1):
        try:
            return system_call("openat2", directory, name, how, _HOW_BYTES, about=path)
        except BlockingIOError:
            continue
    return system_call("openat2", directory, name, how, _HOW_BYTES, about=path)


OPENAT2_TRIES = 32
_hows: dict[tuple[int, int], _OpenHow] = {}  # as few as there are ways to look something up
_HOW_BYTES = ctypes.sizeof(_OpenHow)
