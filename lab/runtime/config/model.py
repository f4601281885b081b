"""The OCI runtime configuration, typed: runtime-spec 1.0 to 1.3, config.md and config-linux.md.

Every property that Linux containers use is here, in the specification's order and in our spelling; the annotations
are what a value has to be (`lab.runtime.config.scalars`). What the specification knows and lab does not do stands in
``REFUSED`` and is refused by its JSON path, never ignored: a container that is less isolated than its
configuration says is worse than none. Rules that join several properties are in `lab.runtime.config.validate`.
"""

from __future__ import annotations

from lab.record import Record
from lab.runtime.config import schema
from lab.runtime.config.scalars import (
    AbsolutePath,
    Access,
    Architecture,
    Capability,
    Cpus,
    DeviceKind,
    Domain,
    FileMode,
    Int32,
    Int64,
    IoClass,
    MemoryFlag,
    MemoryMode,
    Mode,
    NamespaceKind,
    Nanoseconds,
    Numbers,
    OomScore,
    Operator,
    Percent,
    Policy,
    PolicyFlag,
    Propagation,
    RlimitKind,
    RuleKind,
    SeccompAction,
    SeccompFlag,
    Seconds,
    Text,
    Uint16,
    Uint32,
    Uint64,
    Variable,
    Version,
    Weight,
    Word,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

VERSION = "1.0.2"
"""Of the bundles that lab writes for itself and other runtimes: none asks for more than that version has."""


# The process


class ConsoleSize(Record):
    height: Uint16  # struct winsize holds no more
    width: Uint16


class User(Record):
    REFUSED = {"username": "it is for Windows"}
    uid: Uint32 = 0
    gid: Uint32 = 0
    umask: Mode | None = None
    additional_gids: tuple[Uint32, ...] = ()


class Capabilities(Record):
    bounding: tuple[Capability, ...] = ()
    effective: tuple[Capability, ...] = ()
    permitted: tuple[Capability, ...] = ()
    inheritable: tuple[Capability, ...] = ()
    ambient: tuple[Capability, ...] = ()


class Rlimit(Record):
    type: RlimitKind
    soft: Uint64
    hard: Uint64


class Scheduler(Record):
    """sched_setattr(2); times in nanoseconds."""

    policy: Policy
    nice: Int32 = 0
    priority: Int32 = 0
    flags: tuple[PolicyFlag, ...] = ()
    runtime: Uint64 = 0
    deadline: Uint64 = 0
    period: Uint64 = 0


class IoPriority(Record):
    """ioprio_set(2)."""

    io_class: IoClass  # "class" is a word of Python's
    priority: Int32 = 0


class CpuAffinity(Record):
    """Where a further process runs, before it is in the container's control group and from then on."""

    initial: Numbers = ""
    final: Numbers = ""


class ProcessConfig(Record):
    REQUIRED = ("cwd",)
    REFUSED = {"commandLine": "it is for Windows"}
    args: tuple[Text, ...]
    cwd: AbsolutePath = "/"
    terminal: bool = False
    console_size: ConsoleSize | None = None
    user: User = User()
    env: tuple[Variable, ...] = ()
    capabilities: Capabilities = Capabilities()
    rlimits: tuple[Rlimit, ...] = ()
    no_new_privileges: bool = False
    oom_score_adj: OomScore | None = None
    apparmor_profile: Text = ""
    selinux_label: Text = ""
    scheduler: Scheduler | None = None
    io_priority: IoPriority | None = None
    exec_cpu_affinity: CpuAffinity | None = None


class Absent(ProcessConfig):
    """No process: the container can be created, and other processes executed in it, but not started."""


NO_PROCESS = Absent(args=())


# Files and hooks


class RootConfig(Record):
    REQUIRED = ("path",)
    path: Word = "rootfs"
    readonly: bool = False


class IdMapping(Record):
    container_id: Uint32
    host_id: Uint32
    size: Uint32


class MountConfig(Record):
    destination: Word
    type: Text = "none"
    source: Text = ""
    options: tuple[Text, ...] = ()
    uid_mappings: tuple[IdMapping, ...] = ()
    gid_mappings: tuple[IdMapping, ...] = ()


class Hook(Record):
    path: AbsolutePath
    args: tuple[Text, ...] = ()
    env: tuple[Variable, ...] | None = None  # whose program it is, his: see `lab.runtime.hooks`
    timeout: Seconds | None = None


class Hooks(Record):
    prestart: tuple[Hook, ...] = ()
    create_runtime: tuple[Hook, ...] = ()
    create_container: tuple[Hook, ...] = ()
    start_container: tuple[Hook, ...] = ()
    poststart: tuple[Hook, ...] = ()
    poststop: tuple[Hook, ...] = ()


# Resources: carried out by `lab.runtime.cgroup.resources` and `lab.runtime.cgroup.devices`


class DeviceRule(Record):
    allow: bool
    type: RuleKind = "a"
    major: Int64 | None = None  # None and -1 are any
    minor: Int64 | None = None
    access: Access = "rwm"


class MemoryResources(Record):
    """Bytes; -1 is no limit."""

    limit: Int64 | None = None
    reservation: Int64 | None = None
    swap: Int64 | None = None  # memory included
    kernel: Int64 | None = None
    kernel_tcp: Int64 | None = None
    swappiness: Percent | None = None
    disable_oom_killer: bool | None = None
    use_hierarchy: bool | None = None
    check_before_update: bool | None = None


class CpuResources(Record):
    """Times in microseconds."""

    shares: Uint64 | None = None
    quota: Int64 | None = None
    burst: Uint64 | None = None
    period: Uint64 | None = None
    realtime_runtime: Int64 | None = None
    realtime_period: Uint64 | None = None
    cpus: Cpus = ""
    mems: Cpus = ""
    idle: Int64 | None = None


class PidsResources(Record):
    limit: Int64 | None = None


class WeightDevice(Record):
    major: Int64
    minor: Int64
    weight: Weight | None = None
    leaf_weight: Weight | None = None


class ThrottleDevice(Record):
    """Bytes or operations per second."""

    major: Int64
    minor: Int64
    rate: Uint64


class BlockIoResources(Record):
    weight: Weight | None = None
    leaf_weight: Weight | None = None
    weight_device: tuple[WeightDevice, ...] = ()
    throttle_read_bps_device: tuple[ThrottleDevice, ...] = ()
    throttle_write_bps_device: tuple[ThrottleDevice, ...] = ()
    throttle_read_iops_device: tuple[ThrottleDevice, ...] = ()
    throttle_write_iops_device: tuple[ThrottleDevice, ...] = ()


class HugepageLimit(Record):
    page_size: Word  # 2MB, 1GB
    limit: Uint64  # bytes


class InterfacePriority(Record):
    name: Word
    priority: Uint32


class NetworkResources(Record):
    class_id: Uint32 | None = None
    priorities: tuple[InterfacePriority, ...] = ()


class RdmaLimit(Record):
    hca_handles: Uint32 | None = None
    hca_objects: Uint32 | None = None


class Resources(Record):
    devices: tuple[DeviceRule, ...] = ()
    memory: MemoryResources | None = None
    cpu: CpuResources | None = None
    pids: PidsResources | None = None
    block_io: BlockIoResources | None = None
    hugepage_limits: tuple[HugepageLimit, ...] = ()
    network: NetworkResources | None = None
    rdma: Mapping[str, RdmaLimit] = {}
    unified: Mapping[str, str] = {}  # a cgroup v2 file: its content


# The system-call filter: compiled by `lab.runtime.seccomp.compiler`


class SeccompArgument(Record):
    index: Uint32
    value: Uint64
    op: Operator
    value_two: Uint64 = 0


class SeccompRule(Record):
    names: tuple[Word, ...]
    action: SeccompAction
    errno_ret: Uint32 | None = None
    args: tuple[SeccompArgument, ...] = ()


class Seccomp(Record):
    default_action: SeccompAction
    default_errno_ret: Uint32 | None = None
    architectures: tuple[Architecture, ...] = ()
    flags: tuple[SeccompFlag, ...] = ()
    listener_path: Text = ""
    listener_metadata: Text = ""
    syscalls: tuple[SeccompRule, ...] = ()


# Linux


class Namespace(Record):
    type: NamespaceKind
    path: Text = ""  # join this one; a new one when empty


class TimeOffset(Record):
    secs: Int64 = 0
    nanosecs: Nanoseconds = 0


class Device(Record):
    """A node to make; unlike the rules in `Resources`, it grants nothing."""

    type: DeviceKind
    path: AbsolutePath
    major: Int64 | None = None
    minor: Int64 | None = None
    file_mode: FileMode | None = None  # the kind of file may be in it, as podman has it
    uid: Uint32 = 0
    gid: Uint32 = 0


class Personality(Record):
    domain: Domain
    flags: tuple[str, ...] = ()


class MemoryPolicy(Record):
    """set_mempolicy(2)."""

    mode: MemoryMode
    nodes: Numbers = ""
    flags: tuple[MemoryFlag, ...] = ()


class IntelRdt(Record):
    """Carried out by `lab.runtime.cgroup.resctrl`."""

    clos_id: Text = ""
    l3_cache_schema: Text = ""
    mem_bw_schema: Text = ""
    schemata: tuple[Text, ...] = ()
    enable_monitoring: bool = False
    enable_cmt: bool = False  # both of 1.1 and 1.2 alone, where nobody knew what they mean
    enable_mbm: bool = False


class NetDevice(Record):
    """Carried out by `lab.runtime.oci.netdevices`."""

    name: Text = ""  # inside; the host's when empty


class Linux(Record):
    namespaces: tuple[Namespace, ...] = ()
    uid_mappings: tuple[IdMapping, ...] = ()
    gid_mappings: tuple[IdMapping, ...] = ()
    time_offsets: Mapping[str, TimeOffset] = {}
    devices: tuple[Device, ...] = ()
    cgroups_path: Text = ""
    resources: Resources = Resources()
    rootfs_propagation: Propagation | None = None
    seccomp: Seccomp | None = None
    sysctl: Mapping[str, Text] = {}
    masked_paths: tuple[AbsolutePath, ...] = ()
    readonly_paths: tuple[AbsolutePath, ...] = ()
    mount_label: Text = ""
    personality: Personality | None = None
    memory_policy: MemoryPolicy | None = None
    intel_rdt: IntelRdt | None = None
    net_devices: Mapping[str, NetDevice] = {}


ELSEWHERE = "lab runs Linux containers"


class Config(Record):
    """One container, as its config.json says."""

    REQUIRED = ("ociVersion", "root")
    REFUSED = dict.fromkeys(("solaris", "windows", "vm", "zos", "freebsd"), ELSEWHERE)
    process: ProcessConfig = NO_PROCESS
    oci_version: Version = VERSION
    root: RootConfig = RootConfig()
    hostname: Text = ""
    domainname: Text = ""
    mounts: tuple[MountConfig, ...] = ()
    hooks: Hooks = Hooks()
    annotations: Mapping[str, Text] = {}
    linux: Linux = Linux()


def to_json(config: Record) -> dict[str, Any]:
    """A configuration, or a part of one, as config.json holds it; what is empty or absent is left out."""
    value = schema.write(config)
    assert isinstance(value, dict)
    return value


def from_json(value: Any, unknown: Callable[[str], None] = schema.refuse) -> Config:
    """Read a parsed config.json, and check each property for itself; `lab.runtime.config.validate` does the rest.

    Raises UsageError with the JSON path of what is wrong or not supported, and what was expected. ``unknown`` is
    told the path of any property the specification doesn't know: it asks runtimes to log and to ignore those
    (config.md, "Extensibility").
    """
    found = schema.read(Config, value, "", unknown)
    assert isinstance(found, Config)
    return found


def process_from_json(value: Any, unknown: Callable[[str], None] = schema.refuse) -> ProcessConfig:
    """The same for a ``process`` by itself, as ``exec --process`` takes one."""
    found = schema.read(ProcessConfig, value, "process", unknown)
    assert isinstance(found, ProcessConfig)
    return found
