"""The reference for seccomp filters: libseccomp itself, told what runc tells it, and asked for its program."""

from __future__ import annotations

import ctypes
import os
from collections import Counter

import pytest

from lab.runtime.config.model import Seccomp
from lab.runtime.seccomp.compiler import word

ARCHITECTURES = {
    "SCMP_ARCH_X86_64": 0xC000003E,
    "SCMP_ARCH_X86": 0x40000003,
    "SCMP_ARCH_X32": 0x4000003E,
    "SCMP_ARCH_AARCH64": 0xC00000B7,
    "SCMP_ARCH_ARM": 0x40000028,
}
NATIVE = 0
ITS_OWN = "SCMP_ARCH_AARCH64" if os.uname().machine == "aarch64" else "SCMP_ARCH_X86_64"
UNKNOWN = -1  # __NR_SCMP_ERROR
OPERATORS = ("", "NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ")  # enum scmp_compare


class Comparison(ctypes.Structure):
    """struct scmp_arg_cmp."""

    _fields_ = (
        ("arg", ctypes.c_uint),
        ("op", ctypes.c_int),
        ("datum_a", ctypes.c_uint64),
        ("datum_b", ctypes.c_uint64),
    )


class Refused(Exception):
    """libseccomp does not take this rule; ``args[0]`` is the errno."""


def load() -> ctypes.CDLL:
    """The library with its prototypes; skips the test without it."""
    try:
        library = ctypes.CDLL("libseccomp.so.2")
    except OSError:
        pytest.skip("needs libseccomp2")
    library.seccomp_init.restype = ctypes.c_void_p
    library.seccomp_init.argtypes = (ctypes.c_uint32,)
    library.seccomp_release.argtypes = (ctypes.c_void_p,)
    library.seccomp_arch_add.argtypes = (ctypes.c_void_p, ctypes.c_uint32)
    library.seccomp_arch_remove.argtypes = (ctypes.c_void_p, ctypes.c_uint32)
    library.seccomp_syscall_resolve_name_arch.argtypes = (ctypes.c_uint32, ctypes.c_char_p)
    library.seccomp_rule_add_array.argtypes = (
        ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint, ctypes.POINTER(Comparison),
    )  # fmt: skip
    library.seccomp_export_bpf.argtypes = (ctypes.c_void_p, ctypes.c_int)
    return library


def resolve(library: ctypes.CDLL, architecture: str, name: str) -> int:
    """The number of a call, negative when libseccomp or the architecture doesn't have it."""
    found: int = library.seccomp_syscall_resolve_name_arch(ARCHITECTURES[architecture], name.encode())
    return found


def newest(library: ctypes.CDLL, profile: Seccomp, architecture: str) -> int:
    """The highest number of any call that the profile names: what is above it is decided without libseccomp."""
    return max(resolve(library, architecture, name) for rule in profile.syscalls for name in rule.names)


def compile(profile: Seccomp, architecture: str = "") -> bytes:
    """libseccomp's program for ``profile``, or that for one of its architectures alone: 2.5.4 sometimes forgets to
    load the number again behind the check for a second architecture. Raises Refused.
    """
    library = load()
    default = word(profile.default_action, profile.default_errno_ret)
    context = library.seccomp_init(default)
    assert context
    try:
        for name in [architecture] if architecture else profile.architectures:
            library.seccomp_arch_add(context, ARCHITECTURES[name])  # EEXIST for its own
        if architecture and architecture != ITS_OWN:
            library.seccomp_arch_remove(context, ARCHITECTURES[ITS_OWN])
        for rule in profile.syscalls:
            action = word(rule.action, rule.errno_ret)
            if action == default:
                continue
            arguments = [
                Comparison(each.index, OPERATORS.index(each.op.removeprefix("SCMP_CMP_")), each.value, each.value_two)
                for each in rule.args
            ]
            often = Counter(each.arg for each in arguments)
            groups = [[each] for each in arguments] if max(often.values(), default=1) > 1 else [arguments]
            for name in rule.names:
                number = library.seccomp_syscall_resolve_name_arch(NATIVE, name.encode())
                for group in groups:
                    if number != UNKNOWN:
                        _add(library, context, action, number, group)
        return _export(library, context)
    finally:
        library.seccomp_release(context)


def _add(library: ctypes.CDLL, context: int, action: int, number: int, group: list[Comparison]) -> None:
    result = library.seccomp_rule_add_array(context, action, number, len(group), (Comparison * 6)(*group))
    if result:
        raise Refused(-result)


def _export(library: ctypes.CDLL, context: int) -> bytes:
    opened = os.memfd_create("filter")
    try:
        assert library.seccomp_export_bpf(context, opened) == 0
        os.lseek(opened, 0, os.SEEK_SET)
        return os.read(opened, 1 << 22)
    finally:
        os.close(opened)
