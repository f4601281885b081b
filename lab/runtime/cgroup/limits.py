"""What an OCI configuration's resources mean in the files of cgroup v1 and of v2. Pure: files by name, with values.

Each value of the configuration becomes a `Setting`, or a LimitError that names it, where the version in use has
nothing like it: what can't be carried out is refused, never ignored, but for the two limits of the kernel's own
memory (`ignored`). As with runc, 0 means "not set" for a memory limit, shares, a quota, a period, a number of
processes and a weight; -1 means "no limit". "No swap on top" and "no limit on it" need no file for swap, which a
kernel that doesn't account for it hasn't got.

Sources: runtime-spec config-linux.md, cgroup-v1/*.rst, cgroup-v2.rst.
"""

from __future__ import annotations

from lab.errors import LimitError, UsageError
from lab.host.cgroup.group import DOCTOR
from lab.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab.host.cgroup.mounted import Mounted
    from lab.runtime.config.model import (
        BlockIoResources,
        CpuResources,
        MemoryResources,
        NetworkResources,
        RdmaLimit,
        Resources,
        ThrottleDevice,
        WeightDevice,
    )

UNLIMITED = -1
USUAL_PERIOD = 100_000  # microseconds
SMALLEST_QUOTA = 1_000


class Setting(Record):
    """One file to write."""

    name: str  # in the configuration, below linux.resources
    controller: str
    ways: tuple[tuple[str, str], ...]  # file and value; of several the first whose file there is
    optional: bool = False  # a kernel without the file does as well
    within_parents: bool = False  # no parent may have less


def settings(resources: Resources, host: Mounted) -> list[Setting]:
    """Everything but the devices, in the order to write it. Raises LimitError, UsageError."""
    check(resources)
    return list(_settings(resources, host))


def _settings(resources: Resources, host: Mounted) -> Iterator[Setting]:
    """Each controller in the version in which ``host`` has it."""
    if resources.memory:
        yield from _v2_memory(resources.memory) if host.on_v2("memory") else _v1_memory(resources.memory)
    if resources.cpu:
        yield from _v2_cpu(resources.cpu) if host.on_v2("cpu") else _v1_cpu(resources.cpu)
        yield from _cpuset(resources.cpu)
    if resources.pids:
        yield from _pids(resources.pids.limit)
    if resources.block_io:
        yield from _v2_block_io(resources.block_io) if host.on_v2("io") else _v1_block_io(resources.block_io)
    for each in resources.hugepage_limits:
        yield from _huge_pages(each.page_size, each.limit, "max" if host.on_v2("hugetlb") else "limit_in_bytes")
    if resources.network:
        yield from _network(resources.network)
    for device, limit in resources.rdma.items():
        yield _rdma(device, limit)
    for file, value in resources.unified.items():
        yield from _unified(file, value, host)


def check(resources: Resources) -> None:
    """Refuse what contradicts itself."""
    memory, cpu = resources.memory, resources.cpu
    if memory and memory.limit and memory.swap and 0 < memory.swap < memory.limit:
        raise UsageError(
            f"linux.resources.memory.swap: {memory.swap} is less than the limit of {memory.limit}",
            hint="it counts memory and swap together",
        )
    if cpu and cpu.quota and cpu.burst and 0 < cpu.quota < cpu.burst:
        raise UsageError(f"linux.resources.cpu.burst: {cpu.burst} is more than the quota of {cpu.quota}")
    if resources.block_io:
        for number, each in enumerate(resources.block_io.weight_device):
            if not each.weight and not each.leaf_weight:
                raise UsageError(f"linux.resources.blockIO.weightDevice[{number}]: neither weight nor leafWeight")


def ignored(resources: Resources) -> list[str]:
    """What is asked for and not carried out, a warning each. The specification advises against both limits; the
    kernel has given up the first (cgroup-v1/memory.rst, "Kernel Memory Extension"); runc and crun ignore both.
    """
    memory = resources.memory
    values = {"kernel": memory.kernel, "kernelTCP": memory.kernel_tcp} if memory else {}
    return [
        f"linux.resources.memory.{name} is ignored: limit counts the kernel's memory, too"
        for name, value in values.items()
        if value and value != UNLIMITED
    ]


# Version 1


def _v1_memory(memory: MemoryResources) -> Iterator[Setting]:
    swap = memory.swap
    if memory.limit == UNLIMITED and not swap:
        swap = UNLIMITED  # else the old limit of both together would still limit the one
    for name, value, file in (
        ("limit", memory.limit, "memory.limit_in_bytes"),
        ("swap", swap, "memory.memsw.limit_in_bytes"),
        ("reservation", memory.reservation, "memory.soft_limit_in_bytes"),
    ):
        if value:
            absent = (value == UNLIMITED and name != "limit") or (name == "swap" and value == memory.limit)
            ways = ((file, str(value)),)
            yield Setting(name=f"memory.{name}", controller="memory", ways=ways, optional=absent)
    if memory.swappiness is not None:
        yield _one("memory.swappiness", "memory", "memory.swappiness", memory.swappiness)
    if memory.disable_oom_killer is not None:
        yield _one("memory.disableOOMKiller", "memory", "memory.oom_control", int(memory.disable_oom_killer))
    if memory.use_hierarchy is not None:
        yield _one("memory.useHierarchy", "memory", "memory.use_hierarchy", int(memory.use_hierarchy))


