"""linux.resources on this host: what runc writes for a configuration, we write; and what changes while it runs."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.errors import LabError, LimitError, UsageError
from lab.host.cgroup import mounted
from lab.host.cgroup.control import ControlGroup
from lab.host.cgroup.group import Group
from lab.host.cgroup.hierarchy import Hierarchies, Unused, make_room
from lab.host.cgroup.mounted import Mounted
from lab.runtime.cgroup import resources, stats
from lab.runtime.config import schema
from lab.runtime.config.model import Resources

MIB = 1 << 20
COMPARED = {
    "memory": (
        "memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "memory.soft_limit_in_bytes", "memory.swappiness",
        "memory.oom_control", "memory.kmem.tcp.limit_in_bytes", "memory.use_hierarchy",
    ),
    "cpu": (
        "cpu.shares", "cpu.cfs_quota_us", "cpu.cfs_period_us", "cpu.cfs_burst_us", "cpu.rt_runtime_us",
        "cpu.rt_period_us", "cpu.idle",
    ),
    "cpuset": ("cpuset.cpus", "cpuset.mems"),
    "pids": ("pids.max",),
    "blkio": tuple(f"blkio.throttle.{way}_{unit}_device" for way in ("read", "write") for unit in ("bps", "iops")),
    "devices": ("devices.list",),
}  # fmt: skip
TUN = "c 10:200 rwm"  # allowed by default up to runc 1.1, no more since 1.2, and not by us

CASES: dict[str, dict[str, Any]] = {
    "nothing": {},
    "memory": {
        "memory": {
            "limit": 64 * MIB, "swap": 128 * MIB, "reservation": 32 * MIB, "swappiness": 7,
            "disableOOMKiller": True, "kernel": 8 * MIB, "kernelTCP": 8 * MIB,
        },
    },
    "no limit": {"memory": {"limit": -1, "swap": -1}, "pids": {"limit": -1}, "cpu": {"quota": -1}},
    "odd bytes": {"memory": {"limit": 64 * MIB + 17}},
    "cpu": {"cpu": {"shares": 512, "quota": 50_000, "period": 200_000, "cpus": "0", "mems": "0"}},
    "pids": {"pids": {"limit": 23}},
    "devices": {
        "devices": [
            {"allow": False, "access": "rwm"},
            {"allow": True, "type": "c", "major": 10, "minor": 229, "access": "rw"},
            {"allow": True, "type": "b", "major": 8, "access": "r"},
            {"allow": False, "type": "b", "major": 8, "access": "r"},
        ]
    },
    "everything": {"devices": [{"allow": True, "access": "rwm"}]},
}  # fmt: skip


def of(value: dict[str, Any]) -> Resources:
    read = schema.read(Resources, value, "linux.resources", schema.refuse)
    assert isinstance(read, Resources)
    return read


@pytest.fixture
def path() -> Iterator[str]:
    name = f"lab/test-{uuid.uuid4().hex[:8]}/one"
    yield name
    for tree in (Hierarchies.detect(), Unused.detect()):
        ControlGroup.open(name, hierarchies=tree).remove()


@pytest.fixture
def group(path: str) -> Iterator[Group]:
    if mounted.host().is_v2:
        pytest.skip("this host has no v1 hierarchies")
    made = Group(path)
    yield made
    made.kill()
    made.remove(keep_parents=False)
    assert not Group(path).exists()


@pytest.fixture
def disk() -> str:
    """Any whole disk's numbers."""
    found = sorted(place for place in Path("/sys/block").iterdir() if not place.name.startswith(("loop", "ram")))
    if not found:
        pytest.skip("this host has no disk to throttle")
    return (found[0] / "dev").read_text().strip()


def shown(name: str) -> dict[str, str]:
    """What the kernel holds for the group, as far as a configuration may set it."""
    found = {}
    for controller, files in COMPARED.items():
        place = mounted.host().v1.get(controller)
        for file in files:
            held = Path(f"{place}/{name}/{file}")
            if place and held.exists():
                found[file] = held.read_text()
    found["memory.oom_control"] = found["memory.oom_control"].splitlines()[0]
    found["devices.list"] = "\n".join(sorted(set(found["devices.list"].splitlines()) - {TUN}))
    return found


