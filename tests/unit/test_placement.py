"""Which CPUs are whose, on hosts that are invented; and lab's own threads, on this one."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.errors import UsageError
from lab.host.cpulist import listed, numbers
from lab.host.placement.place import Placement, parse, place
from lab.host.placement.threads import kept_to
from lab.host.placement.topology import EFFICIENT_CAPACITY, Cpu, Topology, read


def host(
    cores: Sequence[Sequence[int]],
    *,
    nodes: Sequence[int] = (),
    slow: int = 0,
    allowed: str = "",
    isolated: str = "",
) -> Topology:
    """A host of ``cores``, each with these CPUs, the last ``slow`` of them efficient ones."""
    capacity = [1024] * (len(cores) - slow) + [EFFICIENT_CAPACITY] * slow
    cpus = [
        Cpu(number=cpu, core=min(core), node=nodes[place] if nodes else 0, capacity=capacity[place])
        for place, core in enumerate(cores)
        for cpu in core
    ]
    everything = {cpu.number for cpu in cpus}
    return Topology(
        cpus=tuple(cpus),
        allowed=frozenset(numbers(allowed) or everything),
        isolated=frozenset(numbers(isolated)),
    )


def single(count: int) -> list[list[int]]:
    return [[cpu] for cpu in range(count)]


def pairs(count: int) -> list[list[int]]:
    """As most x86 hosts number them: the siblings come behind all cores."""
    return [[cpu, cpu + count] for cpu in range(count)]


SOCKETS = [0] * 4 + [1] * 4
KNOWN = {
    "1 core": (host(single(1)), 1, ""),
    "2 cores": (host(single(2)), 1, ""),
    "3 cores": (host(single(3)), 1, ""),
    "4 cores": (host(single(4)), 1, "0/1/2-3"),
    "4 cores, and an instance of 2 CPUs": (host(single(4)), 2, ""),
    "5 cores, and an instance of 2 CPUs": (host(single(5)), 2, "0/1/2-4"),
    "2 cores of 2 threads": (host(pairs(2)), 1, ""),
    "8 cores of 2 threads": (host(pairs(8)), 1, "0,8/1,9/2-7,10-15"),
    "2 sockets": (host(single(8), nodes=SOCKETS), 1, "4/0/1-3"),
    "2 sockets, and an instance of 3 CPUs": (host(single(8), nodes=SOCKETS), 3, "4/7/0-3"),
    "2 sockets, and an instance of 4 CPUs": (host(single(8), nodes=SOCKETS), 4, ""),
    "2 fast cores of 2 threads and 4 slow ones": (
        host([[0, 1], [2, 3], [4], [5], [6], [7]], slow=4),
        1,
        "4/7/0-3",
    ),
    "6 fast cores and 8 slow ones": (host(single(14), slow=8), 1, "6/0/1-5"),
    "1 fast core and 4 slow ones": (host(single(5), slow=4), 1, "0/1/2-4"),
    "a container host's cpuset of 2": (host(single(16), allowed="4-5"), 1, ""),
    "a container host's cpuset of 5": (host(single(16), allowed="4-8"), 1, "4/5/6-8"),
    "half of a core is a stranger's": (host(pairs(5), allowed="0-8"), 1, "4/0,5/1-3,6-8"),
    "nothing but halves of cores": (host(pairs(8), allowed="0-7"), 1, ""),
    "isolated CPUs": (host(single(8), isolated="2-4"), 1, "0/1/5-7"),
    "all but one isolated": (host(single(8), isolated="1-7"), 1, ""),
}


@pytest.mark.parametrize("name", KNOWN)
def test_a_known_host(name: str) -> None:
    topology, cpus, expected = KNOWN[name]
    found = place(topology, cpus)
    assert found.describe() == expected
    assert bool(found) is not bool(found.reason)


@given(
    st.integers(1, 24), st.sampled_from([single, pairs]), st.integers(0, 24), st.integers(1, 3),
    st.floats(0.1, 6), st.sets(st.integers(0, 47)), st.sets(st.integers(0, 47)),
)  # fmt: skip
def test_what_holds_on_any_host(
    count: int, threads: object, slow: int, sockets: int, cpus: float, allowed: set[int], isolated: set[int]
) -> None:
    cores = pairs(count) if threads is pairs else single(count)
    topology = host(
        cores,
        nodes=[core * sockets // count for core in range(count)],
        slow=min(slow, count),
        allowed=listed(allowed),
        isolated=listed(isolated),
    )
    found = place(topology, cpus)
    known = {cpu.number: cpu for cpu in topology.cpus}
    parts = [set(found.lab), set(found.client), set(found.instances)]
    assert set().union(*parts) <= topology.allowed - topology.isolated
    whose = [{known[cpu].core for cpu in part} for part in parts]
    assert sum(map(len, whose)) == len(set().union(*whose)), "siblings are kept together"
    if found:
        assert all(parts)
        assert len(whose[2]) >= cpus + 1 - 1e-9
        assert len({(known[cpu].node, known[cpu].capacity) for cpu in parts[2]}) == 1
    else:
        assert found.reason


def test_what_is_typed() -> None:
    topology = host(single(4), allowed="0-2")
    assert parse("0/0-1/2", topology) == Placement(lab=(0,), client=(0, 1), instances=(2,))
    assert not parse("off", topology)
    assert parse("auto", topology) == place(topology)
    for wrong in ("", "yes", "0/1", "0//1", "0/1/a", "0/1/3-2", "0/1/3", "0/1/2-99999999999"):
        with pytest.raises(UsageError):
            parse(wrong, topology)


@given(st.sets(st.integers(0, 200)))
def test_a_list_names_what_it_was_made_of(cpus: set[int]) -> None:
    assert set(numbers(listed(cpus))) == cpus


def test_a_host_is_read(tmp_path: Path) -> None:
    files = {
        "sys/devices/system/cpu/online": "0-3\n",
        "sys/devices/system/cpu/isolated": "3\n",
        "sys/devices/system/cpu/cpu0/topology/thread_siblings_list": "0,2\n",
        "sys/devices/system/cpu/cpu2/topology/thread_siblings_list": "0,2\n",
        "sys/devices/system/cpu/cpu1/topology/core_cpus_list": "1\n",
        "sys/devices/system/node/node0/cpulist": "0,2\n",
        "sys/devices/system/node/node1/cpulist": "1,3\n",
        "sys/devices/cpu_atom/cpus": "1\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    found = read(tmp_path, allowed=[0, 1])
    assert found.isolated == {3}
    assert found.allowed == {0, 1}
    assert found.cpus == (
        Cpu(number=0, core=0),
        Cpu(number=1, core=1, node=1, capacity=EFFICIENT_CAPACITY),
        Cpu(number=2, core=0),
        Cpu(number=3, core=3, node=1),
    )


def test_this_host_is_read() -> None:
    found = read()
    assert found.allowed <= {cpu.number for cpu in found.cpus}
    assert found.allowed


def test_all_threads_are_moved_and_back() -> None:
    before = os.sched_getaffinity(0)
    one = {min(before)}
    go_on = threading.Event()
    other = threading.Thread(target=go_on.wait)
    other.start()
    assert other.native_id is not None
    try:
        with kept_to(one):
            assert os.sched_getaffinity(0) == os.sched_getaffinity(other.native_id) == one
        assert os.sched_getaffinity(0) == os.sched_getaffinity(other.native_id) == before
    finally:
        go_on.set()
        other.join()
