"""Rules of the specification that join several properties of a configuration, checked before anything is made.

What a single property has to be, `lab.runtime.config.model` says. Each complaint begins with the JSON path of what is
wrong and says what was expected. Sources: config.md, config-linux.md, and the man pages of what they configure.
"""

from __future__ import annotations

import os

from lab.host.identity.ownspace import MOST_ID
from lab.runtime import versions
from lab.runtime.config import capabilities, mountoptions, schema
from lab.runtime.config.model import NO_PROCESS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from lab.runtime.config.model import Capabilities, Config, Linux, ProcessConfig

IN_PROC = frozenset(
    f"/proc/{name}"
    for name in (
        "cpuinfo", "diskstats", "meminfo", "stat", "swaps", "uptime", "loadavg", "slabinfo",
        "sys/kernel/ns_last_pid", "sys/crypto/fips_enabled", "net/dev",
    )
)  # fmt: skip

MOST_MAPPINGS = 340  # lines of uid_map (user_namespaces(7))
OF_PROC = {"network": "net"}  # names below /proc/PID/ns
CLOCKS = ("monotonic", "boottime")
OF_IPC = ("kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem", "kernel.shmall", "kernel.shmmax",
          "kernel.shmmni", "kernel.shm_rmid_forced", "kernel.msg_next_id", "kernel.sem_next_id",
          "kernel.shm_next_id", "kernel.auto_msgmni")  # fmt: skip


def check(config: Config) -> None:
    """Raises UsageError for the first rule that is broken."""
    kinds = _namespaces(config.linux)
    if config.process != NO_PROCESS:
        check_process(config.process)
    _mounts(config)
    _names(config, kinds)
    _user_namespace(config.linux, kinds)
    _clocks(config.linux)
    _sysctls(config, kinds)
    _devices(config.linux)
    _seccomp(config.linux)
    _resources(config.linux)
    _memory_policy(config.linux)
    _intel_rdt(config.linux)
    _net_devices(config.linux, kinds)
    if "" in config.annotations:
        raise schema.error("annotations", "has an empty key")
    if config.linux.personality and config.linux.personality.flags:
        raise schema.error("linux.personality.flags", "is not empty: the specification defines none")


def check_process(process: ProcessConfig) -> None:
    """The rules of a process, the container's first or a further one."""
    if not process.args:
        raise schema.error("process.args", "is empty: at least a program is needed")
    if not process.args[0]:
        raise schema.error("process.args[0]", "is empty: not the name of a program")
    user = process.user
    ids = {"uid": user.uid, "gid": user.gid}
    ids |= {f"additionalGids[{number}]": gid for number, gid in enumerate(user.additional_gids)}
    for name, number in ids.items():
        if number > MOST_ID:
            raise schema.error(f"process.user.{name}", f"is above {MOST_ID}: {number}")
    _distinct("process.rlimits", [limit.type for limit in process.rlimits])
    for number, limit in enumerate(process.rlimits):
        if limit.soft > limit.hard:
            raise schema.error(f"process.rlimits[{number}].soft", f"is more than hard: {limit.soft} > {limit.hard}")
    sets = process.capabilities
    known = [name for name in sets.effective if name in capabilities.NAMES]
    _within("process.capabilities.effective", known, "permitted", sets.permitted)
    if process.apparmor_profile and process.selinux_label:
        raise schema.error("process.selinuxLabel", "is given beside apparmorProfile: a host has one of them")
    if process.io_priority and not 0 <= process.io_priority.priority <= 7:
        raise schema.error("process.ioPriority.priority", f"is not from 0 to 7: {process.io_priority.priority}")
    if process.scheduler and not -20 <= process.scheduler.nice <= 19:
        raise schema.error("process.scheduler.nice", f"is not from -20 to 19: {process.scheduler.nice}")


