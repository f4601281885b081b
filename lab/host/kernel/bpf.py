"""bpf(2): only what guards device nodes on cgroup v2. Standard library only, as `lab.host.syscalls`."""

from __future__ import annotations

from lab.host import ctypes_shim as ctypes
from lab.host.syscalls import system_call

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_BPF_PROG_LOAD = 5
_BPF_PROG_ATTACH = 8
_BPF_PROG_TYPE_CGROUP_DEVICE = 15
_BPF_CGROUP_DEVICE = 6


class _BpfLoad(ctypes.Structure):
    _fields_ = (
        ("prog_type", ctypes.c_uint32),
        ("insn_cnt", ctypes.c_uint32),
        ("insns", ctypes.c_uint64),
        ("license", ctypes.c_uint64),
        ("log_level", ctypes.c_uint32),
        ("log_size", ctypes.c_uint32),
        ("log_buf", ctypes.c_uint64),
        ("kern_version", ctypes.c_uint32),
        ("prog_flags", ctypes.c_uint32),
    )


class _BpfAttach(ctypes.Structure):
    _fields_ = (
        ("target_fd", ctypes.c_uint32),
        ("attach_bpf_fd", ctypes.c_uint32),
        ("attach_type", ctypes.c_uint32),
        ("attach_flags", ctypes.c_uint32),
    )


def load_cgroup_device(instructions: Sequence[bytes]) -> int:
    """bpf(2) BPF_PROG_LOAD of a BPF_PROG_TYPE_CGROUP_DEVICE program; its descriptor, to be closed."""
    code = ctypes.create_string_buffer(b"".join(instructions), 8 * len(instructions))
    terms = ctypes.create_string_buffer(b"GPL")
    attributes = _BpfLoad(
        prog_type=_BPF_PROG_TYPE_CGROUP_DEVICE,
        insn_cnt=len(instructions),
        insns=ctypes.addressof(code),
        license=ctypes.addressof(terms),
    )
    return system_call("bpf", _BPF_PROG_LOAD, ctypes.byref(attributes), ctypes.sizeof(attributes), about="PROG_LOAD")


def attach_cgroup_device(cgroup: int, program: int) -> None:
    """bpf(2) BPF_PROG_ATTACH of a device program to the cgroup v2 directory open as ``cgroup``."""
    attributes = _BpfAttach(target_fd=cgroup, attach_bpf_fd=program, attach_type=_BPF_CGROUP_DEVICE)
    system_call("bpf", _BPF_PROG_ATTACH, ctypes.byref(attributes), ctypes.sizeof(attributes), about="PROG_ATTACH")
