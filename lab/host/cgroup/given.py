"""Which limits can be set: an ordinary user's are those for which a control group was delegated."""

from __future__ import annotations

from dataclasses import asdict

from lab.host.cgroup.hierarchy import host_hierarchies
from lab.host.identity import privilege
from lab.model import Limits

CONTROLLERS = {"memory_bytes": "memory", "cpus": "cpu", "pids": "pids"}
"""What holds each of `Limits`."""


def not_given(wanted: Limits) -> list[str]:
    """The names of those that can't be set. None of root's: where one can't be, the runtime says why."""
    if not privilege.is_rootless():
        return []
    offered = host_hierarchies()
    named = [name for name, value in asdict(wanted).items() if value is not None]
    return [name for name in named if offered.mount_of(CONTROLLERS[name]) is None]


def as_given(wanted: Limits) -> Limits:
    """``wanted`` without those."""
    missing = not_given(wanted)
    return Limits(**{name: None if name in missing else value for name, value in asdict(wanted).items()})