def warnings(config: Config) -> list[str]:
    """What is asked for and can't be had, or means nothing: it is told, and no failure (runtime.md, "Warnings")."""
    found = warnings_of(config.process, own_users=any(space.type == "user" for space in config.linux.namespaces))
    if not versions.reaches(versions.NEWEST, config.oci_version):
        found.append(f"ociVersion {config.oci_version} is later than {versions.NEWEST}: what it adds is unknown here")
    if config.linux.intel_rdt and (config.linux.intel_rdt.enable_cmt or config.linux.intel_rdt.enable_mbm):
        found.append("linux.intelRdt.enableCMT and enableMBM are ignored: since 1.3 it is enableMonitoring")
    for number, mount in enumerate(config.mounts):
        if mount.type == "bind" or "bind" in mount.options or "rbind" in mount.options:
            words = ", ".join(mountoptions.parse(mount.options).misplaced)
            if words:
                found.append(f"mounts[{number}].options: {words}: left out, means nothing for a bind mount")
    return found


def warnings_of(process: ProcessConfig, *, own_users: bool) -> list[str]:
    """The same for one process: capabilities that can't be granted, or that nobody knows. `grantable` are the sets
    without them.
    """
    granted = grantable(process, own_users=own_users)
    return [
        f"process.capabilities.{name}: {capability} can't be granted"
        for name in type(granted).fields
        for capability in sorted(set(getattr(process.capabilities, name)) - set(getattr(granted, name)))
    ]


def grantable(process: ProcessConfig, *, own_users: bool = False) -> Capabilities:
    """The sets without what this process doesn't hold itself, and without ambient capabilities that are not
    permitted and inheritable as well (capabilities(7)). ``own_users``: in a user namespace all are there.
    """
    sets = process.capabilities
    held = frozenset(capabilities.NAMES if own_users else capabilities.held())
    inherited = held & set(sets.permitted) & set(sets.inheritable)
    limits = {"ambient": inherited}
    found = {name: _only(getattr(sets, name), limits.get(name, held)) for name in type(sets).fields}
    return type(sets)(**found)


def _only(names: tuple[str, ...], some: frozenset[str]) -> tuple[str, ...]:
    return tuple([name for name in names if name in some])


def _namespaces(linux: Linux) -> set[str]:
    kinds = [space.type for space in linux.namespaces]
    _distinct("linux.namespaces", kinds)
    for number, space in enumerate(linux.namespaces):
        path = f"linux.namespaces[{number}]"
        if space.path and not space.path.startswith("/"):
            raise schema.error(f"{path}.path", f"is not an absolute path: {schema.short(space.path)}")
    return set(kinds)


def own_mounts(linux: Linux) -> bool:
    """Whether there is a new mount namespace. Without, the container is in the runtime's, or in the one given."""
    return any(space.type == "mount" and not space.path for space in linux.namespaces)


def _in_proc(config: Config) -> None:
    """What is masked and read-only below /proc, and its settings, are the kernel's: nothing else may stand for them.
    What may, files that lxcfs makes, are those of runc.
    """
    for number, mount in enumerate(config.mounts):
        place = os.path.normpath("/" + mount.destination.lstrip("/"))
        is_the_kernels = mount.type == "proc" or mount.source == "/proc"
        if (place == "/proc" and not is_the_kernels) or (place.startswith("/proc/") and place not in IN_PROC):
            raise schema.error(f"mounts[{number}].destination", f"is inside /proc: {schema.short(mount.destination)}")


def _mounts(config: Config) -> None:
    """Nothing may be mounted in a mount namespace that others are in: it would be theirs, and stay when the container
    is gone.
    """
    _in_proc(config)
    linux = config.linux
    if own_mounts(linux):
        return
    own_users = any(space.type == "user" for space in linux.namespaces)
    given_by_path = any(space.type == "mount" for space in linux.namespaces)
    if given_by_path and config.hooks.create_container:  # it would be looked up among that one's files
        raise schema.error("hooks.createContainer", "is a program of the host's, which another mount namespace hides")
    for name, given in (
        ("mounts", config.mounts),
        ("root.readonly", config.root.readonly),
        ("process.terminal", config.process.terminal),
        ("linux.maskedPaths", linux.masked_paths),
        ("linux.readonlyPaths", linux.readonly_paths),
        ("linux.rootfsPropagation", linux.rootfs_propagation),
        ("linux.devices", linux.devices if own_users else ()),
    ):
        if given:
            raise schema.error(name, "takes a new mount namespace: in another one it would be everybody's")


