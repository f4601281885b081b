"""Keeping lab, its client and the instances on CPUs of their own while they are measured.

The instances of a session are in a cpuset, that of the group around theirs (cpuset(7); on v2 the controller of that
name): whatever starts them and whatever they start is in it. lab keeps its own threads to other CPUs, and the load
client to others again; both end with their processes. Nothing of the host is set: the group is lab's, in its ledger.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from lab.backends.site import Site
from lab.errors import LabError
from lab.host.cgroup.delegation import PLACEMENT, group_of
from lab.host.cgroup.hierarchy import host_hierarchies
from lab.host.cpulist import listed, numbers
from lab.host.placement import topology
from lab.host.placement.place import AUTO, OFF, Placement, parse
from lab.host.placement.threads import kept_to
from lab.host.session.ledger import Resource, ResourceKind
from lab.instance import Instance
from lab.runtime.cgroup.instances import limited
from lab.runtime.config.model import CpuResources, Resources

ALLOWED = re.compile(r"^Cpus_allowed_list:\s*(\S+)", re.MULTILINE)  # proc_pid_status(5)


def reserve(site: Site, asked: str, cpus: float | None) -> Placement:
    """Give the session's instances, of at most so many CPUs each, a cpuset as ``asked`` (``--placement``), before
    there is any. Raises UsageError for what can't be typed; where the host has no cpuset for lab, that is the reason
    for a placement of nobody, and an error when CPUs were named.
    """
    found = parse(asked, topology.read(), cpus)
    if not found:
        return found
    path = group_of(site.session.id)
    if "cpuset" in host_hierarchies().v1:
        site.session.record(Resource(kind=ResourceKind.OTHER_CGROUP, name=path))
    wanted = Resources(cpu=CpuResources(cpus=listed(found.instances)))
    try:
        limited(path, wanted)
        limited(group_of(site.session.id, PLACEMENT), wanted)  # else the one around it ends with its last instance
    except LabError as error:
        if asked != AUTO:
            raise
        return Placement(reason=f"lab's groups can have no cpuset here: {error.message}")
    return found


@contextmanager
def placed(site: Site, placement: Placement) -> Iterator[None]:
    """lab and its clients are where they belong, as long as this lasts."""
    if not placement:
        yield
        return
    site.network.clients = frozenset(placement.client)
    try:
        with kept_to(placement.lab):
            yield
    finally:
        site.network.clients = frozenset()


def recorded(placement: Placement) -> dict[str, str]:
    """What a run keeps of it."""
    return {
        "lab": listed(placement.lab),
        "client": listed(placement.client),
        "instances": listed(placement.instances),
        "reason": placement.reason,
    }


def again(settings: Mapping[str, Any]) -> str:
    """What to ask for to have the placement of a run with these settings once more."""
    known = settings.get("placement") or {}
    return "/".join(known[part] for part in ("lab", "client", "instances")) if known.get("instances") else OFF


def where(instance: Instance) -> str:
    """The CPUs that its processes on the host may run on, a VMM included, as a list."""
    cpus: set[int] = set()
    for pid in instance.cgroup.processes():
        with suppress(OSError):  # it has just ended
            text = Path(f"/proc/{pid}/status").read_text("utf-8", "replace")
            cpus |= {cpu for found in ALLOWED.findall(text) for cpu in numbers(found)}
    return listed(cpus)
