"""Start a domain from within a network namespace: QEMU's tap is looked up where the calling thread is.

An ordinary user's /dev/kvm is opened by a group of the user's, which has no number in lab's namespace: who leaves it
can't have it again. libvirt leaves all groups in each child that it starts (setgroups(2)), the QEMU that it asks for
its abilities included. So the thread that starts a domain under KVM has a filter by which that does nothing and
succeeds, and its children inherit it. Without KVM the jail leaves them all (jail/jail.c).
"""

from __future__ import annotations

import os
import struct
from concurrent.futures import ThreadPoolExecutor

from lab.host.identity import ownspace
from lab.host.syscalls import CLONE_NEWNET, seccomp_filter, setns
from lab.hypervisor.domains.connection import Domain, Hypervisor
from lab.model import Accelerator

LOAD, IF_EQUAL, RETURN = 0x20, 0x15, 0x06  # linux/bpf_common.h: BPF_LD | BPF_W | BPF_ABS, BPF_JMP | BPF_JEQ, BPF_RET
NUMBER_AT, ARCHITECTURE_AT = 0, 4  # in struct seccomp_data
X86_64, SETGROUPS = 0xC000003E, 116  # lab's machines run on no other: lab.host.processor
ALLOW, SUCCEED = 0x7FFF0000, 0x00050000  # seccomp(2): SECCOMP_RET_ALLOW, SECCOMP_RET_ERRNO with 0
KEEPING_GROUPS = b"".join(
    struct.pack("HBBI", *line)
    for line in (
        (LOAD, 0, 0, ARCHITECTURE_AT), (IF_EQUAL, 0, 3, X86_64),
        (LOAD, 0, 0, NUMBER_AT), (IF_EQUAL, 0, 1, SETGROUPS), (RETURN, 0, 0, SUCCEED),
        (RETURN, 0, 0, ALLOW),
    )
)  # fmt: skip


def launch(hypervisor: Hypervisor, xml: str, network_namespace: int | None, accelerator: Accelerator) -> Domain:
    """Start ``xml`` from a thread of its own that has entered ``network_namespace`` and ends afterwards.

    A namespace is a property of a thread (setns(2)), and so is a filter (seccomp(2)); no other thread of lab ever
    leaves the host's, or has this one.
    """
    keeps = inherited_filters(accelerator) > 0
    if network_namespace is None and not keeps:
        return hypervisor.start(xml)

    def enter_and_start() -> Domain:
        if network_namespace is not None:
            setns(network_namespace, CLONE_NEWNET)
        if keeps:
            keep_groups()
        return hypervisor.start(xml)

    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="launch") as thread:
        return thread.submit(enter_and_start).result()


def inherited_filters(accelerator: Accelerator) -> int:
    """How many filters of system calls a QEMU has from the thread that started it, besides its own: one for KVM where
    lab has kept an ordinary user's groups.
    """
    return 1 if accelerator is Accelerator.KVM and ownspace.here() and os.getgroups() else 0


def keep_groups() -> None:
    """From now on nobody whom this thread starts leaves a group. Raises OSError."""
    seccomp_filter(KEEPING_GROUPS)()