def _names(config: Config, kinds: set[str]) -> None:
    for name, value in (("hostname", config.hostname), ("domainname", config.domainname)):
        if value and "uts" not in kinds:
            raise schema.error(name, "is given without a uts namespace: it would be the host's")
        if value:
            _refuse_the_hosts(config, "uts", name)
        if len(value.encode()) > 64:
            raise schema.error(name, "is longer than 64 bytes (uname(2))")


def _user_namespace(linux: Linux, kinds: set[str]) -> None:
    given = any(space.path for space in linux.namespaces if space.type == "user")
    for name, mappings in (("uidMappings", linux.uid_mappings), ("gidMappings", linux.gid_mappings)):
        if mappings and "user" not in kinds:
            raise schema.error(f"linux.{name}", "is given without a user namespace")
        if mappings and given:
            raise schema.error(f"linux.{name}", "is given for a user namespace that has its own")
        if not mappings and "user" in kinds and not given:
            raise schema.error(f"linux.{name}", "is missing: a new user namespace has to be told its ids")
        if len(mappings) > MOST_MAPPINGS:
            raise schema.error(f"linux.{name}", f"has more than {MOST_MAPPINGS} entries (user_namespaces(7))")


def _clocks(linux: Linux) -> None:
    if linux.time_offsets and not any(space.type == "time" and not space.path for space in linux.namespaces):
        raise schema.error("linux.timeOffsets", "is given without a new time namespace")
    for name in linux.time_offsets:
        if name not in CLOCKS:
            raise schema.error(f"linux.timeOffsets.{name}", f"is no clock with an offset: {', '.join(CLOCKS)}")


def _sysctls(config: Config, kinds: set[str]) -> None:
    """Only what a namespace has for itself: everything else would change the host."""
    for name in config.linux.sysctl:
        plain = name.replace("/", ".")
        path = f"linux.sysctl.{name}"
        if ".." in plain or plain.startswith("."):
            raise schema.error(path, "is no name of a setting")
        if plain in ("kernel.hostname", "kernel.domainname"):
            wanted, other = "uts", plain.removeprefix("kernel.")
            if other == "hostname":
                raise schema.error(path, "is not set this way: hostname does it")
            if config.domainname and config.domainname != config.linux.sysctl[name]:
                raise schema.error(path, f"is not what domainname says: {schema.short(config.domainname)}")
        elif plain.startswith("net."):
            wanted = "network"
        elif plain in OF_IPC or plain.startswith("fs.mqueue."):
            wanted = "ipc"
        elif plain.startswith("user.") and "user" in kinds:
            wanted = "user"
        else:
            raise schema.error(path, "is no setting that a namespace has for itself: it would be the host's")
        if wanted not in kinds:
            raise schema.error(path, f"is given without {wanted} namespace: it would be the host's")
        _refuse_the_hosts(config, wanted, path)


def _refuse_the_hosts(config: Config, kind: str, what: str) -> None:
    """A namespace given by path may be the one that this process is in: then ``what`` would change the host's."""
    for number, space in enumerate(config.linux.namespaces):
        if space.type == kind and space.path and _is_our_own(space.path, kind):
            raise schema.error(what, f"would be the host's: linux.namespaces[{number}].path is its {kind} namespace")


def _is_our_own(path: str, kind: str) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.stat(f"/proc/self/ns/{OF_PROC.get(kind, kind)}"))
    except OSError:
        return False  # that there is none is told when it is to be joined


def _devices(linux: Linux) -> None:
    _distinct("linux.devices", [device.path.rstrip("/") for device in linux.devices])
    for number, device in enumerate(linux.devices):
        for name, value in (("major", device.major), ("minor", device.minor)):
            if value is None and device.type != "p":
                raise schema.error(f"linux.devices[{number}].{name}", "is missing: an integer")


