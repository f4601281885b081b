"""From an OCI configuration to the plan that the small process carries out. Pure, but for the seccomp compiler."""

from __future__ import annotations

import binascii
import resource

from lab.errors import UsageError
from lab.host import syscalls
from lab.host.syscalls import MS_PRIVATE, MS_REC, MS_SHARED, MS_SLAVE
from lab.runtime.config import capabilities, mountoptions, schema, validate
from lab.runtime.plan import CgroupsPlan, Enter, Plan, ProcessPlan
from lab.runtime.planning import files, lsm
from lab.runtime.planning.files import masks, operations
from lab.runtime.rootfs.mounts import Bind, DirectoryRoot, FileSystem

__all__ = ["joined_flags", "masks", "operations", "plan", "process_plan"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from lab.runtime.config.model import (
        Config,
        CpuAffinity,
        IoPriority,
        Linux,
        MemoryPolicy,
        Personality,
        ProcessConfig,
        Scheduler,
        Seccomp,
    )
    from lab.runtime.rootfs.mounts import Operation

NAMESPACES = {
    "mount": syscalls.CLONE_NEWNS,
    "uts": syscalls.CLONE_NEWUTS,
    "ipc": syscalls.CLONE_NEWIPC,
    "pid": syscalls.CLONE_NEWPID,
    "network": syscalls.CLONE_NEWNET,
    "user": syscalls.CLONE_NEWUSER,
    "cgroup": syscalls.CLONE_NEWCGROUP,
    "time": syscalls.CLONE_NEWTIME,
}
JOINED = ("uts", "ipc", "network", "cgroup", "time")  # by setns(2), see `lab.runtime.container.outside`
NOT_BY_CLONE = ("cgroup", "time")  # made in other ways, see `lab.runtime.container` and `lab.runtime.init`

INFINITE = (1 << 64) - 1  # an rlimit in JSON; RLIM_INFINITY is -1 in Python
RLIMIT_LOCKS = 10  # asm-generic/resource.h; Python leaves it out
POLICIES = {
    "SCHED_OTHER": 0, "SCHED_FIFO": 1, "SCHED_RR": 2, "SCHED_BATCH": 3, "SCHED_ISO": 4, "SCHED_IDLE": 5,
    "SCHED_DEADLINE": 6,
}  # fmt: skip
POLICY_FLAGS = {
    "SCHED_FLAG_RESET_ON_FORK": 0x01, "SCHED_FLAG_RECLAIM": 0x02, "SCHED_FLAG_DL_OVERRUN": 0x04,
    "SCHED_FLAG_KEEP_POLICY": 0x08, "SCHED_FLAG_KEEP_PARAMS": 0x10, "SCHED_FLAG_UTIL_CLAMP_MIN": 0x20,
    "SCHED_FLAG_UTIL_CLAMP_MAX": 0x40,
}  # fmt: skip
IO_CLASSES = {"IOPRIO_CLASS_RT": 1, "IOPRIO_CLASS_BE": 2, "IOPRIO_CLASS_IDLE": 3}
MEMORY_MODES = {
    "MPOL_DEFAULT": 0, "MPOL_PREFERRED": 1, "MPOL_BIND": 2, "MPOL_INTERLEAVE": 3, "MPOL_LOCAL": 4,
    "MPOL_PREFERRED_MANY": 5, "MPOL_WEIGHTED_INTERLEAVE": 6,
}  # fmt: skip
MEMORY_FLAGS = {"MPOL_F_STATIC_NODES": 1 << 15, "MPOL_F_RELATIVE_NODES": 1 << 14, "MPOL_F_NUMA_BALANCING": 1 << 13}
PERSONAS = {"LINUX": 0x0000, "LINUX32": 0x0008}  # personality(2)


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
    bundle: str = "",
    cgroup_directories: Mapping[str, str] | None = None,
    enter: str = Enter.PIVOT_ROOT,
) -> Plan:
    """Everything `lab.runtime.container.start` needs to know.

    ``root`` is mounted on its ``target``. ``cgroup_controllers`` name the v1 hierarchies to show inside, empty
    on v2; for ``bundle`` and ``cgroup_directories`` see `lab.runtime.planning.files.operations`. ``enter`` comes
    from the caller alone: podman copies an image's annotations into the configuration, so nothing that weakens the
    boundary may be read there. Raises UsageError for what `lab.runtime.config.validate` finds and what lab does not
    do.
    """
    validate.check(config)
    lsm.mount_label(config, "")
    linux = config.linux
    own_users = any(space.type == "user" for space in linux.namespaces)
    if not validate.own_mounts(linux):
        if not isinstance(root, DirectoryRoot):
            raise schema.error("linux.namespaces", "has no new mount namespace, in which the layers are put together")
        enter = Enter.IN_PLACE
    made = {space.type for space in linux.namespaces if not space.path}
    mounted = operations(
        config,
        cgroup_controllers,
        bundle=bundle,
        cgroup_directories=cgroup_directories,
        grouped=bool(cgroups.unified or cgroups.tasks),
    )
    return Plan(
        name=name,
        clone_flags=sum(NAMESPACES[kind] for kind in made if kind not in NOT_BY_CLONE),
        cgroup_namespace="cgroup" in made,
        joins=_given(linux, "mount", *(() if own_users else JOINED)),
        joined_first=_given(linux, *JOINED) if own_users else (),
        born_in=_given(linux, "pid"),
        new_time="time" in made,
        time_offsets="\n".join(f"{kind} {each.secs} {each.nanosecs}" for kind, each in linux.time_offsets.items()),
        uid_map=files.id_map(linux.uid_mappings) if "user" in made else "",
        gid_map=files.id_map(linux.gid_mappings) if "user" in made else "",
        cgroups=cgroups,
        mount_point=root.target,
        root=root.to_json(),
        mounts=[operation.to_json() for operation in mounted],
        own_users=own_users,
        users="".join([space.path for space in linux.namespaces if space.type == "user"]),
        trees=own_users or any(isinstance(operation, Bind | FileSystem) and operation.tree for operation in mounted),
        masks=[operation.to_json() for operation in masks(config)],
        propagation=_propagation(linux),
        root_propagation=mountoptions.PROPAGATION[linux.rootfs_propagation] if linux.rootfs_propagation else 0,
        read_only_root=config.root.readonly,
        enter=enter,
        hostname=config.hostname,
        domainname=config.domainname,
        loopback_up="network" in made,
        sysctls=dict(linux.sysctl),
        hooks=_hooks(config),
        state=state(config, name, bundle),
        process=process_plan(config, init=init, helper=helper, known=state(config, name, bundle)),
        hold=hold,
        fail_at=fail_at,
    )


