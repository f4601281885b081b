"""Known ways out of a container: all fail under the defaults, under lab's runtime and under runc alike.

Each has its control: the same attempt succeeds when what stops it is taken out of the configuration. Where several
mechanisms stop it, each of them is shown to do so alone. Those that need something of the host's to reach for are in
test_escapes_to_the_host.
"""

from __future__ import annotations

import pytest
from escaping import (
    ADMIN,
    FILTER,
    Ask,
    Attempt,
    by_call,
    capability,
    check,
    namespace,
    unlocked,
    unmasked,
    writable_mount,
)

ATTEMPTS = {
    # files of the kernel
    "core_pattern": Attempt(
        words=("open_to_write", "/proc/sys/kernel/core_pattern"), layers={"read-only path": unlocked("/proc/sys")}
    ),
    "modprobe path": Attempt(
        words=("open_to_write", "/proc/sys/kernel/modprobe"), layers={"read-only path": unlocked("/proc/sys")}
    ),
    "sysrq": Attempt(
        words=("open_to_write", "/proc/sysrq-trigger"), layers={"read-only path": unlocked("/proc/sysrq-trigger")}
    ),
    "interrupts' processors": Attempt(
        words=("open_to_write", "/proc/irq/default_smp_affinity"), layers={"read-only path": unlocked("/proc/irq")}
    ),
    "sysfs": Attempt(
        words=("open_to_write", "/sys/kernel/mm/transparent_hugepage/enabled"),
        layers={"read-only mount": writable_mount("/sys")},
    ),
    "its own limits": Attempt(
        words=("open_to_write", "/sys/fs/cgroup/pids/cgroup.procs"),
        layers={"read-only mount": writable_mount("/sys/fs/cgroup")},
    ),
    "memory of the kernel": Attempt(
        words=("read_some", "/proc/kcore"),
        layers={"mask": unmasked("/proc/kcore"), "CAP_SYS_RAWIO": capability("CAP_SYS_RAWIO")},
    ),
    "timing of interrupts": Attempt(
        words=("read_some", "/proc/interrupts"), layers={"mask": unmasked("/proc/interrupts")}
    ),
    "keys of others": Attempt(words=("read_some", "/proc/keys"), layers={"mask": unmasked("/proc/keys")}),
    "firmware": Attempt(words=("list_some", "/sys/firmware"), layers={"mask": unmasked("/sys/firmware")}),
    "release_agent": Attempt(
        words=("release_agent", "pids"),
        layers=FILTER | ADMIN | {"cgroup namespace": namespace("cgroup")},
    ),
    # mounts and namespaces
    "mount": by_call("mount_tmpfs", "CAP_SYS_ADMIN"),
    "fsopen": by_call("open_file_system", "CAP_SYS_ADMIN"),
    "open_tree": by_call("copy_mounts", "CAP_SYS_ADMIN"),
    "remount writable": by_call("make_writable", "CAP_SYS_ADMIN"),
    "unmount a mask": by_call("unmask", "CAP_SYS_ADMIN"),
    "pivot_root": by_call("swap_roots", "CAP_SYS_ADMIN"),
    "sethostname": by_call("name_host", "CAP_SYS_ADMIN"),
    "unshare users": by_call("unshare_users"),
    "unshare mounts": by_call("unshare_mounts", "CAP_SYS_ADMIN"),
    "clone users": by_call("clone_users"),
    "clone3 users": by_call("clone3_users"),
    # what the kernel offers besides
    "userfaultfd": by_call("fault_handler"),
    "userfaultfd of the kernel's faults": by_call("fault_handler_of_kernel", "CAP_SYS_PTRACE"),
    "keyctl": by_call("session_keyring"),
    "add_key": by_call("add_key"),
    "request_key": by_call("request_key"),
    "bpf map": by_call("bpf_map", "CAP_BPF"),
    "bpf program": by_call("bpf_program", "CAP_SYS_ADMIN"),
    "io_uring": by_call("io_ring"),
    "perf": by_call("perf_of_kernel", "CAP_PERFMON"),
    "iopl": by_call("io_ports", "CAP_SYS_RAWIO"),
    "syslog": by_call("kernel_log", "CAP_SYSLOG"),
    "fanotify": by_call("watch_mount", "CAP_SYS_ADMIN"),
    "personality": by_call("no_randomisation"),
    "set_mempolicy": by_call("memory_policy"),
    "kcmp": by_call("compare_processes"),
    "pidfd_getfd": by_call("descriptor_of_process"),
    "kexec": by_call("new_kernel", "CAP_SYS_BOOT"),
    "module": by_call("module", "CAP_SYS_MODULE"),
    "reboot": by_call("reboot_host", "CAP_SYS_BOOT"),
    "swapon": by_call("swap_on", "CAP_SYS_ADMIN"),
    "acct": by_call("accounting", "CAP_SYS_PACCT"),
    "quotactl": by_call("quota"),
    "vsock": by_call("socket_of_family", words=("40",)),
    "kernel's cryptography": by_call("socket_of_family", words=("38",)),
    "kernel's cryptography by an i386 call": by_call("socket_by_32_bits", words=("38",)),
    "vsock by an i386 call": by_call("socket_by_32_bits", words=("40",)),
}


@pytest.mark.parametrize("name", ATTEMPTS)
def test_it_is_stopped_and_succeeds_without_what_stops_it(attempt: Ask, name: str) -> None:
    check(attempt, ATTEMPTS[name])


@pytest.mark.nightly
@pytest.mark.parametrize("name", ATTEMPTS)
def test_the_reference_stops_it_too(attempt_under_runc: Ask, name: str) -> None:
    said = attempt_under_runc(ATTEMPTS[name].config())
    assert said.startswith("stopped: "), said
