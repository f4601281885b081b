"""Carrying out an OCI configuration's resources, the one model of them: on a new group, on a running container's.

Every limit on every group that lab makes is written here: those of `lab-oci`, of `lab run`'s containers and bare
processes, and of what runc, crun and QEMU run in. What a virtual machine has of RAM and vCPUs is no group's: it is
chosen in `lab.hypervisor.parts` and written into the domain. `lab.runtime.cgroup.limits` says what is to be written
into a group; here it is written, and read back. Whatever this host can't do is a LimitError with the name it has in
the configuration, and a group that was made for it is gone again.
"""

from __future__ import annotations

import errno
import os

from lab.errors import GroupGone, LimitError, UsageError
from lab.host.cgroup import cgroupfs
from lab.host.cgroup.cgroupfs import V1_UNLIMITED
from lab.host.cgroup.group import DOCTOR, Group
from lab.host.identity import ownspace
from lab.record import replace
from lab.runtime.cgroup import devices, limits
from lab.runtime.config.model import CpuResources, MemoryResources, PidsResources, Resources

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from lab.model import Limits
    from lab.runtime.cgroup.limits import Setting
    from lab.runtime.config.model import DeviceRule

ALWAYS = ("devices", "blkio")
"""The v1 controllers that are joined beside the usual ones: to guard devices, to account for reads and writes."""

NOT_YOURS = "you have been given no"
DELEGATE = "leave the limit out, or have an administrator give you a group of that controller: docs/rootless.md"

ROUNDED = "memory."  # its files hold whole pages
NOT_SHOWN_AS_SET = ("memory.oom_control",)


def create(group: Group, resources: Resources) -> None:
    """Make ``group``, limit it and guard its devices, before anything runs in it, as `lab-oci` does.

    Raises LimitError, LaunchError, UsageError or LabError; nothing is left behind then.
    """
    rules = devices.with_defaults(resources.devices)
    make(group, resources, ALWAYS)
    try:
        devices.guard(group, rules)
    except BaseException:
        group.remove()
        raise


def make(group: Group, resources: Resources, controllers: Iterable[str] = ()) -> None:
    """Make ``group``, in the hierarchies of ``controllers`` too, and limit it. Devices are for
    `lab.runtime.cgroup.devices`.

    Raises LimitError, UsageError or LabError; nothing is left behind then.
    """
    settings = limits.settings(resources, group.host)
    _refuse_what_is_missing(group, settings)
    group.make([*(setting.controller for setting in settings), *controllers])
    try:
        _carry_out(group, settings)
    except BaseException:
        group.remove()
        raise


def of_limits(wanted: Limits, rules: tuple[DeviceRule, ...] = ()) -> Resources:
    """An instance's limits. Memory gets no swap on top: a limit means the same whether or not the host has any.

    Raises LimitError for what no kernel holds.
    """
    memory, period = wanted.memory_bytes, limits.USUAL_PERIOD
    quota = None if wanted.cpus is None else round(wanted.cpus * period)
    if quota is not None and quota < limits.SMALLEST_QUOTA:
        raise LimitError(f"{wanted.cpus:g} CPUs is below the kernel's smallest quota, 0.01")
    return Resources(
        devices=rules,
        memory=None if memory is None else MemoryResources(limit=memory, swap=memory),
        cpu=None if quota is None else CpuResources(quota=quota, period=period),
        pids=None if wanted.pids is None else PidsResources(limit=wanted.pids),
    )


def held(group: Group, resources: Resources) -> dict[str, str]:
    """What the files that ``resources`` goes into say now, by name. Raises GroupGone."""
    settings = limits.settings(resources, group.host)
    found = {file: group.look(setting.controller, file) for setting in settings for file, _ in setting.ways}
    return {file: text for file, text in found.items() if text is not None}


def update(group: Group, resources: Resources) -> None:
    """Change what ``resources`` names, and nothing else, while the group's processes run.

    Device rules are changed only if there are some. Raises as `create` does; what was changed before stays so.
    """
    from lab.host.cgroup import accounting  # starts and deletions have no use for it

    resources = _completed(group, resources)
    settings = limits.settings(resources, group.host)
    _refuse_what_is_missing(group, settings)
    memory = resources.memory
    if group.host.on_v2("memory") and memory and memory.check_before_update and memory.limit and memory.limit > 0:
        counter = accounting.memory_counter(group, "memory")
        used = counter.usage_bytes if counter else 0
        if used > memory.limit:
            raise LimitError(f"linux.resources.memory.limit: {memory.limit} bytes are fewer than the {used} in use")
    for controller in dict.fromkeys(setting.controller for setting in settings):
        group.join(controller)
    _carry_out(group, settings)
    if resources.devices:
        devices.guard(group, devices.with_defaults(resources.devices))


