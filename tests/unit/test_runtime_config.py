"""OCI configurations: read, written, refused by path, and translated to a plan."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lab.errors import UsageError
from lab.host.identity import ownspace
from lab.model import Limits, Process
from lab.record import replace
from lab.runtime import bundle
from lab.runtime.cgroup import devices, resources
from lab.runtime.config import capabilities, model
from lab.runtime.config.model import Config, DeviceRule, Namespace, ProcessConfig, Resources
from lab.runtime.plan import CgroupsPlan, Enter, Plan, Progress, Step
from lab.runtime.planning import translate
from lab.runtime.rootfs.mounts import (
    Bind,
    CgroupView,
    DefaultDevices,
    DirectoryRoot,
    FileSystem,
    Operation,
    OverlayRoot,
    from_json,
)
from lab.runtime.rootfs.rootpath import Root

PROCESS = Process(argv=("/bin/app", "x"), environment={"A": "b"}, working_directory="/srv", uid=5, gid=6)
LIMITS = Limits(memory_bytes=64 << 20, cpus=1.5, pids=50)


ROOT = DirectoryRoot(target="/root", source="/source")


V1 = CgroupsPlan(unified="/u", tasks=["/x"])


def plan_of(
    whole: Config, root: Operation = ROOT, cgroups: CgroupsPlan = V1, controllers: tuple[str, ...] = ("memory",)
) -> Plan:
    return translate.plan(whole, root, name="c", cgroups=cgroups, cgroup_controllers=controllers, init=True)


def test_what_is_written_is_read_again() -> None:
    for made in (bundle.container_config(PROCESS, LIMITS, hostname="h"), bundle.process_config(PROCESS, LIMITS)):
        text = json.dumps(model.to_json(made))
        assert model.from_json(json.loads(text)) == made


def test_names_are_the_specifications() -> None:
    value = model.to_json(bundle.container_config(PROCESS, LIMITS))
    assert value["ociVersion"] == "1.0.2"
    assert value["process"]["noNewPrivileges"] is True
    assert value["linux"]["resources"]["memory"] == {"limit": 64 << 20, "swap": 64 << 20}
    assert value["linux"]["resources"]["cpu"] == {"quota": 150_000, "period": 100_000}
    assert value["linux"]["seccomp"]["defaultErrnoRet"] == 1
    assert {"allow": False, "type": "a", "access": "rwm"} in value["linux"]["resources"]["devices"]


WHOLE = {"ociVersion": "1.0.2", "root": {"path": "rootfs"}, "process": {"args": ["true"], "cwd": "/"}}


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"bogus": {}}, "bogus is not supported"),
        ({"windows": {}}, "windows is not supported: lab runs Linux containers"),
        ({"linux": {"intelRdt": {"closID": 5}}}, "linux.intelRdt.closID is not a string"),
        ({"mounts": [{"destination": "/a"}, {"destination": "/b", "idMap": []}]}, r"mounts\[1\].idMap is not"),
        ({"process": {"cwd": "/"}}, "process.args is missing: a list"),
        ({"process": {"args": ["a"], "cwd": "x"}}, 'process.cwd is not an absolute path: "x"'),
        ({"process": {"args": "a"}}, 'process.args is not a list: "a"'),
        ({"process": {"args": [1]}}, r"process.args\[0\] is not a string without a null character: 1"),
        ({"process": {"args": ["a"], "user": {"uid": True}}}, "process.user.uid is not an integer from 0 to 4294"),
        ({"annotations": {"a": 1}}, "annotations.a is not a string"),
        ({"ociVersion": "2.0.0"}, "ociVersion is not a version 1.x.y"),
        ({"root": {}}, "root.path is missing"),
    ],
)
def test_what_is_wrong_or_not_supported_is_told_by_its_path(change: dict[str, object], complaint: str) -> None:
    with pytest.raises(UsageError, match=f"^config.json: {complaint}"):
        model.from_json({**WHOLE, **change})


def test_what_the_specification_does_not_know_is_the_callers_to_judge() -> None:
    told: list[str] = []
    assert model.from_json({**WHOLE, "root": {"path": "r", "colour": 1}}, told.append).root.path == "r"
    assert told == ["root.colour"]


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)
    )
)
def test_anything_else_is_a_usage_error(value: object) -> None:
    with pytest.raises(UsageError):
        model.from_json(value)


def test_the_default_is_dockers() -> None:
    plan = plan_of(bundle.container_config(PROCESS, LIMITS))
    assert plan.process.bounding == capabilities.mask(capabilities.DOCKER_DEFAULT) == 0xA80425FB
    assert plan.process.effective == 0, "another user than root has no capability in effect"
    assert plan.cgroup_namespace
    assert plan.loopback_up
    assert plan.process.no_new_privileges
    assert plan.process.seccomp
    assert [path["target"] for path in plan.masks][:3] == ["/proc/acpi", "/proc/asound", "/proc/interrupts"]
    text = json.dumps(plan.to_json())
    assert json.dumps(Plan.from_json(json.loads(text)).to_json()) == text


def test_the_control_has_nothing_of_it() -> None:
    plan = plan_of(bundle.process_config(Process(argv=("a",)), network_namespace="/proc/1/ns/net"))
    assert not plan.process.seccomp
    assert not plan.process.no_new_privileges
    assert not plan.masks
    assert plan.process.effective == capabilities.mask(capabilities.held())
    assert [path for path, _ in plan.joins] == ["/proc/1/ns/net"]


@given(
    st.dictionaries(st.text(min_size=1) | st.sampled_from(["lab.enter", "lab.init", "run.oci.handler"]), st.text())
)
@example({"lab.enter": "chroot"})
def test_no_annotation_changes_what_is_done(annotations: dict[str, str]) -> None:
    """An image's annotations arrive in the configuration (podman): hooks are told of them, and nothing else."""
    with_them, without = plan_of(with_process(annotations=annotations)), plan_of(with_process())
    assert replace(with_them, state={}) == replace(without, state={})


