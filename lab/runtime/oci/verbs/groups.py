"""What changes a container's control group: ``pause``, ``resume``, ``update``."""

from __future__ import annotations

from lab.errors import LabError, UsageError
from lab.runtime.oci import store
from lab.runtime.oci.options import VALUE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from lab.host.cgroup.group import Group
    from lab.runtime.oci.main import Call
    from lab.runtime.oci.options import Arguments

LIMITS = {  # option: where it goes below linux.resources
    "blkio-weight": ("blockIO", "weight"),
    "cpu-period": ("cpu", "period"),
    "cpu-quota": ("cpu", "quota"),
    "cpu-burst": ("cpu", "burst"),
    "cpu-share": ("cpu", "shares"),
    "cpu-rt-period": ("cpu", "realtimePeriod"),
    "cpu-rt-runtime": ("cpu", "realtimeRuntime"),
    "cpu-idle": ("cpu", "idle"),
    "cpuset-cpus": ("cpu", "cpus"),
    "cpuset-mems": ("cpu", "mems"),
    "memory": ("memory", "limit"),
    "memory-reservation": ("memory", "reservation"),
    "memory-swap": ("memory", "swap"),
    "kernel-memory": ("memory", "kernel"),
    "kernel-memory-tcp": ("memory", "kernelTCP"),
    "pids-limit": ("pids", "limit"),
}
TEXTS = ("cpuset-cpus", "cpuset-mems")
UNITS = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
OPTIONS = {
    "pause": {},
    "resume": {},
    "update": {"resources r": VALUE} | dict.fromkeys(LIMITS, VALUE),
}


def pause(call: Call) -> int:
    """``pause ID``: its processes stand still where they are."""
    group = group_in(call, store.RUNNING, store.CREATED)
    group.freeze()
    return 0


def resume(call: Call) -> int:
    """``resume ID``: they go on."""
    group = group_in(call, store.PAUSED)
    group.thaw()
    return 0


def update(call: Call) -> int:
    """``update ID``: new limits, from ``--resources FILE`` (- is standard input), else from the options."""
    from lab.runtime.cgroup import limits, resources
    from lab.runtime.config import model, schema

    group = group_in(call, store.RUNNING, store.CREATED, store.PAUSED)
    value = wanted(call.given)
    found = schema.read(model.Resources, value, "linux.resources", call.ignored)
    assert isinstance(found, model.Resources)
    for warning in limits.ignored(found):
        call.log.warn(warning)
    resources.update(group, found)
    return 0


def wanted(given: Arguments) -> object:
    """The resources as config.json would have them. Raises UsageError."""
    from lab.runtime.oci.blueprint import parsed

    path = given.value("resources")
    if path:
        with open(0 if path == "-" else path, encoding="utf-8") as file:
            return parsed(file.read(), path)
    found: dict[str, dict[str, Any]] = {}
    for option, (kind, name) in LIMITS.items():
        word = given.value(option)
        if word:
            found.setdefault(kind, {})[name] = word if option in TEXTS else amount(option, word)
    if not found:
        raise UsageError("update changes nothing", hint="--resources FILE, or an option: lab-oci update --help")
    return found


def amount(option: str, word: str) -> int:
    """A number; memory with a unit, if need be: 512m, 2GiB. Raises UsageError."""
    digits = word.rstrip("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
    unit = (
        word[len(digits) :].lower().removesuffix("ib").removesuffix("b")
        if "memory" in option
        else word[len(digits) :]
    )
    try:
        return int(digits) * UNITS[unit]
    except (ValueError, KeyError):
        raise UsageError(f"--{option} {word}: not a number") from None


def group_in(call: Call, *allowed: str) -> Group:
    """The container's group. Raises LabError if its status is none of ``allowed``."""
    entry = call.entry()
    state = entry.read()
    status = entry.status(state)
    if status not in allowed:
        raise LabError("container not running" if status == store.STOPPED else f"the container is {status}")
    return state.its_group()