def _completed(group: Group, resources: Resources) -> Resources:
    """v2 keeps a quota with its period in one file, and swap apart from memory: what is not to be changed is
    taken from there.
    """
    from lab.host.cgroup import accounting

    cpu, memory = resources.cpu, resources.memory
    if cpu and group.host.on_v2("cpu") and bool(cpu.quota) is not bool(cpu.period):
        quota, period = accounting.cpu_quota(group) or (None, limits.USUAL_PERIOD)
        cpu = replace(cpu, quota=cpu.quota or quota or limits.UNLIMITED, period=cpu.period or period)
        resources = replace(resources, cpu=cpu)
    if memory and group.host.on_v2("memory") and memory.swap and memory.swap > 0 and not memory.limit:
        limit = accounting.memory_held(group)
        resources = replace(resources, memory=replace(memory, limit=limits.UNLIMITED if limit is None else limit))
        limits.check(resources)
    return resources


def _refuse_what_is_missing(group: Group, settings: list[Setting]) -> None:
    for setting in settings:
        if setting.controller != "cgroup" and not group.host.mount_of(setting.controller):
            is_user_s = ownspace.ordinary_user() > 0
            raise LimitError(
                f"linux.resources.{setting.name}: {NOT_YOURS if is_user_s else 'this host has no'} "
                f"{setting.controller} cgroup controller",
                hint=DELEGATE if is_user_s else DOCTOR,
            )


def _carry_out(group: Group, settings: list[Setting]) -> None:
    """Some limits bound one another: memory and memory with swap, a quota, its period and its burst. What the
    kernel finds invalid for now is tried again when the others have changed, so that every order comes out right.
    """
    waiting = settings
    while waiting:
        refused = []
        for setting in waiting:
            try:
                _write(group, setting)
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise _failure(setting, error) from error
                refused.append((setting, error))
        if len(refused) == len(waiting):
            raise _failure(*refused[0]) from refused[0][1]
        waiting = [setting for setting, _ in refused]


def _write(group: Group, setting: Setting) -> None:
    """Write it and see whether it holds. Raises OSError as the kernel does, LimitError, GroupGone."""
    for file, value in setting.ways:
        path = group.file(setting.controller, file)
        try:
            if setting.within_parents:
                _raise_parents(group, setting.controller, file, int(value))
            if _is_shown(setting, file, value):
                _verify(setting, file, value, cgroupfs.write_and_read(path, value))
            else:
                cgroupfs.write(path, value)
        except FileNotFoundError:
            continue
        return
    if not group.exists():
        raise GroupGone(f"there is no cgroup {group.path}")
    if not setting.optional:
        file, _ = setting.ways[0]
        raise LimitError(f"linux.resources.{setting.name}: this kernel's cgroups have no {file}", hint=DOCTOR)


def _raise_parents(group: Group, controller: str, file: str, value: int) -> None:
    """Let no parent have less than ``value``, from the top on: a new group begins with no time for realtime
    (cgroup-v1, sched-rt-group.rst). Raises OSError.
    """
    names = group.path.split("/")
    for count in range(1, len(names)):
        path = Group("/".join(names[:count]), group.host, group.places).file(controller, file)
        if 0 <= int(cgroupfs.read(path)) < value:
            cgroupfs.write(path, str(value))


def _is_shown(setting: Setting, file: str, value: str) -> bool:
    """Whether the file then says what was written: a number, or that there is no limit."""
    return (
        (value == "max" or value.lstrip("-").isdecimal() or file == "cpu.max")
        and file not in NOT_SHOWN_AS_SET
        and setting.controller != "hugetlb"
    )


def _verify(setting: Setting, file: str, value: str, held: str) -> None:
    """The kernel takes some values and holds others: a share out of its range, memory in whole pages."""
    if held == value or (file == "cpu.max" and held.startswith(f"{value} ")):
        return
    if value.lstrip("-").isdecimal():
        wanted = int(value)
        if held.isdecimal() and int(held) == wanted:
            return
        if wanted < 0 or wanted >= V1_UNLIMITED:
            if held == "max" or (held.isdecimal() and int(held) >= V1_UNLIMITED):
                return
        elif file.startswith(ROUNDED) and held.isdecimal() and _pages(int(held)) == _pages(wanted):
            return
    raise LimitError(f"linux.resources.{setting.name}: {value} did not hold: the kernel made it {held}")


def _pages(amount_bytes: int) -> int:
    return amount_bytes // os.sysconf("SC_PAGE_SIZE")


def _failure(setting: Setting, error: OSError) -> LimitError:
    text = f"linux.resources.{setting.name}: {error}"
    if error.errno == errno.EBUSY and setting.name == "memory.limit":
        return LimitError(text, hint="more than that is in use and can't be reclaimed")
    return LimitError(text)


def group_of(cgroups_path: str, identity: str) -> Group:
    """The group of a path in linux.cgroupsPath: below each hierarchy's root, by default ``lab/oci/<identity>``.

    A relative path is taken from the same root, as the specification lets a runtime choose. Raises UsageError for one
    that leaves its root. Units of systemd are `lab.runtime.oci.unit`'s.
    """
    try:
        return Group(cgroups_path.strip("/") or f"lab/oci/{identity}")
    except ValueError as error:
        raise UsageError(f"linux.cgroupsPath: {error}") from error
