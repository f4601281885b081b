"""The configurations that lab runs: Docker's defaults, and the control that has none of them.

Each is an ordinary OCI configuration: written as config.json it runs under runc and crun too, which is how the
comparison with them is made fair.
"""

from __future__ import annotations

import json
import resource
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from lab.host.cgroup import mounted
from lab.host.identity import ownspace
from lab.model import Limits, Process
from lab.record import replace
from lab.runtime.cgroup import devices, resources
from lab.runtime.config import capabilities
from lab.runtime.config.model import (
    Capabilities,
    Config,
    IdMapping,
    Linux,
    MountConfig,
    Namespace,
    ProcessConfig,
    Resources,
    Rlimit,
    RootConfig,
    User,
    to_json,
)
from lab.runtime.seccomp import profile

HOST = "host"
"""As a network namespace: the host's own, as RUN in a Dockerfile gets it."""

SUBORDINATE_IDS = (IdMapping(container_id=0, host_id=100_000, size=65_536),)
"""What root and the other users are on the host in a user namespace of lab's: the first range that useradd(8) hands
out (subuid(5)).
"""


def own_ids() -> tuple[tuple[IdMapping, ...], tuple[IdMapping, ...]]:
    """Of users and of groups, what those in a user namespace of a container's are around it. For root
    `SUBORDINATE_IDS`; for an ordinary user, who may map no layers to others, the ids of lab's namespace as they are.
    """
    if not ownspace.here():
        return SUBORDINATE_IDS, SUBORDINATE_IDS
    tables = (ownspace.table(), ownspace.read_table("gid_map"))
    users, groups = (
        tuple(IdMapping(container_id=first, host_id=first, size=count) for first, _, count in table)
        for table in tables
    )
    return users, groups


DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
OPEN_FILES = 1_048_576  # as Docker's service allows; less where the host's hard limit is lower

MASKED_PATHS = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
)
THERMAL_EVENTS = "/sys/devices/system/cpu/cpu*/thermal_throttle"
"""Counters per processor, from which, as from /proc/interrupts, one tenant can tell what another does."""

READ_ONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")

DEFAULT_MOUNTS = (
    MountConfig(destination="/proc", type="proc", source="proc", options=("nosuid", "noexec", "nodev")),
    MountConfig(
        destination="/dev", type="tmpfs", source="tmpfs",
        options=("nosuid", "strictatime", "mode=755", "size=65536k"),
    ),
    MountConfig(
        destination="/dev/pts", type="devpts", source="devpts",
        options=("nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"),
    ),
    MountConfig(destination="/sys", type="sysfs", source="sysfs", options=("nosuid", "noexec", "nodev", "ro")),
    MountConfig(
        destination="/sys/fs/cgroup", type="cgroup", source="cgroup", options=("ro", "nosuid", "noexec", "nodev")
    ),
    MountConfig(destination="/dev/mqueue", type="mqueue", source="mqueue", options=("nosuid", "noexec", "nodev")),
    MountConfig(
        destination="/dev/shm", type="tmpfs", source="shm",
        options=("nosuid", "noexec", "nodev", "mode=1777", "size=65536k"),
    ),
)  # fmt: skip

HOSTS_SYS = MountConfig(
    destination="/sys", type="none", source="/sys", options=("rbind", "rprivate", "nosuid", "noexec", "nodev", "rro")
)

NO_CGROUPS = MountConfig(
    destination="/sys/fs/cgroup", type="tmpfs", source="tmpfs",
    options=("ro", "nosuid", "noexec", "nodev", "mode=755", "size=0k"),
)  # fmt: skip

DEVICE_RULES = devices.with_defaults(())
"""Any node may be made (root keeps CAP_MKNOD), only these may be opened: the default nodes and terminals."""

SYSCTLS_OF_OWN_NETWORK = {"net.ipv4.ip_unprivileged_port_start": "0", "net.ipv4.ping_group_range": "0 2147483647"}


def container_config(
    process: Process,
    limits: Limits | None = None,
    *,
    hostname: str = "",
    network_namespace: str | Path | None = None,
    extra_mounts: Sequence[MountConfig] = (),
    id_mappings: tuple[IdMapping, ...] = (),
    group_mappings: tuple[IdMapping, ...] = (),
) -> Config:
    """What ``docker run`` would make of ``process``, plus no_new_privs.

    ``network_namespace`` is the path of one to join, None for a new one with loopback alone, or `HOST`.
    ``id_mappings``, for uids and gids alike unless there are ``group_mappings``, add a user namespace.
    """
    kinds = ["pid", "ipc", "uts", "mount", "cgroup"]
    namespaces = [Namespace(type=kind) for kind in kinds]
    if network_namespace != HOST:
        namespaces.append(Namespace(type="network", path=str(network_namespace or "")))
    if id_mappings:
        namespaces.append(Namespace(type="user"))
    return Config(
        process=_process(process, capabilities.DOCKER_DEFAULT, no_new_privileges=True),
        root=RootConfig(path="rootfs"),
        hostname=hostname,
        mounts=(*_default_mounts(network_namespace), *extra_mounts),
        linux=Linux(
            namespaces=tuple(namespaces),
            uid_mappings=id_mappings,
            gid_mappings=group_mappings or id_mappings,
            resources=resources.of_limits(limits or Limits(), DEVICE_RULES),
            sysctl=SYSCTLS_OF_OWN_NETWORK if network_namespace is None and not id_mappings else {},
            seccomp=profile.default_profile(),
            masked_paths=masked_paths(),
            readonly_paths=READ_ONLY_PATHS,
        ),
    )


