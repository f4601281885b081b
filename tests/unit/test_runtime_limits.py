"""What a configuration's resources become in the files of v1 and v2, on made-up hosts of plain files."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import lab
from lab.errors import LimitError, UsageError
from lab.host.cgroup import cgroupfs
from lab.host.cgroup.group import Group
from lab.host.cgroup.mounted import Mounted
from lab.host.cpulist import numbers
from lab.model import Limits
from lab.runtime.cgroup import devices, limits, resources, stats
from lab.runtime.config import schema
from lab.runtime.config.model import Resources

V1 = Mounted(
    {name: f"/{name}" for name in ("memory", "cpu", "cpuset", "pids", "blkio", "hugetlb", "net_cls")}, "", ()
)
V2 = Mounted({}, "/v2", ("memory", "cpu", "cpuset", "pids", "io", "hugetlb", "rdma"))
HYBRID = Mounted({"memory": "/memory"}, "/v2", ("hugetlb",))

CASES: list[tuple[dict[str, Any], list[str], list[str]]] = [
    (
        {"memory": {"limit": 1000, "swap": 3000, "reservation": 500}},
        ["memory.limit_in_bytes 1000", "memory.memsw.limit_in_bytes 3000", "memory.soft_limit_in_bytes 500"],
        ["memory.swap.max 2000", "memory.max 1000", "memory.low 500"],
    ),
    (
        {"memory": {"limit": 4096, "swap": 4096}},
        ["memory.limit_in_bytes 4096", "memory.memsw.limit_in_bytes 4096"],
        ["memory.swap.max 0", "memory.max 4096"],
    ),
    (
        {"memory": {"limit": -1}},
        ["memory.limit_in_bytes -1", "memory.memsw.limit_in_bytes -1"],
        ["memory.swap.max max", "memory.max max"],
    ),
    (
        {"memory": {"limit": 4096, "swap": -1, "reservation": -1, "kernel": -1, "useHierarchy": True}},
        [
            "memory.limit_in_bytes 4096", "memory.memsw.limit_in_bytes -1", "memory.soft_limit_in_bytes -1",
            "memory.use_hierarchy 1",
        ],
        ["memory.swap.max max", "memory.max 4096", "memory.low max"],
    ),
    ({"memory": {"limit": 0, "swap": 0}, "cpu": {"shares": 0, "quota": 0}, "pids": {"limit": 0}}, [], []),
    (
        {"cpu": {"shares": 1024, "quota": 5_000, "period": 20_000, "burst": 0, "cpus": "1", "mems": "0", "idle": 1}},
        [
            "cpu.shares 1024", "cpu.cfs_period_us 20000", "cpu.cfs_quota_us 5000", "cpu.cfs_burst_us 0", "cpu.idle 1",
            "cpuset.cpus 1", "cpuset.mems 0",
        ],
        ["cpu.weight 39", "cpu.max 5000 20000", "cpu.max.burst 0", "cpu.idle 1", "cpuset.cpus 1", "cpuset.mems 0"],
    ),
    ({"cpu": {"quota": -1}}, ["cpu.cfs_quota_us -1"], ["cpu.max max 100000"]),
    ({"pids": {"limit": -1}}, ["pids.max max"], ["pids.max max"]),
    (
        {
            "blockIO": {
                "weight": 100,
                "weightDevice": [{"major": 8, "minor": 0, "weight": 500}],
                "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 600}],
                "throttleWriteIOPSDevice": [{"major": 8, "minor": 16, "rate": 0}],
            }
        },
        [
            "blkio.weight 100 or blkio.bfq.weight 100",
            "blkio.weight_device 8:0 500 or blkio.bfq.weight_device 8:0 500",
            "blkio.throttle.read_bps_device 8:0 600", "blkio.throttle.write_iops_device 8:16 0",
        ],
        [
            "io.bfq.weight default 100 or io.weight default 910", "io.bfq.weight 8:0 500 or io.weight 8:0 4950",
            "io.max 8:0 rbps=600", "io.max 8:16 wiops=max",
        ],
    ),
    (
        {"hugepageLimits": [{"pageSize": "2MB", "limit": 4 << 20}]},
        ["hugetlb.2MB.limit_in_bytes 4194304", "hugetlb.2MB.rsvd.limit_in_bytes 4194304"],
        ["hugetlb.2MB.max 4194304", "hugetlb.2MB.rsvd.max 4194304"],
    ),
]  # fmt: skip


def of(value: dict[str, Any]) -> Resources:
    read = schema.read(Resources, value, "linux.resources", schema.refuse)
    assert isinstance(read, Resources)
    return read


def written(value: dict[str, Any], host: Mounted) -> list[str]:
    return [
        " or ".join(f"{file} {text}" for file, text in setting.ways) for setting in limits.settings(of(value), host)
    ]


@pytest.mark.parametrize(("value", "v1", "v2"), CASES)
def test_files_and_values(value: dict[str, Any], v1: list[str], v2: list[str]) -> None:
    assert written(value, V1) == v1
    assert written(value, V2) == v2


def test_what_one_version_has_alone() -> None:
    assert written({"network": {"classID": 1_048_577}}, V1) == ["net_cls.classid 1048577"]
    assert written({"rdma": {"mlx4_0": {"hcaHandles": 2, "hcaObjects": 9}}}, V2) == [
        "rdma.max mlx4_0 hca_handle=2 hca_object=9"
    ]
    unified = {"unified": {"io.max": "259:0 rbps=2097152\n253:0 wiops=120", "memory.high": "max"}}
    assert written(unified, V2) == ["io.max 259:0 rbps=2097152", "io.max 253:0 wiops=120", "memory.high max"]
    v1_alone = {"swappiness": 0, "disableOOMKiller": True}
    assert written({"memory": v1_alone}, V1) == ["memory.swappiness 0", "memory.oom_control 1"]


@pytest.mark.parametrize("host", [V1, V2], ids=["v1", "v2"])
def test_the_kernels_own_memory_is_not_limited_and_that_is_told(host: Mounted) -> None:
    value = {"memory": {"kernel": 5, "kernelTCP": 5, "limit": 7}}
    assert len(written(value, host)) == 1, "the limit's"
    found = schema.read(Resources, value, "", schema.refuse)
    assert [line.split()[0] for line in limits.ignored(found)] == [
        "linux.resources.memory.kernel", "linux.resources.memory.kernelTCP",
    ]  # fmt: skip
    none = schema.read(Resources, {"memory": {"kernel": -1, "kernelTCP": 0}}, "", schema.refuse)
    assert limits.ignored(none) == [], "no limit is what there is"


def test_in_hybrid_mode_each_controller_speaks_its_version() -> None:
    value = {"memory": {"limit": 5}, "hugepageLimits": [{"pageSize": "2MB", "limit": 5}]}
    assert written(value, HYBRID) == ["memory.limit_in_bytes 5", "hugetlb.2MB.max 5", "hugetlb.2MB.rsvd.max 5"]
    assert written({"unified": {"hugetlb.1GB.max": "0"}}, HYBRID) == ["hugetlb.1GB.max 0"]
    with pytest.raises(LimitError, match=r"memory\.high is a file of cgroup v2, where this host has no memory"):
        written({"unified": {"memory.high": "0"}}, HYBRID)


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        ({"memory": {"swappiness": 3}}, "memory.swappiness: cgroup v2 has nothing like it"),
        ({"memory": {"disableOOMKiller": True}}, "memory.disableOOMKiller: cgroup v2"),
        ({"memory": {"useHierarchy": False}}, "memory.useHierarchy: false: cgroup v2"),
        ({"memory": {"swap": 5}}, "memory.swap: it counts memory too"),
        ({"memory": {"limit": 6, "swap": 5}}, "memory.swap: 5 is less than the limit of 6"),
        ({"cpu": {"realtimeRuntime": 5}}, "cpu.realtimeRuntime: cgroup v2"),
        ({"cpu": {"realtimePeriod": 5}}, "cpu.realtimePeriod: cgroup v2"),
        ({"cpu": {"quota": 5, "burst": 6}}, "cpu.burst: 6 is more than the quota of 5"),
        ({"blockIO": {"leafWeight": 10}}, "blockIO.leafWeight: cgroup v2"),
        ({"blockIO": {"weightDevice": [{"major": 1, "minor": 1}]}}, r"weightDevice\[0\]: neither"),
        ({"rdma": {"x": {}}}, "rdma.x: neither"),
        ({"unified": {"../memory.max": "1"}}, "not the name of a cgroup file"),
        ({"unified": {"misc.max": "1"}}, "no misc controller"),
        ({"hugepageLimits": [{"pageSize": "../x", "limit": 1}]}, "not a page size"),
    ],
)
def test_what_v2_can_not_do_is_refused_by_name(value: dict[str, Any], complaint: str) -> None:
    with pytest.raises((LimitError, UsageError), match=rf"^linux\.resources.*{complaint}"):
        written(value, V2)


def test_weights_are_converted_at_their_ends_and_defaults() -> None:
    assert [limits.weight_of_shares(shares) for shares in (2, 1024, 262_144)] == [1, 39, 10_000]
    assert [limits.io_weight(weight) for weight in (10, 1000)] == [1, 10_000]


# On a tree of plain files, which the kernel's stand-in fills


Tree = Callable[[dict[str, str]], Group]


@pytest.fixture
def v2_tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tree:
    """A v2 host whose every new directory has these files."""

    def make(files: dict[str, str]) -> Group:
        everywhere = {
            "cgroup.controllers": "cpu memory pids io cpuset hugetlb",
            "cgroup.subtree_control": "",
            **files,
        }
        real = os.mkdir

        def mkdir(path: str, *arguments: int) -> None:
            real(path, *arguments)
            given = {"cgroup.controllers": ""} if str(path).endswith("/one") else {}
            for name, text in (everywhere | given).items():
                (Path(path) / name).write_text(text)

        monkeypatch.setattr(os, "mkdir", mkdir)
        monkeypatch.setattr(os, "rmdir", lambda path, real=os.rmdir: empty(path, real))
        monkeypatch.setattr(devices, "guard", lambda *_: None)
        (tmp_path / "v2").mkdir()
        return Group("machine/one", Mounted({}, str(tmp_path / "v2"), everywhere["cgroup.controllers"].split()))

    return make


def empty(path: str, rmdir: Callable[[str], None]) -> None:
    """rmdir(2) of a group takes its files along."""
    for place in Path(path).iterdir() if Path(path).is_dir() else ():
        if place.is_file():
            place.unlink()
    rmdir(path)


def test_controllers_are_passed_down_as_they_are_needed(v2_tree: Tree) -> None:
    group = v2_tree({"memory.max": "max", "cpuset.cpus": ""})
    resources.create(group, of({"memory": {"limit": 8192}, "cpu": {"cpus": "0"}}))
    root = Path(group.host.unified)
    assert (root / "machine/cgroup.subtree_control").read_text() == "+cpu +memory +pids +io +cpuset"
    assert (root / "machine/one/cgroup.subtree_control").read_text() == ""
    assert (root / "machine/one/memory.max").read_text() == "8192"
    assert (root / "machine/one/cpuset.cpus").read_text() == "0"
    assert not (root / "machine/cpu.weight").exists(), "a parent that is not lab's keeps its weight"


@pytest.mark.parametrize(
    ("value", "made"),
    [
        ({"pids": {"limit": 5}}, "7"),
        ({"pids": {"limit": 5}}, "max"),
        ({"memory": {"limit": 8192}}, "12288"),
        ({"memory": {"limit": -1}}, "8192"),
        ({"cpu": {"quota": 50_000}}, "40000 100000"),
    ],
)
def test_a_limit_that_does_not_hold_leaves_nothing(
    v2_tree: Tree, monkeypatch: pytest.MonkeyPatch, value: dict[str, Any], made: str
) -> None:
    group = v2_tree({})
    monkeypatch.setattr(cgroupfs, "write_and_read", lambda *_: made)
    with pytest.raises(LimitError, match=rf"did not hold: the kernel made it {made}$"):
        resources.create(group, of(value))
    assert not group.exists()


def test_no_swap_on_top_needs_no_account_of_swap(v2_tree: Tree) -> None:
    """Kernels without it have no file for that; more swap than none is a limit that can't be held."""
    group = v2_tree({"memory.max": "max"})
    resources.create(group, resources.of_limits(Limits(memory_bytes=8192)))
    assert group.read("memory", "memory.max") == "8192"
    with pytest.raises(LimitError, match=r"memory\.swap: this kernel's cgroups have no memory\.swap\.max"):
        resources.update(group, of({"memory": {"limit": 8192, "swap": 12_288}}))


