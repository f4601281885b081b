"""From an OCI configuration to the plan that the small process carries out. Pure, but for the seccomp compiler."""

from __future__ import annotations

import base64
import resource
from collections.abc import Sequence

from lab.errors import LabError, UsageError
from lab.host import syscalls
from lab.model import Limits
from lab.runtime import capabilities, seccomp
from lab.runtime.config import Config, IdMapping, Linux, MountConfig, ProcessConfig
from lab.runtime.mounts import (
    Bind,
    CgroupView,
    DefaultDevices,
    FileSystem,
    MakeReadOnly,
    Mask,
    Operation,
    split_options,
)
from lab.runtime.plan import CgroupsPlan, Enter, Plan, ProcessPlan

NAMESPACES = {
    "mount": syscalls.CLONE_NEWNS,
    "uts": syscalls.CLONE_NEWUTS,
    "ipc": syscalls.CLONE_NEWIPC,
    "pid": syscalls.CLONE_NEWPID,
    "network": syscalls.CLONE_NEWNET,
    "user": syscalls.CLONE_NEWUSER,
    "cgroup": syscalls.CLONE_NEWCGROUP,
}

ENTER_ANNOTATION = "lab.enter"
"""pivot_root (the default) or chroot: lab's one annotation, for the backend that shows what chroot is worth."""


def plan(
    config: Config,
    root: Operation,
    *,
    name: str,
    cgroups: CgroupsPlan,
    cgroup_controllers: tuple[str, ...],
    init: bool,
    helper: Sequence[str] = (),
    hold: bool = False,
    fail_at: str = "",
) -> Plan:
    """Everything `lab.runtime.container.start` needs to know.

    ``root`` is mounted on its ``target``. ``cgroup_controllers`` are the v1 controllers to show inside, empty
    on v2. Raises UsageError for what the specification allows and lab does not do.
    """
    linux = config.linux
    flags = {kind: NAMESPACES[kind] for kind in _namespace_types(linux)}
    made = {space.type for space in linux.namespaces if not space.path}
    return Plan(
        name=name,
        clone_flags=sum(flags[kind] for kind in made if kind != "cgroup"),
        cgroup_namespace="cgroup" in made,
        joins=[[space.path, flags[space.type]] for space in linux.namespaces if space.path],
        uid_map=_map(linux.uid_mappings) if "user" in made else "",
        gid_map=_map(linux.gid_mappings) if "user" in made else "",
        cgroups=cgroups,
        mount_point=root.target,
        root=root.to_json(),
        mounts=[operation.to_json() for operation in operations(config, cgroup_controllers)],
        masks=[operation.to_json() for operation in masks(config)],
        read_only_root=config.root.readonly,
        enter=_enter(config),
        hostname=config.hostname,
        loopback_up="network" in made,
        sysctls=dict(linux.sysctl),
        process=process_plan(config, init=init, helper=helper),
        hold=hold,
        fail_at=fail_at,
    )


def process_plan(
    config: Config, *, init: bool, process: ProcessConfig | None = None, helper: Sequence[str] = ()
) -> ProcessPlan:
    """The process of ``config``, or another ``process`` behind the same boundary."""
    process = process or config.process
    sets = process.capabilities
    profile = config.linux.seccomp
    return ProcessPlan(
        argv=list(process.args),
        environment=list(process.env),
        directory=process.cwd,
        uid=process.user.uid,
        gid=process.user.gid,
        groups=list(process.user.additional_gids),
        umask=0o022 if process.user.umask is None else process.user.umask,
        bounding=_capabilities(sets.bounding, "bounding"),
        effective=_capabilities(sets.effective, "effective"),
        permitted=_capabilities(sets.permitted, "permitted"),
        inheritable=_capabilities(sets.inheritable, "inheritable"),
        ambient=_capabilities(sets.ambient, "ambient"),
        rlimits=[[_rlimit(each.type), each.soft, each.hard] for each in process.rlimits],
        no_new_privileges=process.no_new_privileges,
        seccomp=base64.b64encode(seccomp.compile(profile)).decode() if profile else "",
        oom_score_adj=process.oom_score_adj,
        init=init,
        helper=list(helper),
    )


def operations(config: Config, cgroup_controllers: tuple[str, ...]) -> list[Operation]:
    """The mounts, in order; a tmpfs on /dev gets the default nodes right after it."""
    found: list[Operation] = []
    in_user_namespace = "user" in _namespace_types(config.linux)
    for mount in config.mounts:
        found.append(_operation(mount, cgroup_controllers))
        if mount.destination == "/dev" and mount.type == "tmpfs":
            found.append(DefaultDevices(target="/dev", bind=in_user_namespace))
    return found


def masks(config: Config) -> list[Operation]:
    """What is hidden and what is made read-only below /proc and /sys."""
    hidden: list[Operation] = [Mask(target=path) for path in config.linux.masked_paths]
    return hidden + [MakeReadOnly(target=path) for path in config.linux.readonly_paths]


def joined_flags(config: Config) -> int:
    """The namespaces that are not lab's own: what a further process has to join."""
    return sum(NAMESPACES[kind] for kind in _namespace_types(config.linux))


def limits(config: Config) -> Limits:
    """The configuration's resources in lab's terms."""
    resources = config.linux.resources
    cpu, memory = resources.cpu, resources.memory
    cpus = cpu.quota / (cpu.period or 100_000) if cpu and cpu.quota and cpu.quota > 0 else None
    return Limits(
        memory_bytes=memory.limit if memory and memory.limit and memory.limit > 0 else None,
        cpus=cpus,
        pids=resources.pids.limit if resources.pids and resources.pids.limit > 0 else None,
    )


def _operation(mount: MountConfig, cgroup_controllers: tuple[str, ...]) -> Operation:
    flags, data = split_options(mount.options)
    if mount.type == "cgroup":
        return CgroupView(target=mount.destination, controllers=cgroup_controllers, flags=flags)
    if flags & syscalls.MS_BIND:
        if data:
            raise UsageError(
                f"config.json: mount option {data} on {mount.destination} means nothing for a bind mount"
            )
        return Bind(target=mount.destination, source=mount.source, flags=flags)
    return FileSystem(
        target=mount.destination, kind=mount.type, source=mount.source or mount.type, flags=flags, data=data
    )


def _namespace_types(linux: Linux) -> list[str]:
    kinds = [space.type for space in linux.namespaces]
    for kind in kinds:
        if kind not in NAMESPACES:
            raise UsageError(f"config.json: linux.namespaces: {kind} is not supported")
    if "mount" not in kinds:
        raise UsageError("config.json: linux.namespaces: a mount namespace is needed to keep the host's mounts clean")
    return kinds


def _map(mappings: tuple[IdMapping, ...]) -> str:
    return "\n".join(f"{each.container_id} {each.host_id} {each.size}" for each in mappings)


def _enter(config: Config) -> str:
    value = config.annotations.get(ENTER_ANNOTATION, Enter.PIVOT_ROOT)
    if value not in Enter:
        raise UsageError(f"config.json: annotations.{ENTER_ANNOTATION}: {value} is not one of {', '.join(Enter)}")
    return value


def _capabilities(names: tuple[str, ...], which: str) -> int:
    try:
        return capabilities.mask(names)
    except KeyError as error:
        raise UsageError(f"config.json: process.capabilities.{which}: {error.args[0]} is unknown") from error


def _rlimit(name: str) -> int:
    number = getattr(resource, name, None)
    if not name.startswith("RLIMIT_") or not isinstance(number, int):
        raise LabError(f"config.json: process.rlimits: {name} is unknown")
    return number