def _v1_cpu(cpu: CpuResources) -> Iterator[Setting]:
    for name, value, file in (
        ("shares", cpu.shares, "cpu.shares"),
        ("period", cpu.period, "cpu.cfs_period_us"),
        ("quota", cpu.quota, "cpu.cfs_quota_us"),
        ("burst", cpu.burst, "cpu.cfs_burst_us"),
        ("realtimePeriod", cpu.realtime_period, "cpu.rt_period_us"),
        ("realtimeRuntime", cpu.realtime_runtime, "cpu.rt_runtime_us"),
    ):
        if value or (name == "burst" and value is not None):
            within = name == "realtimeRuntime"
            yield Setting(name=f"cpu.{name}", controller="cpu", ways=((file, str(value)),), within_parents=within)
    if cpu.idle is not None:
        yield _one("cpu.idle", "cpu", "cpu.idle", cpu.idle)


def _v1_block_io(block_io: BlockIoResources) -> Iterator[Setting]:
    if block_io.weight:
        value = str(block_io.weight)
        ways = (("blkio.weight", value), ("blkio.bfq.weight", value))
        yield Setting(name="blockIO.weight", controller="blkio", ways=ways)
    if block_io.leaf_weight:
        yield _one("blockIO.leafWeight", "blkio", "blkio.leaf_weight", block_io.leaf_weight)
    for each in block_io.weight_device:
        if each.weight:
            value = f"{each.major}:{each.minor} {each.weight}"
            ways = (("blkio.weight_device", value), ("blkio.bfq.weight_device", value))
            yield Setting(name="blockIO.weightDevice", controller="blkio", ways=ways)
        if each.leaf_weight:
            value = f"{each.major}:{each.minor} {each.leaf_weight}"
            yield _one("blockIO.weightDevice", "blkio", "blkio.leaf_weight_device", value)
    for name, devices, _, file in _throttles(block_io):
        for limit in devices:
            yield _one(name, "blkio", f"blkio.throttle.{file}_device", f"{limit.major}:{limit.minor} {limit.rate}")


# Version 2


def _v2_memory(memory: MemoryResources) -> Iterator[Setting]:
    if memory.swappiness is not None:
        raise _nothing_like("memory.swappiness")
    if memory.disable_oom_killer:
        raise _nothing_like("memory.disableOOMKiller")
    if memory.use_hierarchy is False:
        raise _nothing_like("memory.useHierarchy: false")
    swap = memory.swap
    if swap and swap != UNLIMITED:
        if not memory.limit or memory.limit == UNLIMITED:
            raise UsageError("linux.resources.memory.swap: it counts memory too, so memory.limit is needed with it")
        ways = (("memory.swap.max", str(swap - memory.limit)),)
        yield Setting(name="memory.swap", controller="memory", ways=ways, optional=swap == memory.limit)
    elif swap or memory.limit == UNLIMITED:
        yield Setting(name="memory.swap", controller="memory", ways=(("memory.swap.max", "max"),), optional=True)
    if memory.limit:
        yield _one("memory.limit", "memory", "memory.max", _or_max(memory.limit))
    if memory.reservation:
        yield _one("memory.reservation", "memory", "memory.low", _or_max(memory.reservation))


def _v2_cpu(cpu: CpuResources) -> Iterator[Setting]:
    if cpu.realtime_runtime:
        raise _nothing_like("cpu.realtimeRuntime")
    if cpu.realtime_period:
        raise _nothing_like("cpu.realtimePeriod")
    if cpu.shares:
        yield _one("cpu.shares", "cpu", "cpu.weight", weight_of_shares(cpu.shares))
    if cpu.quota or cpu.period:
        quota = "max" if not cpu.quota or cpu.quota < 0 else str(cpu.quota)
        yield _one("cpu.quota", "cpu", "cpu.max", f"{quota} {cpu.period or USUAL_PERIOD}")
    if cpu.burst is not None:
        yield _one("cpu.burst", "cpu", "cpu.max.burst", cpu.burst)
    if cpu.idle is not None:
        yield _one("cpu.idle", "cpu", "cpu.idle", cpu.idle)


def _v2_block_io(block_io: BlockIoResources) -> Iterator[Setting]:
    if block_io.leaf_weight:
        raise _nothing_like("blockIO.leafWeight")
    if block_io.weight:
        yield from _v2_weight("blockIO.weight", "default", block_io.weight)
    for each in block_io.weight_device:
        yield from _v2_weight_device(each)
    for name, devices, word, _ in _throttles(block_io):
        for limit in devices:
            value = f"{limit.major}:{limit.minor} {word}={limit.rate or 'max'}"
            yield _one(name, "io", "io.max", value)


