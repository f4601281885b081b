"""Control groups on made-up hosts: v1, v2 and hybrid trees of plain files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lab.errors import GroupGone, LabError, LimitError
from lab.host import procstat
from lab.host.cgroup.control import ControlGroup, CpuUsage, PageFaults
from lab.host.cgroup.group import Group
from lab.host.cgroup.hierarchy import Hierarchies, Mode, Unused
from lab.model import Limits
from lab.runtime.cgroup import stats
from lab.runtime.cgroup.instances import limited

V1_CONTROLLERS = ("memory", "cpu,cpuacct", "pids", "freezer", "devices")


def host(root: Path, *, v1: bool, v2: bool, controllers: str = "cpu io memory pids") -> Path:
    """A tree with /proc/self/mountinfo and the mounts it tells of."""
    lines = ["22 1 0:20 / /proc rw - proc proc rw"]
    if v1:
        for number, names in enumerate(V1_CONTROLLERS):
            (root / "sys/fs/cgroup" / names).mkdir(parents=True)
            lines.append(f"{30 + number} 23 0:{30 + number} / /sys/fs/cgroup/{names} rw - cgroup cgroup rw,{names}")
        lines.append("40 23 0:40 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd")
    if v2:
        place = "sys/fs/cgroup/unified" if v1 else "sys/fs/cgroup"
        (root / place).mkdir(parents=True)
        (root / place / "cgroup.controllers").write_text(controllers if not v1 else "")
        (root / place / "cgroup.subtree_control").write_text("")
        lines.append(f"50 23 0:50 / /{place} rw shared:1 - cgroup2 cgroup2 rw")
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/mountinfo").write_text("\n".join(lines) + "\n")
    return root


def test_v1_is_found_by_controller_and_named_hierarchies_are_left_alone(tmp_path: Path) -> None:
    found = Hierarchies.detect(host(tmp_path, v1=True, v2=False))
    assert found.mode is Mode.V1
    assert found.mount_of("cpu") == found.mount_of("cpuacct") == tmp_path / "sys/fs/cgroup/cpu,cpuacct"
    assert found.mount_of("io") is None
    assert [mount.name for mount in found.joined()] == ["memory", "cpu,cpuacct", "pids", "freezer", "devices"]


def test_hybrid_kills_and_freezes_by_the_unified_tree(tmp_path: Path) -> None:
    found = Hierarchies.detect(host(tmp_path, v1=True, v2=True))
    assert found.mode is Mode.HYBRID
    assert [mount.name for mount in found.joined()] == ["memory", "cpu,cpuacct", "pids", "unified"]


@pytest.mark.parametrize("v1", [False, True])
def test_what_does_not_freeze_in_time_goes_on_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, v1: bool
) -> None:
    root = tmp_path / "sys/fs/cgroup"
    group = ControlGroup.open("one", hierarchies=Hierarchies.detect(host(tmp_path, v1=v1, v2=not v1)))
    for directory in group.directories:
        directory.mkdir(parents=True, exist_ok=True)
    if v1:
        order = root / "freezer/one/freezer.state"
        order.write_text("")
    else:
        order = root / "one/cgroup.freeze"
        order.write_text("")
        (root / "one/cgroup.events").write_text("populated 1\nfrozen 0\n")
    monkeypatch.setattr(Group, "is_frozen", lambda self: False)
    with pytest.raises(LabError, match="did not freeze"):
        group.freeze(0.01)
    assert order.read_text() == ("THAWED" if v1 else "0")


def test_v2_alone(tmp_path: Path) -> None:
    found = Hierarchies.detect(host(tmp_path, v1=False, v2=True))
    assert found.mode is Mode.V2
    assert found.joined() == (tmp_path / "sys/fs/cgroup",)
    assert found.mount_of("memory") == tmp_path / "sys/fs/cgroup"
    assert found.mount_of("hugetlb") is None


@pytest.mark.parametrize(
    ("v1", "v2", "rest"),
    [(True, False, ["systemd"]), (True, True, ["freezer", "devices", "systemd"]), (False, True, [])],
)
def test_what_lab_does_not_use_other_runtimes_do(tmp_path: Path, v1: bool, v2: bool, rest: list[str]) -> None:
    unused = Unused.detect(host(tmp_path, v1=v1, v2=v2))
    assert [mount.name for mount in unused.joined()] == rest
    for mount in unused.joined():
        (mount / "lab/s/i").mkdir(parents=True)
    group = ControlGroup.open("lab/s/i", hierarchies=unused)
    assert group.exists() is bool(rest)
    group.remove()
    assert not any((mount / "lab").exists() for mount in unused.joined())


def test_no_cgroups_at_all(tmp_path: Path) -> None:
    found = Hierarchies.detect(host(tmp_path, v1=False, v2=False))
    assert found.mode is Mode.NONE
    with pytest.raises(LabError, match="no cgroup hierarchy"):
        limited("lab/s/i", Limits(), hierarchies=found)


@pytest.mark.parametrize("path", ["/lab", "../lab", "lab/../..", ""])
def test_a_path_stays_below_the_root(tmp_path: Path, path: str) -> None:
    with pytest.raises(ValueError, match="below its root"):
        ControlGroup.open(path, hierarchies=Hierarchies.detect(host(tmp_path, v1=False, v2=True)))


def test_a_missing_controller_is_an_error_and_makes_nothing(tmp_path: Path) -> None:
    found = Hierarchies.detect(host(tmp_path, v1=False, v2=True, controllers="cpu io"))
    with pytest.raises(LimitError, match="no memory cgroup controller"):
        limited("lab/s/i", Limits(memory_bytes=1 << 20), hierarchies=found)
    assert not (tmp_path / "sys/fs/cgroup/lab").exists()


def test_controllers_are_passed_down_to_the_leafs_parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Plain files don't appear by themselves as the kernel's do, so every mkdir brings them."""
    found = Hierarchies.detect(host(tmp_path, v1=False, v2=True))
    real = os.mkdir

    def mkdir(path: str, *arguments: int) -> None:
        real(path, *arguments)
        (Path(path) / "cgroup.controllers").write_text("" if str(path).endswith("/one") else "cpu memory pids")
        (Path(path) / "cgroup.subtree_control").write_text("")

    monkeypatch.setattr(os, "mkdir", mkdir)
    limited("lab/session/one", Limits(), hierarchies=found)
    top = tmp_path / "sys/fs/cgroup"
    assert (top / "cgroup.subtree_control").read_text() == "+cpu +memory +pids +io"
    for parent in ("lab", "lab/session"):
        assert (top / parent / "cgroup.subtree_control").read_text() == "+cpu +memory +pids"
    assert (top / "lab/session/one/cgroup.subtree_control").read_text() == ""