def alike(theirs: dict[str, str], ours: dict[str, str]) -> dict[str, str]:
    """Theirs, but for a cpuset that nobody asked for: we make none."""
    return {file: text for file, text in theirs.items() if file in ours or not file.startswith("cpuset.")}


def by_runc(value: dict[str, Any], name: str, bundle: Path, root: Path) -> dict[str, str]:
    if shutil.which("runc") is None:
        pytest.skip("runc is not installed")
    subprocess.run(["runc", "spec", "--bundle", bundle], check=True)
    config = json.loads((bundle / "config.json").read_text())
    config["root"]["path"] = str(root)
    config["process"]["terminal"] = False
    config["linux"] |= {"resources": value, "cgroupsPath": f"/{name}"}
    (bundle / "config.json").write_text(json.dumps(config))
    make_room(name)
    identity = name.replace("/", "-")
    done = subprocess.run(
        ["runc", "create", "--bundle", bundle, identity], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=(bundle / "log").open("w"), timeout=250, check=False,
    )  # fmt: skip
    assert done.returncode == 0, (bundle / "log").read_text()
    try:
        return shown(name)
    finally:
        subprocess.run(["runc", "delete", "--force", identity], check=True, timeout=250)


@pytest.mark.parametrize("case", CASES)
def test_what_runc_writes_we_write(case: str, path: str, group: Group, tmp_path: Path, busybox_root: Path) -> None:
    theirs = by_runc(CASES[case], path, tmp_path, busybox_root)
    resources.create(group, of(CASES[case]))
    ours = shown(path)
    assert ours == alike(theirs, ours)
    assert ours.keys() >= {"memory.limit_in_bytes", "cpu.shares", "pids.max", "devices.list"}


def test_time_for_realtime_reaches_the_parents_first(group: Group) -> None:
    """A new group has none, and none can have more than its parent: runc fails here."""
    if not Path(group.host.mount_of("cpu"), "cpu.rt_runtime_us").exists():
        pytest.skip("this kernel shares out no time for realtime (CONFIG_RT_GROUP_SCHED)")
    resources.create(group, of({"cpu": {"realtimeRuntime": 1_000, "realtimePeriod": 1_000_000}}))
    assert group.read("cpu", "cpu.rt_runtime_us") == "1000"
    above = Path(group.file("cpu", "cpu.rt_runtime_us")).parents[1] / "cpu.rt_runtime_us"
    assert int(above.read_text()) >= 1_000


def test_huge_pages_of_either_version(group: Group) -> None:
    sizes = [place.name.removeprefix("hugepages-") for place in Path("/sys/kernel/mm/hugepages").iterdir()]
    if "2048kB" not in sizes or not group.host.mount_of("hugetlb"):
        pytest.skip("this host has no hugetlb controller, or no pages of 2 MB")
    resources.create(group, of({"hugepageLimits": [{"pageSize": "2MB", "limit": 4 * MIB}]}))
    file = "hugetlb.2MB.max" if group.host.on_v2("hugetlb") else "hugetlb.2MB.limit_in_bytes"
    assert group.read("hugetlb", file) == str(4 * MIB)
    assert stats.stats(group)["hugetlb"].keys() >= {"2MB"}  # type: ignore[attr-defined]