def process_plan(
    config: Config,
    *,
    init: bool,
    process: ProcessConfig | None = None,
    helper: Sequence[str] = (),
    known: dict[str, object] | None = None,
) -> ProcessPlan:
    """The process of ``config``, or another ``process`` behind the same boundary.

    ``known`` is the container's `state`, for the agent that is notified of system calls; a profile with one can't do
    without it.
    """
    beside = process is not None
    process = process or config.process
    own_users = any(space.type == "user" for space in config.linux.namespaces)
    sets, size = validate.grantable(process, own_users=own_users), process.console_size
    profile = config.linux.seccomp
    return ProcessPlan(
        argv=list(process.args),
        environment=list(process.env),
        directory=process.cwd,
        uid=process.user.uid,
        gid=process.user.gid,
        groups=list(process.user.additional_gids),
        umask=0o022 if process.user.umask is None else process.user.umask,
        bounding=capabilities.mask(sets.bounding),
        effective=capabilities.mask(sets.effective),
        permitted=capabilities.mask(sets.permitted),
        inheritable=capabilities.mask(sets.inheritable),
        ambient=capabilities.mask(sets.ambient),
        rlimits=[[_rlimit(each.type), _bound(each.soft), _bound(each.hard)] for each in process.rlimits],
        no_new_privileges=process.no_new_privileges,
        **(_filter(profile, known) if profile else {"seccomp": ""}),
        oom_score_adj=process.oom_score_adj,
        init=init,
        helper=list(helper),
        terminal=process.terminal,
        console_size=[size.height, size.width] if size else None,
        scheduler=_scheduler(process.scheduler) if process.scheduler else None,
        io_priority=_io_priority(process.io_priority) if process.io_priority else None,
        persona=_persona(config.linux.personality) if config.linux.personality else None,
        exec_label=lsm.exec_label(process),
        memory_policy=_memory_policy(config.linux.memory_policy) if config.linux.memory_policy else None,
        affinity=_affinity(process.exec_cpu_affinity) if beside and process.exec_cpu_affinity else None,
    )


