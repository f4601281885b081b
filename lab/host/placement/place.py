"""Topology in, placement out: pure, so that it can be asked about hosts that nobody has.

    1. whole cores  an SMT sibling shares its core's execution units and caches, so a core belongs to one of the three
    2. instances    cores of one kind on one node of memory: of the fastest kind of which there are enough
    3. lab          a core that the instances would not want: a slow one, one elsewhere, one that strangers share
    4. client       a fast core near the instances, since it is in every latency; where too few are left, another one

An instance of n CPUs wants n + 1 cores: a virtual machine's VMM works beside its vCPUs, and on n cores it would take
their time, which a quota of n CPUs takes from no container. Isolated CPUs (isolcpus=) are left alone: the kernel does
not spread what runs there (Documentation/admin-guide/kernel-parameters.txt).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from lab.errors import UsageError
from lab.host.cpulist import listed, numbers
from lab.host.placement.topology import Cpu, Topology

AUTO, OFF = "auto", "off"
APART = 2  # cores: lab's, and its client's
BESIDE = 1  # core: what a VMM does beside its vCPUs


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Numbers of CPUs, in order; all three empty where none was decided, and then ``reason`` says why."""

    lab: tuple[int, ...] = ()
    client: tuple[int, ...] = ()
    instances: tuple[int, ...] = ()
    reason: str = ""

    def __bool__(self) -> bool:
        return bool(self.instances)

    def describe(self) -> str:
        """As it is typed: lists of lab's, its client's and the instances' CPUs; "" where there is none."""
        return "/".join(map(listed, (self.lab, self.client, self.instances))) if self else ""


NOWHERE = Placement()


@dataclass(frozen=True, slots=True)
class _Core:
    cpus: tuple[int, ...]
    node: int
    capacity: int
    whole: bool  # lab may use every sibling


def place(topology: Topology, cpus: float | None = None) -> Placement:
    """Where lab, its client and instances of so many CPUs (None: one at the least) go."""
    cores = _cores(topology)
    wanted = math.ceil(cpus or 1) + BESIDE
    if len(cores) < wanted + APART:
        return Placement(reason=_too_few(len(cores), wanted))
    near = _alike(cores, wanted)
    if len(near) < wanted:
        alike = "that are alike, on one node of memory and nobody else's"
        return Placement(reason=f"{_too_few(len(cores), wanted)} {alike}")
    others = sorted((core for core in cores if core not in near), key=lambda core: (core.whole, core.capacity))
    lab = (others or near).pop(0)
    client = near.pop(0) if len(near) > wanted or not others else others.pop()
    return Placement(lab=lab.cpus, client=client.cpus, instances=_all(near))


def parse(text: str, topology: Topology, cpus: float | None = None) -> Placement:
    """What ``--placement`` says: ``auto``, ``off``, or three lists of CPUs, lab's, its client's and the instances'.

    Raises UsageError for anything else, and for CPUs that lab may not use.
    """
    if text == AUTO:
        return place(topology, cpus)
    if text == OFF:
        return Placement(reason="it was not asked for")
    try:
        lab, client, instances = (tuple(sorted(set(numbers(part)))) for part in text.split("/"))
    except ValueError:
        lab = client = instances = ()
    if not (lab and client and instances):
        raise UsageError(
            f"--placement {text}: neither {AUTO} nor {OFF}, nor three lists of CPUs",
            hint="write for example --placement 0/1/2-3: lab's, its client's, the instances'",
        )
    if foreign := {*lab, *client, *instances} - topology.allowed:
        raise UsageError(
            f"--placement {text}: lab may not use CPU {listed(foreign)}",
            hint=f"it may use {listed(topology.allowed)}",
        )
    return Placement(lab=lab, client=client, instances=instances)


def _cores(topology: Topology) -> list[_Core]:
    """The cores that lab may use, in the order of their numbers, each with those of its CPUs that it may use."""
    usable = topology.allowed - topology.isolated
    found: dict[int, list[Cpu]] = {}
    for cpu in sorted(topology.cpus, key=lambda cpu: cpu.number):
        found.setdefault(cpu.core, []).append(cpu)
    cores = []
    for siblings in found.values():
        mine = tuple(cpu.number for cpu in siblings if cpu.number in usable)
        if mine:
            one = siblings[0]
            cores.append(_Core(mine, one.node, one.capacity, whole=len(mine) == len(siblings)))
    return cores


def _alike(cores: list[_Core], wanted: int) -> list[_Core]:
    """Whole cores of one kind on one node: of the fastest kind of which there are enough, the node that has most."""
    found: dict[tuple[int, int], list[_Core]] = {}
    for core in cores:
        if core.whole:
            found.setdefault((core.capacity, core.node), []).append(core)
    best = max(found, key=lambda at: (len(found[at]) >= wanted, at[0], len(found[at]), -at[1]), default=None)
    return [] if best is None else found[best]


def _all(cores: Iterable[_Core]) -> tuple[int, ...]:
    return tuple(sorted(cpu for core in cores for cpu in core.cpus))


def _too_few(cores: int, wanted: int) -> str:
    has = f"{cores} core{'' if cores == 1 else 's'}"
    return (
        f"lab may use {has} here, and to keep apart itself, its client and the instances takes "
        f"{wanted + APART}: one, one, and {wanted}"
    )
