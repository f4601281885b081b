"""Carrying out an OCI configuration's resources: on a new group, on a running container's.

`lab.runtime.limits` says what is to be written; here it is written, and read back. Whatever this host can't do is a
LimitError with the name it has in the configuration, and a group that was made for it is gone again.
"""

from __future__ import annotations

import errno
import os

from lab.errors import LimitError, UsageError
from lab.host import cgroupfs
from lab.host.group import DOCTOR, Group
from lab.record import replace
from lab.runtime import devices, limits

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lab.runtime.config import Resources
    from lab.runtime.limits import Setting

ALWAYS = ("devices", "blkio")
"""The v1 controllers that are joined beside the usual ones: to guard devices, to account for reads and writes."""

V1_UNLIMITED = 1 << 62  # v1 shows "no limit" as the largest multiple of a page below 2^63
ROUNDED = "memory."  # its files hold whole pages
NOT_SHOWN_AS_SET = ("memory.oom_control",)


def create(group: Group, resources: Resources) -> None:
    """Make ``group``, limit it and guard its devices, before anything runs in it.

    Raises LimitError, LaunchError, UsageError or LabError; nothing is left behind then.
    """
    settings = limits.settings(resources, group.host)
    rules = devices.with_defaults(resources.devices)
    _refuse_what_is_missing(group, settings)
    group.make([*(setting.controller for setting in settings), *ALWAYS])
    try:
        _carry_out(group, settings)
        devices.guard(group, rules)
    except BaseException:
        group.remove()
        raise


def update(group: Group, resources: Resources) -> None:
    """Change what ``resources`` names, and nothing else, while the group's processes run.

    Device rules are changed only if there are some. Raises as `create` does; what was changed before stays so.
    """
    resources = _completed(group, resources)
    settings = limits.settings(resources, group.host)
    _refuse_what_is_missing(group, settings)
    memory = resources.memory
    if group.host.on_v2("memory") and memory and memory.check_before_update and memory.limit and memory.limit > 0:
        used = int(group.read("memory", "memory.current"))
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
    cpu, memory = resources.cpu, resources.memory
    if cpu and group.host.on_v2("cpu") and bool(cpu.quota) is not bool(cpu.period):
        quota, period = group.read("cpu", "cpu.max").split()
        held = limits.UNLIMITED if quota == "max" else int(quota)
        resources = replace(resources, cpu=replace(cpu, quota=cpu.quota or held, period=cpu.period or int(period)))
    if memory and group.host.on_v2("memory") and memory.swap and memory.swap > 0 and not memory.limit:
        text = group.read("memory", "memory.max")
        held = limits.UNLIMITED if text == "max" else int(text)
        resources = replace(resources, memory=replace(memory, limit=held))
        limits.check(resources)
    return resources


def _refuse_what_is_missing(group: Group, settings: list[Setting]) -> None:
    for setting in settings:
        if setting.controller != "cgroup" and not group.host.mount_of(setting.controller):
            raise LimitError(
                f"linux.resources.{setting.name}: this host has no {setting.controller} cgroup controller",
                hint=DOCTOR,
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
    """Write it and see whether it holds. Raises OSError as the kernel does, LimitError."""
    for file, value in setting.ways:
        if os.path.exists(group.file(setting.controller, file)):
            if setting.within_parents:
                _raise_parents(group, setting.controller, file, int(value))
            group.write(setting.controller, file, value)
            _verify(setting, file, value, group)
            return
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


def _verify(setting: Setting, file: str, value: str, group: Group) -> None:
    """The kernel takes some values and holds others: a share out of its range, memory in whole pages."""
    if not value.lstrip("-").isdecimal() or file in NOT_SHOWN_AS_SET or setting.controller == "hugetlb":
        return
    held = group.read(setting.controller, file)
    if not held.isdecimal():  # "max", or a list
        return
    wanted = int(value)
    if wanted < 0:
        if int(held) >= V1_UNLIMITED:
            return
    elif int(held) == wanted or (file.startswith(ROUNDED) and _pages(int(held)) == _pages(wanted)):
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
