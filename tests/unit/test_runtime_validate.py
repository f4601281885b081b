"""Any valid configuration survives JSON; any rule that is broken is told by the JSON path of what breaks it."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lab.errors import UsageError
from lab.host import syscalls
from lab.record import Record, items, replace
from lab.runtime.config import capabilities, model, mountoptions, scalars, schema, validate
from lab.runtime.config.model import Capabilities, Config, ProcessConfig
from lab.runtime.plan import CgroupsPlan, Plan
from lab.runtime.planning import files, translate
from lab.runtime.rootfs.mounts import Bind, DefaultDevices, DeviceNode, FileSystem, Remount

TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=6)
SCALARS: dict[str, st.SearchStrategy[Any]] = {
    "bool": st.booleans(),
    "str": TEXT,
    "Text": TEXT,
    "Word": TEXT.filter(bool),
    "AbsolutePath": TEXT.map(lambda text: f"/{text}"),
    "Variable": TEXT.map(lambda text: f"NAME={text}"),
    "Version": st.sampled_from(("1.0.2", "1.1.0+dev", "1.0.2-rc1")),
    "Capability": st.sampled_from(capabilities.NAMES),
    "NamespaceKind": st.sampled_from(scalars.NAMESPACES),
    "RlimitKind": st.sampled_from(scalars.RLIMITS).map(lambda name: f"RLIMIT_{name}"),
    "Propagation": st.sampled_from(scalars.PROPAGATIONS),
    "DeviceKind": st.sampled_from("cbup"),
    "RuleKind": st.sampled_from("acbup"),
    "Access": st.sampled_from(("", "r", "rw", "rwm")),
    "Domain": st.sampled_from(("LINUX", "LINUX32")),
    "IoClass": st.sampled_from(scalars.IO_CLASSES),
    "Policy": st.sampled_from(scalars.POLICIES),
    "PolicyFlag": st.sampled_from(scalars.POLICY_FLAGS),
    "Architecture": st.sampled_from(scalars.ARCHITECTURES),
    "SeccompAction": st.sampled_from(scalars.ACTIONS),
    "SeccompFlag": st.sampled_from(scalars.SECCOMP_FLAGS),
    "Operator": st.sampled_from(scalars.OPERATORS),
    "Cpus": st.sampled_from(("", "0", "0-3,7", "1,2")),
    "Numbers": st.sampled_from(("", "0", "0-3,7", "1,2")),
    "MemoryMode": st.sampled_from(scalars.MEMORY_MODES),
    "MemoryFlag": st.sampled_from(scalars.MEMORY_FLAGS),
}
EDGES = [
    0,
    1,
    10,
    100,
    1000,
    -1000,
    -1,
    4095,
    1 << 16,
    (1 << 31) - 1,
    (1 << 32) - 1,
    1 << 62,
    -(1 << 63),
    (1 << 64) - 1,
]


def scalar(name: str) -> st.SearchStrategy[Any]:
    """Values of a kind; of a number, the edges of the ranges that there are."""
    if name in SCALARS:
        return SCALARS[name]
    return st.sampled_from([number for number in EDGES if scalars.KINDS[name].accepts(number)])


def values(text: str) -> st.SearchStrategy[Any]:
    """What an annotation allows."""
    if text.endswith(" | None"):
        return st.none() | values(text.removesuffix(" | None"))
    if text.startswith("tuple["):
        return st.lists(values(text[6:-6]), max_size=2).map(tuple)
    if text.startswith("Mapping[str, "):
        return st.dictionaries(TEXT, values(text[13:-1]), max_size=2)
    return scalar(text) if text in scalars.KINDS else records(getattr(sys.modules[model.__name__], text))


def records(kind: type[Record]) -> st.SearchStrategy[Any]:
    return st.fixed_dictionaries({name: values(text) for name, text in kind.fields.items()}).map(lambda x: kind(**x))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(records(Config))
def test_every_property_survives_json(made: Config) -> None:
    assert model.from_json(json.loads(json.dumps(model.to_json(made)))) == made


def test_every_annotation_is_understood() -> None:
    """A misspelled kind would be found only by the first document that has the property."""
    for kind in vars(model).values():
        if isinstance(kind, type) and issubclass(kind, Record) and kind is not Record:
            schema._prepare(kind)


WHOLE: dict[str, Any] = {
    "ociVersion": "1.1.0",
    "root": {"path": "rootfs"},
    "process": {"args": ["true"], "cwd": "/"},
    "linux": {"namespaces": [{"type": "mount"}, {"type": "pid"}]},
}
MOUNT = {"type": "mount"}


def linux(**fields: object) -> dict[str, object]:
    return {"linux": {"namespaces": [MOUNT], **fields}}


def process(**fields: object) -> dict[str, object]:
    return {"process": {"args": ["true"], "cwd": "/", **fields}}


def seccomp(**fields: object) -> dict[str, object]:
    return linux(seccomp={"defaultAction": "SCMP_ACT_ALLOW", **fields})


MAPPING = {"containerID": 0, "hostID": 1000, "size": 1}
BROKEN: list[tuple[dict[str, object], str]] = [
    (process(args=[]), "process.args is empty"),
    (process(args=[""]), "process.args[0] is empty"),
    (process(env=["A"]), 'process.env[0] is not NAME=value: "A"'),
    (process(user={"username": "x"}), "process.user.username is not supported: it is for Windows"),
    (process(consoleSize={"height": 1}), "process.consoleSize.width is missing: an integer from 0 to 65535"),
    (process(capabilities={"bounding": [5]}), "process.capabilities.bounding[0] is not the name of a capab"),
    (
        process(capabilities={"effective": ["CAP_KILL"]}),
        "process.capabilities.effective has CAP_KILL, which permitted",
    ),
    (
        process(rlimits=[{"type": "RLIMIT_X", "soft": 1, "hard": 1}]),
        "process.rlimits[0].type is not one of RLIMIT_AS",
    ),
    (
        {"mounts": [{"destination": "/proc", "type": "bind", "source": "/srv"}]},
        "mounts[0].destination is inside /proc",
    ),
    ({"mounts": [{"destination": "//proc/./sys/net", "source": "/srv"}]}, "mounts[0].destination is inside /proc"),
    ({"mounts": [{"destination": "/proc/1", "type": "proc"}]}, "mounts[0].destination is inside /proc"),
    (process(user={"uid": 2**32 - 1}), "process.user.uid is above 2147483647"),
    (process(user={"gid": 2**31}), "process.user.gid is above 2147483647"),
    (process(user={"additionalGids": [0, 2**31]}), "process.user.additionalGids[1] is above 2147483647"),
    (process(rlimits=[{"type": "RLIMIT_CPU", "soft": 2, "hard": 1}]), "process.rlimits[0].soft is more than hard"),
    (process(rlimits=[{"type": "RLIMIT_CPU", "soft": 1, "hard": 1}] * 2), "process.rlimits[1] is there twice"),
    (process(oomScoreAdj=1001), "process.oomScoreAdj is not an integer from -1000 to 1000: 1001"),
    (process(apparmorProfile="a", selinuxLabel="b"), "process.selinuxLabel is given beside apparmorProfile"),
    (
        process(ioPriority={"class": "IOPRIO_CLASS_BE", "priority": 8}),
        "process.ioPriority.priority is not from 0 to 7",
    ),
    (process(scheduler={"policy": "SCHED_OTHER", "nice": 20}), "process.scheduler.nice is not from -20 to 19"),
    (process(execCPUAffinity={"initial": "0-9:2"}), "process.execCPUAffinity.initial is not a list of numbers"),
    (process(execCPUAffinity={"final": "3-1"}), "process.execCPUAffinity.final is not a list of numbers"),
    ({"hostname": "h"}, "hostname is given without a uts namespace"),
    ({"domainname": "d"}, "domainname is given without a uts namespace"),
    ({"hooks": {"prestart": [{"path": "x"}]}}, "hooks.prestart[0].path is not an absolute path"),
    ({"hooks": {"prestart": [{"path": "/x", "timeout": 0}]}}, "hooks.prestart[0].timeout is not a positive number"),
    ({"linux": {"namespaces": []}, "mounts": [{"destination": "/x"}]}, "mounts takes a new mount namespace"),
    (linux(namespaces=[MOUNT, MOUNT]), "linux.namespaces[1] is there twice: mount"),
    (
        linux(namespaces=[{"type": "mount", "path": "/proc/1/ns/mnt"}], maskedPaths=["/x"]),
        "linux.maskedPaths takes a new mount namespace",
    ),
    (linux(namespaces=[MOUNT, {"type": "pid", "path": "x"}]), "linux.namespaces[1].path is not an absolute path"),
    (linux(namespaces=[MOUNT, {"type": "user"}]), "linux.uidMappings is missing"),
    (
        linux(namespaces=[MOUNT, {"type": "user", "path": "/u"}], uidMappings=[MAPPING]),
        "linux.uidMappings is given for a user namespace that has its own",
    ),
    (linux(uidMappings=[MAPPING]), "linux.uidMappings is given without a user namespace"),
    (linux(timeOffsets={"boottime": {"secs": 1}}), "linux.timeOffsets is given without a new time namespace"),
    (
        linux(namespaces=[MOUNT, {"type": "time"}], timeOffsets={"wall": {"secs": 1}}),
        "linux.timeOffsets.wall is no clock with an offset",
    ),
    (
        linux(sysctl={"vm.swappiness": "1"}),
        "linux.sysctl.vm.swappiness is no setting that a namespace has for itself",
    ),
    (
        linux(sysctl={"net.ipv4.ip_forward": "1"}),
        "linux.sysctl.net.ipv4.ip_forward is given without network namespace",
    ),
    (linux(sysctl={"kernel.hostname": "x"}), "linux.sysctl.kernel.hostname is not set this way"),
    (linux(sysctl={"net/../kernel": "x"}), "linux.sysctl.net/../kernel is no name of a setting"),
    (linux(devices=[{"type": "c", "path": "/dev/x", "major": 1}]), "linux.devices[0].minor is missing"),
    (linux(devices=[{"type": "p", "path": "/dev/x"}] * 2), "linux.devices[1] is there twice: /dev/x"),
    (linux(personality={"domain": "LINUX", "flags": ["x"]}), "linux.personality.flags is not empty"),
    (linux(rootfsPropagation="sideways"), "linux.rootfsPropagation is not one of private"),
    (linux(resources={"memory": {"limit": 2, "swap": 1}}), "linux.resources.memory.swap is less than limit"),
    (linux(resources={"memory": {"swappiness": 101}}), "linux.resources.memory.swappiness is not an integer from 0"),
    (linux(resources={"cpu": {"cpus": "a-b"}}), "linux.resources.cpu.cpus is not a list of numbers and ranges"),
    (linux(resources={"unified": {"../x": "1"}}), "linux.resources.unified.../x is no file of cgroup v2"),
    (
        linux(resources={"devices": [{"allow": True, "access": "x"}]}),
        "linux.resources.devices[0].access is not letters",
    ),
    (seccomp(listenerMetadata="x"), "linux.seccomp.listenerMetadata is given without listenerPath"),
    (seccomp(defaultAction="SCMP_ACT_NOTIFY"), "linux.seccomp.listenerPath is missing"),
    (seccomp(syscalls=[{"names": [], "action": "SCMP_ACT_ALLOW"}]), "linux.seccomp.syscalls[0].names is empty"),
    (
        seccomp(
            syscalls=[
                {"names": ["a"], "action": "SCMP_ACT_LOG", "args": [{"index": 6, "value": 0, "op": "SCMP_CMP_EQ"}]}
            ]
        ),
        "linux.seccomp.syscalls[0].args[0].index is not from 0 to 5",
    ),
    (linux(netDevices={"a": {}}), "linux.netDevices is given without a network namespace"),
    (
        linux(namespaces=[MOUNT, {"type": "network"}], netDevices={"a": {"name": "x/y"}}),
        "linux.netDevices.a is not a network device's name",
    ),
    (
        linux(namespaces=[MOUNT, {"type": "network"}], netDevices={"a": {"name": "x%s"}}),
        "linux.netDevices.a has a % that",
    ),
    (
        linux(namespaces=[MOUNT, {"type": "network"}], netDevices={"a": {"name": "x"}, "b": {"name": "x"}}),
        "linux.netDevices[1] is there twice: x",
    ),
    (linux(memoryPolicy={"mode": "MPOL_BIND"}), "linux.memoryPolicy.nodes is missing"),
    (linux(memoryPolicy={"mode": "MPOL_LOCAL", "nodes": "0"}), "linux.memoryPolicy.nodes is given for MPOL_LOCAL"),
    (
        linux(
            memoryPolicy={
                "mode": "MPOL_BIND",
                "nodes": "0",
                "flags": ["MPOL_F_STATIC_NODES", "MPOL_F_RELATIVE_NODES"],
            }
        ),
        "linux.memoryPolicy.flags has both",
    ),
    ({"annotations": {"": "x"}}, "annotations has an empty key"),
    ({"zos": {}}, "zos is not supported: lab runs Linux containers"),
]


@pytest.mark.parametrize(("change", "complaint"), BROKEN, ids=[complaint.split(" is ")[0] for _, complaint in BROKEN])
def test_a_broken_rule_is_told_by_its_path(change: dict[str, object], complaint: str) -> None:
    validate.check(model.from_json(WHOLE))
    with pytest.raises(UsageError) as caught:
        validate.check(model.from_json({**WHOLE, **change}))
    assert caught.value.message.startswith(f"config.json: {complaint}")


def planned(**change: object) -> Plan:
    return translate.plan(
        model.from_json({**WHOLE, **change}),
        FileSystem(target="/root", kind="", source="", flags=0, data=""),
        name="c",
        cgroups=CgroupsPlan(unified="", tasks=[]),
        cgroup_controllers=(),
        init=False,
        bundle="/bundle",
    )


def test_a_plan_says_what_the_configuration_does() -> None:
    plan = planned(
        **linux(
            namespaces=[MOUNT, {"type": "time"}, {"type": "pid", "path": "/p"}, {"type": "ipc", "path": "/i"}],
            timeOffsets={"boottime": {"secs": -5}},
            rootfsPropagation="unbindable",
            personality={"domain": "LINUX32"},
        ),
        **process(
            rlimits=[{"type": "RLIMIT_LOCKS", "soft": 1, "hard": (1 << 64) - 1}],
            consoleSize={"height": 24, "width": 80},
            terminal=True,
        ),
        hooks={"prestart": [{"path": "/x"}], "poststop": [{"path": "/y"}]},
    )
    assert plan.clone_flags == syscalls.CLONE_NEWNS, "a time namespace is made before the process"
    assert plan.new_time
    assert plan.time_offsets == "boottime -5 0"
    assert (plan.born_in, plan.joins) == ([["/p", syscalls.CLONE_NEWPID]], [["/i", syscalls.CLONE_NEWIPC]])
    assert plan.propagation == syscalls.MS_REC | syscalls.MS_PRIVATE, "or nothing of the host's could be bound"
    assert plan.root_propagation == syscalls.MS_UNBINDABLE
    assert plan.process.rlimits == [[10, 1, -1]]
    assert plan.process.persona == 8
    assert (plan.process.terminal, plan.process.console_size) == (True, [24, 80])
    assert plan.hooks == {"prestart": [{"path": "/x"}]}, "poststop is not the container's"
    assert plan.state == {"ociVersion": "1.1.0", "id": "c", "status": "creating", "bundle": "/bundle"}
    text = json.dumps(plan.to_json())
    assert json.dumps(Plan.from_json(json.loads(text)).to_json()) == text


def test_what_can_not_be_granted_is_left_out_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capabilities, "held", lambda: ("CAP_KILL", "CAP_CHOWN"))
    sets = Capabilities(
        bounding=("CAP_KILL", "CAP_SYS_ADMIN"),
        permitted=("CAP_KILL", "CAP_CHOWN"),
        inheritable=("CAP_CHOWN",),
        ambient=("CAP_KILL", "CAP_CHOWN"),
    )
    made = ProcessConfig(args=("a",), capabilities=sets)
    assert items(validate.grantable(made))["ambient"] == ("CAP_CHOWN",)
    assert validate.warnings(Config(process=made)) == [
        "process.capabilities.bounding: CAP_SYS_ADMIN can't be granted",
        "process.capabilities.ambient: CAP_KILL can't be granted",
    ]
    assert validate.grantable(made, own_users=True).bounding == sets.bounding


# Mounts


def operation_of(**mount: object) -> object:
    whole = model.from_json({**WHOLE, "mounts": [{"destination": "/x", **mount}]})
    found, default_devices = files.operations(whole, (), bundle="/bundle")
    assert isinstance(default_devices, DefaultDevices), "as nothing is mounted on /dev"
    return found


def test_the_last_word_decides() -> None:
    options = mountoptions.parse(
        ["ro", "nosuid", "mode=755", "rw", "strictatime", "noatime", "rro", "rrw", "size=1k"]
    )
    assert options.flags == syscalls.MS_NOSUID | syscalls.MS_STRICTATIME | syscalls.MS_NOATIME
    on, off = options.attributes
    assert on == syscalls.MOUNT_ATTR_NOSUID | syscalls.MOUNT_ATTR_NOATIME
    assert off & syscalls.MOUNT_ATTR_ATIME == syscalls.MOUNT_ATTR_ATIME, "the field is written as a whole"
    assert options.recursive == (0, syscalls.MOUNT_ATTR_RDONLY)
    assert options.data == ("mode=755", "size=1k")


@given(st.lists(st.sampled_from([*mountoptions.PER_MOUNT, *(f"r{word}" for word in mountoptions.PER_MOUNT)])))
def test_nothing_is_set_and_cleared_at_once(words: list[str]) -> None:
    options = mountoptions.parse(words)
    for on, off in (options.attributes, options.recursive):
        assert not on & off & ~syscalls.MOUNT_ATTR_ATIME
        assert off & syscalls.MOUNT_ATTR_ATIME in (0, syscalls.MOUNT_ATTR_ATIME)


def test_mounts_become_operations() -> None:
    assert operation_of(source="y", options=["rbind", "rslave", "nodev"]) == Bind(
        target="/x",
        source="/bundle/y",
        whole=True,
        attributes=(syscalls.MOUNT_ATTR_NODEV, 0),
        propagation=(syscalls.MS_SLAVE | syscalls.MS_REC,),
    )
    assert operation_of(type="tmpfs", options=["tmpcopyup", "size=1k", "shared"]) == FileSystem(
        target="/x", kind="tmpfs", source="tmpfs", flags=0, data="size=1k", propagation=(syscalls.MS_SHARED,),
        copy_up=True,
    )  # fmt: skip
    assert isinstance(operation_of(type="tmpfs", options=["remount", "ro"]), Remount)


@pytest.mark.parametrize(
    ("mount", "complaint"),
    [
        ({"source": "/y", "options": ["bind", "tmpcopyup"]}, "mounts[0].options has tmpcopyup"),
        ({"type": "proc", "options": ["tmpcopyup"]}, "mounts[0].options has tmpcopyup, which is for a tmpfs"),
        ({"options": ["bind"]}, "mounts[0].source is missing"),
        ({"source": "/y", "options": ["bind", "idmap"]}, "mounts[0] maps ids, but says not how"),
        ({"type": "tmpfs", "options": ["idmap"]}, "mounts[0] maps ids, which lab does for bind mounts only"),
        ({"type": "cgroup"}, "mounts[0] shows the host's cgroups"),
    ],
)
def test_a_mount_that_can_not_be_meant(mount: dict[str, object], complaint: str) -> None:
    with pytest.raises(UsageError) as caught:
        operation_of(**mount)
    assert caught.value.message.startswith(f"config.json: {complaint}")


def test_devices_come_after_the_mounts() -> None:
    device = {"type": "b", "path": "/dev/x", "major": 7, "minor": 1}
    whole = model.from_json({**WHOLE, **linux(devices=[device]), "mounts": [{"destination": "dev", "type": "tmpfs"}]})
    *_, last = files.operations(whole, ())
    assert last == DeviceNode(target="/dev/x", kind=0o060000, major=7, minor=1, mode=0o666, uid=0, gid=0, bind=False)


def test_labels_are_refused_where_the_host_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lab.runtime.planning.lsm.apparmor", lambda: False)
    monkeypatch.setattr("lab.runtime.planning.lsm.selinux", lambda: False)
    for change, complaint in (
        (process(apparmorProfile="p"), "process.apparmorProfile: this host has no AppArmor"),
        (process(selinuxLabel="l"), "process.selinuxLabel: this host has no SELinux"),
        (linux(mountLabel="l"), "linux.mountLabel: this host has no SELinux"),
    ):
        with pytest.raises(UsageError, match=complaint):
            planned(**change)
    assert replace(planned(), name="d").name == "d"