def _seccomp(linux: Linux) -> None:
    profile = linux.seccomp
    if profile is None:
        return
    notifies = [profile.default_action, *(rule.action for rule in profile.syscalls)]
    if profile.listener_metadata and not profile.listener_path:
        raise schema.error("linux.seccomp.listenerMetadata", "is given without listenerPath")
    if "SCMP_ACT_NOTIFY" in notifies and not profile.listener_path:
        raise schema.error("linux.seccomp.listenerPath", "is missing: SCMP_ACT_NOTIFY needs somebody to notify")
    for number, rule in enumerate(profile.syscalls):
        path = f"linux.seccomp.syscalls[{number}]"
        if not rule.names:
            raise schema.error(f"{path}.names", "is empty: at least one system call is needed")
        for place, argument in enumerate(rule.args):
            if argument.index > 5:
                raise schema.error(f"{path}.args[{place}].index", f"is not from 0 to 5: {argument.index}")


def _resources(linux: Linux) -> None:
    memory = linux.resources.memory
    if memory and memory.limit and memory.swap and 0 < memory.swap < memory.limit:
        raise schema.error("linux.resources.memory.swap", "is less than limit, which it includes")
    for name, content in linux.resources.unified.items():
        if "/" in name or "." not in name:
            raise schema.error(f"linux.resources.unified.{name}", f"is no file of cgroup v2: {schema.short(content)}")


def _memory_policy(linux: Linux) -> None:
    """set_mempolicy(2)."""
    policy = linux.memory_policy
    if policy is None:
        return
    if policy.mode in ("MPOL_DEFAULT", "MPOL_LOCAL") and policy.nodes:
        raise schema.error("linux.memoryPolicy.nodes", f"is given for {policy.mode}, which has none")
    if policy.mode not in ("MPOL_DEFAULT", "MPOL_LOCAL", "MPOL_PREFERRED") and not policy.nodes:
        raise schema.error("linux.memoryPolicy.nodes", f"is missing: {policy.mode} needs at least one")
    if {"MPOL_F_STATIC_NODES", "MPOL_F_RELATIVE_NODES"} <= set(policy.flags):
        raise schema.error("linux.memoryPolicy.flags", "has both of STATIC_NODES and RELATIVE_NODES")


def _intel_rdt(linux: Linux) -> None:
    wanted = linux.intel_rdt
    if wanted is None:
        return
    name = wanted.clos_id
    if name != "/" and ("/" in name or name in (".", "..", "info", "mon_groups", "mon_data")):
        raise schema.error("linux.intelRdt.closID", f"is not the name of a class: {schema.short(name)}")
    if wanted.mem_bw_schema and (not wanted.mem_bw_schema.startswith("MB:") or "\n" in wanted.mem_bw_schema):
        raise schema.error("linux.intelRdt.memBwSchema", "is not one line that begins with MB:")
    for number, line in enumerate(wanted.schemata):
        if not line or "\n" in line:
            raise schema.error(f"linux.intelRdt.schemata[{number}]", "is not one line")


def _net_devices(linux: Linux, kinds: set[str]) -> None:
    if not linux.net_devices:
        return
    if "network" not in kinds:
        raise schema.error("linux.netDevices", "is given without a network namespace: they are there already")
    inside = [device.name or name for name, device in linux.net_devices.items()]
    for name, new in zip(linux.net_devices, inside, strict=True):
        path = f"linux.netDevices.{name}"
        for word in (name, new):
            if not 0 < len(word.encode()) < 16 or word in (".", "..") or set(word) & set("/: \t\n"):
                raise schema.error(path, f"is not a network device's name of at most 15 bytes: {schema.short(word)}")
        if "%" in name or new.count("%") > 1 or new.count("%") != new.count("%d"):
            raise schema.error(path, "has a % that is not the one %d for the kernel to fill in")
    _distinct("linux.netDevices", [name for name in inside if "%" not in name])


def _distinct(path: str, names: list[str]) -> None:
    for number, name in enumerate(names):
        if name in names[:number]:
            raise schema.error(f"{path}[{number}]", f"is there twice: {name}")


def _within(path: str, names: Iterable[str], other: str, others: Iterable[str]) -> None:
    held = set(others)
    for name in names:
        if name not in held:
            raise schema.error(path, f"has {name}, which {other} has not (capabilities(7))")