def test_throttles_as_runc_writes_them(
    path: str, group: Group, tmp_path: Path, busybox_root: Path, disk: str
) -> None:
    major, minor = map(int, disk.split(":"))
    limits = {"major": major, "minor": minor, "rate": 1_048_576}
    value = {"blockIO": {"throttleReadBpsDevice": [limits], "throttleWriteIOPSDevice": [limits | {"rate": 50}]}}
    theirs = by_runc(value, path, tmp_path, busybox_root)
    resources.create(group, of(value))
    assert shown(path) == alike(theirs, shown(path))
    assert shown(path)["blkio.throttle.read_bps_device"] == f"{disk} 1048576\n"


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        ({"network": {"classID": 7}}, r"network.classID: this host has no net_cls cgroup controller"),
        ({"network": {"priorities": [{"name": "lo", "priority": 1}]}}, r"network.priorities: .*no net_prio"),
        ({"hugepageLimits": [{"pageSize": "3MB", "limit": 2 * MIB}]}, r"hugepageLimits 3MB: .*no hugetlb"),
        ({"rdma": {"mlx5_1": {"hcaHandles": 3}}}, r"rdma.mlx5_1: this host has no rdma"),
        ({"unified": {"memory.high": "1000000"}}, r"unified: memory.high is a file of cgroup v2"),
        ({"blockIO": {"leafWeight": 10}}, r"blockIO.leafWeight: this kernel's cgroups have no blkio.leaf_weight"),
        ({"cpu": {"shares": 1}}, r"cpu.shares: 1 did not hold: the kernel made it 2"),
        ({"cpu": {"cpus": "4095"}}, r"cpu.cpus: .*4095"),
        ({"memory": {"limit": 8 * MIB, "swap": 4 * MIB}}, r"memory.swap: .* less than the limit"),
    ],
)
def test_what_can_not_be_done_is_refused_by_name(value: dict[str, Any], complaint: str, group: Group) -> None:
    controllers = {"network": "net_cls", "rdma": "rdma"}
    for name, controller in controllers.items():
        if name in value and group.host.mount_of(controller):
            pytest.skip(f"this host has the {controller} controller")
    with pytest.raises((LimitError, UsageError), match=f"linux.resources.{complaint}"):
        resources.create(group, of(value))
    assert not Group(group.path).exists(), "nothing is left behind"


def test_limits_change_in_both_directions(group: Group) -> None:
    """Memory is never more than memory and swap, a burst never more than a quota: the order matters."""
    resources.create(
        group, of({"memory": {"limit": 64 * MIB, "swap": 64 * MIB}, "cpu": {"quota": 20_000, "burst": 10_000}})
    )
    for memory, quota in ((256 * MIB, 90_000), (16 * MIB, 5_000), (512 * MIB, 200_000)):
        resources.update(
            group, of({"memory": {"limit": memory, "swap": memory}, "cpu": {"quota": quota, "burst": quota}})
        )
        held = shown(group.path)
        assert held["memory.limit_in_bytes"] == held["memory.memsw.limit_in_bytes"] == f"{memory}\n"
        assert held["cpu.cfs_quota_us"] == held["cpu.cfs_burst_us"] == f"{quota}\n"
    resources.update(group, of({"memory": {"limit": -1}, "cpu": {"period": 50_000}, "pids": {"limit": 9}}))
    held = shown(group.path)
    assert int(held["memory.memsw.limit_in_bytes"]) > 1 << 62
    assert (held["cpu.cfs_period_us"], held["cpu.cfs_quota_us"], held["pids.max"]) == ("50000\n", "200000\n", "9\n")


def test_an_update_reaches_controllers_that_nobody_asked_for_before(group: Group) -> None:
    resources.create(group, Resources())
    assert not group.has("cpuset", "cpuset.cpus")
    sleeper = subprocess.Popen(["sleep", "600"])
    try:
        group.add(sleeper.pid)
        resources.update(group, of({"cpu": {"cpus": "0"}}))
        assert os.sched_getaffinity(sleeper.pid) == {0}
        assert f":cpuset:/{group.path}\n" in Path(f"/proc/{sleeper.pid}/cgroup").read_text()
    finally:
        sleeper.kill()
        sleeper.wait()