def group(tmp_path: Path, *, v1: bool, v2: bool, files: dict[str, str]) -> ControlGroup:
    found = Hierarchies.detect(host(tmp_path, v1=v1, v2=v2))
    opened = ControlGroup.open("lab/s/i", hierarchies=found)
    for directory in opened.directories:
        directory.mkdir(parents=True)
    for name, text in files.items():
        (tmp_path / "sys/fs/cgroup" / name.replace("@", "lab/s/i")).write_text(text)
    return opened


def test_limits_of_v2_are_read(tmp_path: Path) -> None:
    files = {"@/memory.max": "1048576\n", "@/cpu.max": "150000 100000\n", "@/pids.max": "7\n"}
    held = group(tmp_path, v1=False, v2=True, files=files).effective_limits()
    assert held == Limits(memory_bytes=1 << 20, cpus=1.5, pids=7)


def test_no_limits_of_v2_are_read_as_none(tmp_path: Path) -> None:
    files = {"@/memory.max": "max\n", "@/cpu.max": "max 100000\n", "@/pids.max": "max\n"}
    assert group(tmp_path, v1=False, v2=True, files=files).effective_limits() == Limits()


def test_no_limits_of_v1_are_read_as_none(tmp_path: Path) -> None:
    files = {
        "memory/@/memory.limit_in_bytes": "9223372036854771712\n",
        "cpu,cpuacct/@/cpu.cfs_quota_us": "-1\n",
        "cpu,cpuacct/@/cpu.cfs_period_us": "100000\n",
        "pids/@/pids.max": "max\n",
    }
    assert group(tmp_path, v1=True, v2=False, files=files).effective_limits() == Limits()


def test_memory_of_v2(tmp_path: Path) -> None:
    stat = "anon 100\nfile 70\nshmem 20\nkernel 30\ninactive_file 50\n"
    usage = group(
        tmp_path,
        v1=False,
        v2=True,
        files={"@/memory.current": "200\n", "@/memory.stat": stat, "@/memory.max": "max\n"},
    ).memory()
    assert (usage.usage_bytes, usage.anon_bytes, usage.file_bytes, usage.kernel_bytes) == (200, 100, 70, 30)
    assert usage.shared_bytes == 20
    assert usage.working_set_bytes == 150
    assert usage.peak_bytes is None
    assert usage.limit_bytes is None


