"""The defaults stop what Docker's stop: facts of moby's default profile and configuration, and where lab differs.

Sources: moby/profiles seccomp/default_linux.go and moby daemon/pkg/oci/defaults.go, 2026. The differences are argued
in docs/security.md.
"""

from __future__ import annotations

import errno
import platform

import pytest

from lab.model import Process
from lab.runtime import bundle
from lab.runtime.config import capabilities
from lab.runtime.seccomp import calls, compiler, profile
from lab.runtime.seccomp.bpf import AUDIT_ARCHITECTURES, Action, evaluate

WITH_A_CAPABILITY = {
    "CAP_DAC_READ_SEARCH": "open_by_handle_at",
    "CAP_SYS_ADMIN": """bpf clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie lsm_get_self_attr
        lsm_list_modules lsm_set_self_attr mount mount_setattr move_mount open_tree perf_event_open quotactl
        quotactl_fd setdomainname sethostname setns syslog umount2 unshare""",
    "CAP_SYS_BOOT": "reboot",
    "CAP_SYS_MODULE": "delete_module init_module finit_module",
    "CAP_SYS_PACCT": "acct",
    "CAP_SYS_PTRACE": "kcmp pidfd_getfd process_madvise",
    "CAP_SYS_RAWIO": "iopl ioperm",
    "CAP_SYS_TIME": "settimeofday clock_settime",
    "CAP_SYS_TTY_CONFIG": "vhangup",
    "CAP_SYS_NICE": "get_mempolicy mbind set_mempolicy set_mempolicy_home_node",
}
NEVER = """add_key keyctl request_key io_uring_setup io_uring_enter io_uring_register userfaultfd kexec_load
    kexec_file_load pivot_root swapon swapoff nfsservctl uselib ustat sysfs move_pages migrate_pages"""
ONLY_DOCKERS = "listmount statmount uretprobe"
"""What Docker allows and lab does not: they tell of mounts and of debugging, and nothing needs them yet."""

MASKED = """/proc/acpi /proc/asound /proc/interrupts /proc/kcore /proc/keys /proc/latency_stats /proc/sched_debug
    /proc/scsi /proc/timer_list /proc/timer_stats /sys/devices/virtual/powercap /sys/firmware"""
READ_ONLY = "/proc/bus /proc/fs /proc/irq /proc/sys /proc/sysrq-trigger"

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="system-call numbers of x86-64")


def decided(name: str, arguments: tuple[int, ...] = ()) -> int:
    program = compiler.compile(profile.default_profile())
    return evaluate(program, calls.numbers("SCMP_ARCH_X86_64")[name], arguments)


@pytest.mark.parametrize("capability", WITH_A_CAPABILITY)
def test_what_docker_ties_to_a_capability_it_withholds_is_refused(capability: str) -> None:
    assert capability not in capabilities.DOCKER_DEFAULT
    known = calls.numbers("SCMP_ARCH_X86_64")
    names = [name for name in WITH_A_CAPABILITY[capability].split() if name in known]
    assert names
    for name in names:
        assert decided(name) != Action.ALLOW, name


def test_what_docker_never_allows_is_refused() -> None:
    known = calls.numbers("SCMP_ARCH_X86_64")
    names = [name for name in (NEVER + " " + ONLY_DOCKERS).split() if name in known]
    assert len(names) > 15
    for name in names:
        assert decided(name) != Action.ALLOW, name


@pytest.mark.parametrize("family", range(64))
def test_address_families_are_dockers(family: int) -> None:
    removed_or_closed = {12, 19, 20, 23, 25, 34, 37, 38, 40}
    allowed = family < 46 and family not in removed_or_closed
    assert decided("socket", (family, 1, 0)) == (Action.ALLOW if allowed else Action.ERRNO | errno.EPERM)


def test_every_door_of_i386_is_as_closed() -> None:
    """A program of 64 bits may make i386's calls: what is refused by one number must be by the other."""
    program = compiler.compile(profile.default_profile())
    wide, narrow = calls.numbers("SCMP_ARCH_X86_64"), calls.numbers("SCMP_ARCH_X86")
    audited = AUDIT_ARCHITECTURES["i386"]
    refused = [name for name in wide if evaluate(program, wide[name]) != Action.ALLOW]
    both = set(refused) & set(narrow) - {"socket", "clone", "personality"}
    assert {"mount", "bpf", "kexec_load"} <= both
    for name in both:
        assert evaluate(program, narrow[name], architecture=audited) != Action.ALLOW, name


def test_paths_capabilities_and_namespaces_are_dockers_and_more() -> None:
    config = bundle.container_config(Process(argv=("true",)))
    assert set(MASKED.split()) <= set(config.linux.masked_paths)
    assert set(config.linux.readonly_paths) == set(READ_ONLY.split())
    assert {each.type for each in config.linux.namespaces} == {"pid", "ipc", "uts", "mount", "network", "cgroup"}
    assert config.process.no_new_privileges, "Docker's default leaves it out"
    held = config.process.capabilities
    assert held is not None
    assert set(held.bounding) == set(capabilities.DOCKER_DEFAULT)
    assert len(held.bounding) == 14
    assert not held.inheritable, "CVE-2022-24769"
    assert not held.ambient