def test_limits_become_resources_that_survive_the_round_trip() -> None:
    container, process = bundle.container_config(PROCESS, LIMITS), bundle.process_config(PROCESS, LIMITS)
    for made, rules in ((container, bundle.DEVICE_RULES), (process, ())):
        read = model.from_json(model.to_json(made)).linux.resources
        assert read == resources.of_limits(LIMITS, rules)
        assert read.memory is not None
        assert (read.memory.limit, read.memory.swap) == (LIMITS.memory_bytes, LIMITS.memory_bytes)
    assert bundle.process_config(PROCESS).linux.resources == Resources()


def with_process(**fields: object) -> Config:
    return Config(
        process=ProcessConfig(args=("a",)), linux=model.Linux(namespaces=(Namespace(type="mount"),)), **fields  # type: ignore[arg-type]
    )  # fmt: skip


def test_layers_take_a_mount_namespace() -> None:
    bare = Config(process=ProcessConfig(args=("a",)))
    assert plan_of(bare).enter == Enter.IN_PLACE
    with pytest.raises(UsageError, match="mount namespace"):
        plan_of(bare, OverlayRoot(target="/root", lower=("/l",), upper="/u", work="/w"))


def test_mounts_are_described_and_survive_json() -> None:
    whole = bundle.container_config(PROCESS, extra_mounts=(bundle.bind("/etc/hosts", "/etc/hosts"),))
    operations = translate.operations(whole, ("memory", "cpu"))
    assert [type(operation) for operation in operations[:3]] == [FileSystem, FileSystem, DefaultDevices]
    assert [from_json(json.loads(json.dumps(operation.to_json()))) for operation in operations] == operations
    lines = [operation.describe() for operation in operations]
    assert "proc on /proc" in lines
    assert "sysfs on /sys read-only" in lines
    assert "/etc/hosts on /etc/hosts read-only" in lines
    assert "cgroups on /sys/fs/cgroup: memory cpu" in lines


@pytest.mark.parametrize(
    ("cgroups", "controllers", "shown"),
    [
        (V1, ("memory",), "CgroupView"),
        (CgroupsPlan(unified="/u", tasks=[]), (), "CgroupView"),  # cgroup v2
        (CgroupsPlan(unified="", tasks=[]), (), "FileSystem"),
    ],
)
def test_an_ordinary_user_s_container_is_shown_its_group_where_it_has_one(
    monkeypatch: pytest.MonkeyPatch, cgroups: CgroupsPlan, controllers: tuple[str, ...], shown: str
) -> None:
    """Else it would see its user's."""
    whole = bundle.container_config(PROCESS)
    monkeypatch.setattr(ownspace, "here", lambda: True)
    mounts = plan_of(whole, cgroups=cgroups, controllers=controllers).mounts
    assert [one["operation"] for one in mounts if one["target"] == "/sys/fs/cgroup"] == [shown], mounts


def test_bundle_for_another_runtime(tmp_path: Path) -> None:
    path = bundle.write(bundle.container_config(PROCESS, LIMITS), tmp_path, root="/r", cgroups_path="/lab/x")
    value = json.loads(path.read_text())
    assert value["root"]["path"] == "/r"
    assert value["linux"]["cgroupsPath"] == "/lab/x"


# Resolution below a hostile root needs no privilege


def test_nothing_resolved_leaves_the_root(tmp_path: Path) -> None:
    outside, inside = tmp_path / "outside", tmp_path / "root"
    outside.mkdir()
    inside.mkdir()
    (inside / "out").symlink_to(outside)
    (inside / "up").symlink_to("../../../..")
    root = Root(str(inside))
    with pytest.raises(OSError, match="symbolic links"):
        root.open("/out")
    with pytest.raises(FileNotFoundError):
        root.open("/out", follow=True)
    root.ensure("/up/made/deep", directory=True, follow=True)
    assert (inside / "made/deep").is_dir()
    root.ensure("/out/file", directory=False, follow=True)
    assert not list(outside.iterdir())
    root.close()


def test_links_in_circles_end(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    root = Root(str(tmp_path))
    with pytest.raises(OSError, match="symbolic links"):
        root.ensure("/a/file", directory=False, follow=True)
    root.close()


# Steps and devices


def test_the_step_that_fails_is_named() -> None:
    progress = Progress(fail_at=Step.MASKS)
    progress.enter(Step.MOUNTS)
    with pytest.raises(OSError, match="injected") as caught:
        progress.enter(Step.MASKS)
    assert progress.failure(caught.value).step == "mask paths"


def test_device_rules_end_at_the_one_that_matches_everything() -> None:
    rules = (DeviceRule(allow=False), DeviceRule(allow=True, type="c", major=1, minor=3))
    code = devices.compile(rules)
    assert all(len(instruction) == 8 for instruction in code)
    assert len(code) == 6 + 5 + 2, "context, one rule of three tests, the default"
    assert Bind(target="/a", source="/b").describe() == "/b on /a"
    assert CgroupView(target="/c", controllers=(), flags=0).describe() == "cgroups on /c: v2"