def system_call_filter(config: Config) -> dict[str, Any]:
    """The fields of a `ProcessPlan` that are its filter, compiled by themselves; for a profile without an agent."""
    profile = config.linux.seccomp
    return _filter(profile, None) if profile else {}


def state(config: Config, name: str, bundle: str) -> dict[str, object]:
    """The container's state for hooks, but for its pid (runtime.md, "State")."""
    found: dict[str, object] = {
        "ociVersion": config.oci_version,
        "id": name,
        "status": "creating",
        "bundle": bundle,
    }
    return found | ({"annotations": dict(config.annotations)} if config.annotations else {})


def joined_flags(config: Config) -> int:
    """The namespaces that are not lab's own: what a further process has to join."""
    return sum(NAMESPACES[space.type] for space in config.linux.namespaces)


def _given(linux: Linux, *kinds: str) -> list[list[Any]]:
    """The namespaces of these kinds that are given by path, with their flags."""
    return [[space.path, NAMESPACES[space.type]] for space in linux.namespaces if space.path and space.type in kinds]


def _propagation(linux: Linux) -> int:
    """Between the host's mounts and the container's copies, until the root is entered.

    Unbindable would forbid bind mounts of them: those are private until then.
    """
    kind = (linux.rootfs_propagation or "rslave").removeprefix("r")
    return MS_REC | {"shared": MS_SHARED, "slave": MS_SLAVE}.get(kind, MS_PRIVATE)


def _hooks(config: Config) -> dict[str, list[dict[str, Any]]]:
    """Those that run before the application, by name."""
    hooks = schema.write(config.hooks)
    assert isinstance(hooks, dict)
    return {name: found for name, found in hooks.items() if name not in ("poststart", "poststop")}


def _filter(profile: Seccomp, known: dict[str, object] | None) -> dict[str, Any]:
    from lab.runtime.seccomp import compiler

    agent = None
    flags = compiler.flags(profile)
    if flags & compiler.NEW_LISTENER:
        if known is None:
            raise UsageError(
                "config.json: linux.seccomp.listenerPath is not supported for a process beside the first"
            )
        agent = {"path": profile.listener_path, "metadata": profile.listener_metadata, "state": known}
    program = binascii.b2a_base64(compiler.compile(profile), newline=False).decode()
    return {"seccomp": program, "seccomp_flags": flags, "agent": agent}


def _rlimit(name: str) -> int:
    return RLIMIT_LOCKS if name == "RLIMIT_LOCKS" else int(getattr(resource, name))


def _bound(value: int) -> int:
    return resource.RLIM_INFINITY if value == INFINITE else value


def _scheduler(wanted: Scheduler) -> dict[str, int]:
    return {
        "policy": POLICIES[wanted.policy],
        "flags": sum({POLICY_FLAGS[flag] for flag in wanted.flags}),
        "nice": wanted.nice,
        "priority": wanted.priority,
        "runtime": wanted.runtime,
        "deadline": wanted.deadline,
        "period": wanted.period,
    }


def _io_priority(wanted: IoPriority) -> list[int]:
    return [IO_CLASSES[wanted.io_class], wanted.priority]


def _memory_policy(wanted: MemoryPolicy) -> list[int]:
    mode = MEMORY_MODES[wanted.mode] | sum({MEMORY_FLAGS[flag] for flag in wanted.flags})
    return [mode, sum(1 << node for node in numbers(wanted.nodes))]


def _affinity(wanted: CpuAffinity) -> list[list[int]]:
    return [numbers(wanted.initial), numbers(wanted.final)]


def numbers(text: str) -> list[int]:
    """Those of a list: ``0-2,7`` → 0, 1, 2, 7."""
    found: set[int] = set()
    for part in text.split(",") if text else ():
        first, _, last = part.strip().partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return sorted(found)


def _persona(wanted: Personality) -> int:
    return PERSONAS[wanted.domain]