def test_less_memory_than_is_in_use_is_refused(group: Group) -> None:
    resources.create(group, of({"memory": {"limit": 64 * MIB}}))
    script = "read go; x=$(head -c 16777216 /dev/zero | tr '\\0' x); echo full; sleep 600; :"
    eater = subprocess.Popen(["sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        group.add(eater.pid)
        assert eater.stdin is not None
        assert eater.stdout is not None
        eater.stdin.write(b"\n")
        eater.stdin.flush()
        assert eater.stdout.readline() == b"full\n"
        with pytest.raises(LimitError, match=r"memory\.limit: .*busy"):
            resources.update(group, of({"memory": {"limit": 2 * MIB, "swap": 2 * MIB}}))
    finally:
        group.kill()
        eater.wait()


@pytest.mark.parametrize("without_v2", [False, True])
def test_frozen_signalled_and_killed(group: Group, without_v2: bool) -> None:
    if without_v2:
        group = Group(group.path, Mounted(group.host.v1, "", ()))
    resources.create(group, Resources())
    assert bool(group.unified) is (bool(group.host.unified) and not without_v2)
    script = "trap 'exit 3' TERM; read go; sleep 600 & wait"
    sleepers = [subprocess.Popen(["sh", "-c", script], stdin=subprocess.PIPE) for _ in range(2)]
    for sleeper in sleepers:
        group.add(sleeper.pid)
        assert sleeper.stdin is not None
        sleeper.stdin.write(b"\n")
        sleeper.stdin.close()
    deadline = time.monotonic() + 60
    while len(group.processes()) < 4 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(group.processes()) == 4
    group.freeze()
    assert group.is_frozen()
    group.signal(signal.SIGTERM)
    assert all(sleeper.poll() is None for sleeper in sleepers)
    group.thaw()
    assert not group.is_frozen()
    assert [sleeper.wait(120) for sleeper in sleepers] == [3, 3]
    late = subprocess.Popen(["sleep", "600"])
    group.add(late.pid)
    group.freeze()
    group.kill()
    assert group.processes() == set()
    assert late.wait(120) == -signal.SIGKILL
    group.remove()


def test_statistics_have_runcs_names(path: str, group: Group, tmp_path: Path, busybox_root: Path) -> None:
    value = {"cpu": {"cpus": "0"}, "memory": {"limit": 64 * MIB}, "pids": {"limit": 9}}
    resources.create(group, of(value))
    worker = subprocess.Popen(["sh", "-c", "read go; i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done"], stdin=-1)
    group.add(worker.pid)
    worker.communicate(b"\n", timeout=250)
    ours = stats.event(group, "one")
    group.remove()
    theirs = statistics_of_runc(value, path, tmp_path, busybox_root)
    # Which of blkio's lists there are depends on what was read and written meanwhile.
    wanted = {name for name in names(theirs) if name[:2] != ("data", "blkio")} - {("data", "memory", "raw")}
    assert names(ours) >= wanted
    data = ours["data"]
    assert isinstance(data, dict)
    assert data["cpu"]["usage"]["total"] > 0
    assert data["memory"]["usage"]["limit"] == 64 * MIB
    assert data["memory"]["usage"]["max"] > 0
    assert data["pids"] == {"current": 0, "limit": 9}
    assert data["cpuset"]["cpus"] == [0]


def statistics_of_runc(value: dict[str, Any], name: str, bundle: Path, root: Path) -> dict[str, Any]:
    identity = name.replace("/", "-")
    subprocess.run(["runc", "spec", "--bundle", bundle], check=True)
    config = json.loads((bundle / "config.json").read_text())
    config["root"]["path"] = str(root)
    config["process"] |= {"terminal": False, "args": ["sleep", "600"]}
    config["linux"] |= {"resources": value, "cgroupsPath": f"/{name}"}
    (bundle / "config.json").write_text(json.dumps(config))
    make_room(name)
    null = subprocess.DEVNULL
    subprocess.run(["runc", "run", "-d", "-b", bundle, identity], stdin=null, stdout=null, stderr=null, check=True)
    try:
        done = subprocess.run(["runc", "events", "--stats", identity], capture_output=True, text=True, check=True)
    finally:
        subprocess.run(["runc", "delete", "--force", identity], check=True, timeout=250)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def names(value: object, above: tuple[str, ...] = ()) -> set[tuple[str, ...]]:
    """The path of every name, but of what memory.stat holds."""
    found = set()
    for name, inner in value.items() if isinstance(value, dict) and above[-1:] != ("raw",) else ():
        found |= {(*above, name)} | names(inner, (*above, name))
    return found


@pytest.mark.parametrize("given", ["/lab/test/x", "lab/test/x"])
def test_a_path_is_taken_from_the_root_of_each_hierarchy(given: str) -> None:
    assert resources.group_of(given, "id").path == "lab/test/x"


def test_paths_that_can_not_be_meant() -> None:
    assert resources.group_of("", "id").path == "lab/oci/id"
    for given in ("../x", "/lab/../../x"):
        with pytest.raises(UsageError, match=r"linux\.cgroupsPath"):
            resources.group_of(given, "id")
    with pytest.raises(LabError, match="cgroup"):
        Group("lab/none").file("nothing", "x")