def test_faults_of_both_versions_are_told_apart(tmp_path: Path) -> None:
    """The kernel's first count has the second in it; v1's of the group and all below it begins with total."""
    v2 = {"@/memory.stat": "pgfault 70\npgmajfault 20\n"}
    v1 = {"memory/@/memory.stat": "pgfault 7\npgmajfault 2\ntotal_pgfault 70\ntotal_pgmajfault 20\n"}
    wanted = PageFaults(minor=50, major=20)
    assert group(tmp_path / "v2", v1=False, v2=True, files=v2).faults() == wanted
    assert group(tmp_path / "v1", v1=True, v2=False, files=v1).faults() == wanted
    assert group(tmp_path / "none", v1=False, v2=True, files={"@/memory.stat": "anon 1\n"}).faults() is None


def test_cpu_of_both_versions_is_in_seconds(tmp_path: Path) -> None:
    wanted = (3.0, 2.0, 1.0, 0.5, 4)

    def seconds(used: CpuUsage) -> tuple[float, ...]:
        times = (used.total_seconds, used.user_seconds, used.system_seconds, used.throttled_seconds)
        return (*times, used.throttled_periods)

    v2 = "usage_usec 3000000\nuser_usec 2000000\nsystem_usec 1000000\nnr_throttled 4\nthrottled_usec 500000\n"
    assert seconds(group(tmp_path / "v2", v1=False, v2=True, files={"@/cpu.stat": v2}).cpu()) == wanted
    v1 = {
        "cpu,cpuacct/@/cpuacct.usage": "3000000000\n",
        "cpu,cpuacct/@/cpuacct.usage_user": "2000000000\n",
        "cpu,cpuacct/@/cpuacct.usage_sys": "1000000000\n",
        "cpu,cpuacct/@/cpu.stat": "nr_periods 9\nnr_throttled 4\nthrottled_time 500000000\n",
    }
    assert seconds(group(tmp_path / "v1", v1=True, v2=False, files=v1).cpu()) == wanted


READS = {
    "memory": ControlGroup.memory,
    "cpu": ControlGroup.cpu,
    "effective_limits": ControlGroup.effective_limits,
    "limit_hits": ControlGroup.limit_hits,
    "is_frozen": lambda group: group.group.is_frozen(),
    "stats": lambda group: stats.stats(Group(str(group.path), group.hierarchies.mounted())),
}


@pytest.mark.parametrize("name", READS)
@pytest.mark.parametrize("versions", [(True, False), (True, True), (False, True)])
def test_a_group_that_is_not_there_is_the_same_error_for_every_read(
    tmp_path: Path, versions: tuple[bool, bool], name: str
) -> None:
    """One that was never made, as the no-op instance's, and one that ended between two looks."""
    v1, v2 = versions
    found = Hierarchies.detect(host(tmp_path, v1=v1, v2=v2))
    with pytest.raises(GroupGone):
        READS[name](ControlGroup.open("lab/s/i", hierarchies=found))


@pytest.mark.parametrize("versions", [(True, False), (True, True), (False, True)])
def test_a_group_that_the_host_does_not_account_for_tells_nothing_or_says_so(
    tmp_path: Path, versions: tuple[bool, bool]
) -> None:
    v1, v2 = versions
    silent = group(tmp_path, v1=v1, v2=v2, files={})
    assert silent.effective_limits() == Limits()
    assert silent.memory() is None
    with pytest.raises(LabError) as caught:
        silent.cpu()
    assert not isinstance(caught.value, GroupGone)


@pytest.mark.parametrize(
    ("state", "flags", "lives"),
    [("S", 0x400100, True), ("R", 0, True), ("Z", 0x40010C, False), ("X", 0, False), ("S", 0x208040, False)],
)
def test_zombies_and_threads_of_the_kernel_are_nobodys_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: str, flags: int, lives: bool
) -> None:
    """The last is kvm-nx-lpage-recovery's, which KVM puts into the group of each QEMU."""
    line = f"7 (kvm) nx (lpage) {state} 2 0 0 0 -1 {flags} 0 0 0 0 0 0 0\n".encode()
    monkeypatch.setattr(procstat, "line", lambda pid: line)
    held = group(tmp_path, v1=False, v2=True, files={"@/cgroup.procs": "7\n"})
    assert held.processes() == ({7} if lives else set())