def _v2_weight_device(device: WeightDevice) -> Iterator[Setting]:
    if device.leaf_weight:
        raise _nothing_like("blockIO.weightDevice.leafWeight")
    if device.weight:
        yield from _v2_weight("blockIO.weightDevice", f"{device.major}:{device.minor}", device.weight)


def _v2_weight(name: str, what: str, weight: int) -> Iterator[Setting]:
    """BFQ has the configuration's scale, from 1 to 1000; the cost model's goes from 1 to 10000."""
    ways = (("io.bfq.weight", f"{what} {weight}"), ("io.weight", f"{what} {io_weight(weight)}"))
    yield Setting(name=name, controller="io", ways=ways)


def weight_of_shares(shares: int) -> int:
    """cpu.shares, 2 to 262144, as cpu.weight, 1 to 10000: linear, as runc 1.1 and crun 1.8 have it."""
    return 1 + (min(max(shares, 2), 262_144) - 2) * 9_999 // 262_142


def io_weight(weight: int) -> int:
    """blkio's weight, 10 to 1000, as io.weight, 1 to 10000: linear, as runc and crun have it."""
    return 1 + (min(max(weight, 10), 1_000) - 10) * 9_999 // 990


# Alike in both


def _pids(limit: int | None) -> Iterator[Setting]:
    if limit:
        yield _one("pids.limit", "pids", "pids.max", _or_max(limit))


def _cpuset(cpu: CpuResources) -> Iterator[Setting]:
    if cpu.cpus:
        yield _one("cpu.cpus", "cpuset", "cpuset.cpus", cpu.cpus)
    if cpu.mems:
        yield _one("cpu.mems", "cpuset", "cpuset.mems", cpu.mems)


def _huge_pages(size: str, limit: int, suffix: str) -> Iterator[Setting]:
    """Faults are limited, and reservations where the kernel (5.7) knows how."""
    if "/" in size:
        raise UsageError(f"linux.resources.hugepageLimits: {size} is not a page size")
    yield _one(f"hugepageLimits {size}", "hugetlb", f"hugetlb.{size}.{suffix}", limit)
    ways = ((f"hugetlb.{size}.rsvd.{suffix}", str(limit)),)
    yield Setting(name=f"hugepageLimits {size}", controller="hugetlb", ways=ways, optional=True)


def _network(network: NetworkResources) -> Iterator[Setting]:
    """v1 alone has these two controllers; a host without them is told by their names."""
    if network.class_id:
        yield _one("network.classID", "net_cls", "net_cls.classid", network.class_id)
    for each in network.priorities:
        yield _one("network.priorities", "net_prio", "net_prio.ifpriomap", f"{each.name} {each.priority}")


def _rdma(device: str, limit: RdmaLimit) -> Setting:
    words = [device]
    if limit.hca_handles is not None:
        words.append(f"hca_handle={limit.hca_handles}")
    if limit.hca_objects is not None:
        words.append(f"hca_object={limit.hca_objects}")
    if len(words) == 1:
        raise UsageError(f"linux.resources.rdma.{device}: neither hcaHandles nor hcaObjects")
    return _one(f"rdma.{device}", "rdma", "rdma.max", " ".join(words))


def _unified(file: str, value: str, host: Mounted) -> Iterator[Setting]:
    controller, dot, _ = file.partition(".")
    if "/" in file or not dot:
        raise UsageError(f"linux.resources.unified: {file} is not the name of a cgroup file")
    if not host.unified or not (controller == "cgroup" or controller in host.unified_controllers):
        raise LimitError(
            f"linux.resources.unified: {file} is a file of cgroup v2, where this host has no {controller} controller",
            hint=DOCTOR,
        )
    for line in value.splitlines() or [""]:  # io.max takes one device at a time
        yield _one(f"unified.{file}", controller, file, line)


def _throttles(block_io: BlockIoResources) -> Iterator[tuple[str, tuple[ThrottleDevice, ...], str, str]]:
    """By name: the devices, v2's word, v1's file."""
    yield "blockIO.throttleReadBpsDevice", block_io.throttle_read_bps_device, "rbps", "read_bps"
    yield "blockIO.throttleWriteBpsDevice", block_io.throttle_write_bps_device, "wbps", "write_bps"
    yield "blockIO.throttleReadIOPSDevice", block_io.throttle_read_iops_device, "riops", "read_iops"
    yield "blockIO.throttleWriteIOPSDevice", block_io.throttle_write_iops_device, "wiops", "write_iops"


def _one(name: str, controller: str, file: str, value: object) -> Setting:
    return Setting(name=name, controller=controller, ways=((file, str(value)),))


def _or_max(value: int) -> str:
    return "max" if value < 0 else str(value)


def _nothing_like(name: str) -> LimitError:
    return LimitError(f"linux.resources.{name}: cgroup v2 has nothing like it, and this host's controller is v2's")