def rootless_config(process: Process, *, hostname: str = "") -> Config:
    """The same for the caller, who need not be root: root inside is the caller, and there is nobody else."""
    config = container_config(process, hostname=hostname, network_namespace=HOST)
    mounts = (_without_group(HOSTS_SYS if mount.type == "sysfs" else mount) for mount in config.mounts)
    alone = [
        (IdMapping(container_id=0, host_id=number, size=1),) for number in (ownspace.user_id(), ownspace.group_id())
    ]
    return replace(
        config,
        mounts=tuple(mounts),
        linux=replace(
            config.linux,
            namespaces=(*config.linux.namespaces, Namespace(type="user")),
            uid_mappings=alone[0],
            gid_mappings=alone[1],
            resources=resources.of_limits(Limits(), ()),
        ),
    )


def _without_group(mount: MountConfig) -> MountConfig:
    """Terminals that belong to root's group: that of terminals is nobody's in a namespace with one id."""
    return replace(mount, options=tuple(option for option in mount.options if not option.startswith("gid=")))


def _default_mounts(network_namespace: str | Path | None) -> tuple[MountConfig, ...]:
    """Terminals belong to the group tty, unless nobody in an ordinary user's namespace knows it. On the host's
    network, which such a namespace does not own, no other /sys can be mounted than the host's (sysfs(5)). Where there
    is no group of its own, the one that it could see would be its user's.
    """
    mounts: tuple[MountConfig, ...] = DEFAULT_MOUNTS
    if ownspace.keeps_groups():
        mounts = tuple(_without_group(mount) for mount in mounts)
    if ownspace.here() and network_namespace == HOST:
        mounts = tuple(HOSTS_SYS if mount.type == "sysfs" else mount for mount in mounts)
    if ownspace.here() and not mounted.host().joined():
        mounts = tuple(NO_CGROUPS if mount.type == "cgroup" else mount for mount in mounts)
    return mounts


@cache
def masked_paths() -> tuple[str, ...]:
    """What is hidden on this host by default; Docker's list is as long as the host has processors, too."""
    return (*MASKED_PATHS, *sorted(map(str, Path("/").glob(THERMAL_EVENTS.lstrip("/")))))


def process_config(
    process: Process,
    limits: Limits | None = None,
    *,
    network_namespace: str | Path | None = HOST,
    extra_mounts: Sequence[MountConfig] = (),
) -> Config:
    """The control: what no isolation costs. For a root entered by chroot alone
    (`lab.runtime.launcher.spec.Spec.enter`), with all capabilities and no filter.

    It sees the host's processes, devices and kernel interfaces. The mount namespace only keeps the host's mount
    table clean; the network namespace, when one is given, only makes the client's path the same as for the others.
    The limits apply, because they are the experiment's and not the boundary's.
    """
    namespaces = [Namespace(type="mount")]
    if network_namespace != HOST:
        namespaces.append(Namespace(type="network", path=str(network_namespace or "")))
    host = tuple(
        MountConfig(destination=path, type="none", source=path, options=("rbind",))
        for path in ("/proc", "/dev", "/sys")
    )
    return Config(
        process=_process(process, capabilities.held(), no_new_privileges=False),
        root=RootConfig(path="rootfs"),
        mounts=(*host, *extra_mounts),
        linux=Linux(namespaces=tuple(namespaces), resources=resources.of_limits(limits or Limits(), ())),
    )


def write(config: Config, directory: Path, *, root: str = "rootfs", cgroups_path: str = "") -> Path:
    """Write ``directory``/config.json for another OCI runtime; ``root`` is a plain directory, as it wants it.

    What lab's own runtime is told beside the configuration, the overlay and the helper, the caller provides.
    """
    linux = replace(config.linux, cgroups_path=cgroups_path)
    whole = replace(config, linux=linux, root=replace(config.root, path=root))
    path = directory / "config.json"
    path.write_text(json.dumps(to_json(whole), indent=1))
    return path


def without_group(config: Config) -> Config:
    """For a runtime that is put into a group with its limits, and is to make none."""
    return replace(config, linux=replace(config.linux, resources=Resources()))


def bind(source: Path | str, destination: str, *, read_only: bool = True) -> MountConfig:
    """A host file or directory inside: resolv.conf, a build context, lab's helper."""
    options = ("bind", "nosuid", "nodev", "ro") if read_only else ("bind",)
    return MountConfig(destination=destination, type="none", source=str(source), options=options)


def _process(process: Process, granted: tuple[str, ...], *, no_new_privileges: bool) -> ProcessConfig:
    """Root has its capabilities in effect; another user has them only in its bounding set, as under Docker."""
    effective = granted if process.uid == 0 else ()
    environment = {"PATH": DEFAULT_PATH, **process.environment}
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    files = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    return ProcessConfig(
        args=process.argv,
        cwd=process.working_directory,
        user=User(uid=process.uid, gid=process.gid, additional_gids=process.additional_gids),
        env=tuple(f"{name}={value}" for name, value in environment.items()),
        capabilities=Capabilities(bounding=granted, effective=effective, permitted=effective),
        rlimits=(Rlimit(type="RLIMIT_NOFILE", soft=files, hard=files),),
        no_new_privileges=no_new_privileges,
    )