def test_an_update_keeps_what_it_does_not_name(v2_tree: Tree) -> None:
    group = v2_tree(
        {"cpu.max": "max 100000", "memory.max": "max", "memory.swap.max": "max", "memory.current": "9000"}
    )
    resources.create(group, of({"cpu": {"quota": 20_000, "period": 40_000}, "memory": {"limit": 8192}}))
    resources.update(group, of({"cpu": {"quota": 10_000}, "memory": {"swap": 12_288}}))
    assert group.read("cpu", "cpu.max") == "10000 40000"
    assert group.read("memory", "memory.swap.max") == "4096"
    resources.update(group, of({"cpu": {"period": 80_000}}))
    assert group.read("cpu", "cpu.max") == "10000 80000"
    with pytest.raises(LimitError, match="8192 bytes are fewer than the 9000 in use"):
        resources.update(group, of({"memory": {"limit": 8192, "checkBeforeUpdate": True}}))


def test_statistics_of_v2_have_the_names_of_v1(v2_tree: Tree) -> None:
    group = v2_tree(
        {
            "cpu.stat": "usage_usec 30\nuser_usec 20\nsystem_usec 10\nnr_periods 4\nnr_throttled 1\nthrottled_usec 7",
            "memory.current": "500", "memory.max": "max", "memory.peak": "700", "memory.stat": "file 60\nkernel 5",
            "memory.events": "low 0\nmax 2", "memory.swap.current": "40", "memory.swap.max": "100",
            "memory.swap.events": "fail 3", "pids.current": "2", "pids.max": "max",
            "hugetlb.2MB.current": "6", "hugetlb.2MB.rsvd.current": "7", "hugetlb.2MB.events": "max 1",
            "io.stat": "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0",
        }
    )  # fmt: skip
    group.make()
    data: Any = stats.event(group, "x")["data"]
    assert data["cpu"] == {
        "usage": {"total": 30_000, "kernel": 10_000, "user": 20_000},
        "throttling": {"periods": 4, "throttledPeriods": 1, "throttledTime": 7_000},
    }
    assert data["memory"]["usage"] == {"limit": stats.UNLIMITED, "usage": 500, "max": 700, "failcnt": 2}
    assert data["memory"]["swap"] == {"limit": stats.UNLIMITED, "usage": 540, "failcnt": 3}
    assert (data["memory"]["cache"], data["memory"]["kernel"]) == (60, {"usage": 5})
    assert data["pids"] == {"current": 2, "limit": 0}
    assert data["hugetlb"] == {"2MB": {"usage": 6, "failcnt": 1}}
    assert {"major": 8, "minor": 0, "op": "Write", "value": 4} in data["blkio"]["ioServicedRecursive"]
    assert {"major": 8, "minor": 0, "op": "Read", "value": 1} in data["blkio"]["ioServiceBytesRecursive"]


def test_lists_of_numbers() -> None:
    assert numbers("0-2,5,7-8") == [0, 1, 2, 5, 7, 8]
    assert numbers("") == []


def test_carrying_out_imports_nothing_that_costs() -> None:
    source = str(Path(lab.__file__).parent.parent)
    code = (
        f"import sys; sys.path.insert(0, {source!r}); import lab.runtime.cgroup.resources, lab.runtime.cgroup.stats; "
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code + "print(*sys.modules)"], check=True, capture_output=True, text=True
    )
    costly = {
        "typing",
        "dataclasses",
        "enum",
        "re",
        "inspect",
        "pathlib",
        "contextlib",
        "functools",
        "ctypes",
        "json",
    }
    assert not set(done.stdout.split()) & costly
