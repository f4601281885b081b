"""Programs of system calls: what is packed, what has none, and what is refused rather than cut off."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from lab.host import syscalls
from lab.model import Process
from lab.record import replace
from lab.runtime import bundle
from lab.runtime.config.model import Config
from lab.runtime.plan import CgroupsPlan, Enter, Plan, Step
from lab.runtime.planning import translate
from lab.runtime.rootfs.mounts import OverlayRoot
from lab.runtime.scripts import child
from lab.runtime.scripts.script import CALL, HEAD, NUMBERS, POINTER, REGISTER, SKIP_IF_DONE, Register, Script, text

ROOT = OverlayRoot(target="/root", lower=("/lower",), upper="/upper", work="/work")


def plan_of(config: Config) -> Plan:
    cgroups = CgroupsPlan(unified="", tasks=["/tasks"])
    return translate.plan(config, ROOT, name="c", cgroups=cgroups, cgroup_controllers=("memory",), init=True)


def common(**mounts: Any) -> Plan:
    helper = bundle.bind("/helper", "/.lab")
    return plan_of(bundle.container_config(Process(argv=("true",)), extra_mounts=(*mounts.values(), helper)))


def calls_of(request: bytes) -> tuple[list[tuple[int, ...]], bytes]:
    """Those of a request, and the data behind them."""
    _, count, _, _, _ = HEAD.unpack_from(request)
    end = HEAD.size + count * CALL.size
    return [CALL.unpack_from(request, HEAD.size + place * CALL.size) for place in range(count)], request[end:]


def test_a_request_is_what_begin_c_reads() -> None:
    script = Script(2)
    opened = script.register()
    go_on = script.call("openat", -100, b"/x", 0, to=opened, pardon=errno.ENOENT)
    script.call("close", opened)
    go_on()
    (base, first, second), data = calls_of(script.packed(7, -1, 0))
    assert base[0] == NUMBERS["BASE"]
    assert first[:5] == (NUMBERS["openat"], 2, 0, errno.ENOENT, 1), "call, result, flags, errno, how many to skip"
    assert (first[6], first[13]) == (POINTER, 0)
    assert (second[0], second[5], second[12]) == (NUMBERS["close"], REGISTER, 2)
    assert data.startswith(b"/x\0")
    assert CALL.size == 64


def test_a_part_is_written_once_and_is_the_same_again() -> None:
    written = []

    def write() -> None:
        written.append(script.call("chdir", b"/part", flags=SKIP_IF_DONE))

    requests = []
    for _ in range(2):
        script = Script(0)
        script.call("chdir", b"/before")
        script.part("a test's", write)
        script.call("chdir", b"/behind")
        requests.append(script.packed(0, -1, 0))
    assert len(written) == 1
    assert requests[0] == requests[1]
    assert [name in calls_of(requests[1])[1] for name in (b"/before\0", b"/part\0", b"/behind\0")] == [True] * 3


def test_what_would_be_cut_off_is_refused() -> None:
    with pytest.raises(ValueError, match="zero byte"):
        text("a\0b")
    script = Script(0)
    with pytest.raises(OverflowError):
        [script.register() for _ in range(300)]


def test_the_common_case_has_a_script() -> None:
    plan = common()
    assert child.can_be(plan)
    assert child.helper(plan) == "/helper/inside"
    assert child.can_be(common(data=bundle.bind("/data", "/data")))
    assert child.can_be(replace(plan, enter=Enter.CHROOT)), "the bare process"


RARE = {
    "hold": {"hold": True}, "explain": {"explain": True}, "fail_at": {"fail_at": Step.ROOT}, "criu": {"criu": ["x"]},
    "hooks": {"hooks": {"prestart": [{"path": "/x"}]}}, "user namespace": {"own_users": True},
    "trees": {"trees": True},
    "time namespace": {"new_time": True}, "given pid namespace": {"born_in": [["/p", syscalls.CLONE_NEWPID]]},
    "given mount namespace": {"joins": [["/m", syscalls.CLONE_NEWNS]]}, "no pivot": {"enter": Enter.MOVE},
    "shared mounts": {"propagation": syscalls.MS_REC | syscalls.MS_SHARED},
}  # fmt: skip
RARE_PROCESSES = {
    "without the helper": {"init": False}, "terminal": {"terminal": True}, "an agent": {"agent": {"path": "/a"}},
    "Landlock": {"read_only_by_landlock": ["bin"]}, "descriptors": {"preserve": 1},
    "a label": {"exec_label": ["f", "l"]},
    "a policy": {"scheduler": {"policy": 1}}, "a priority": {"io_priority": [1, 1]}, "a persona": {"persona": 0},
    "nodes": {"memory_policy": [1, 1]}, "processors": {"affinity": [[], [0]]},
}  # fmt: skip
RARE_MOUNTS = {
    "a file system that takes along": {"copy_up": True}, "one that the parent makes": {"tree": True},
    "an overlay": {"kind": "overlay"}, "on the root": {"target": "/"}, "out of it": {"target": "/proc/../x"},
}  # fmt: skip


@pytest.mark.parametrize("changes", RARE.values(), ids=RARE)
def test_what_is_rare_has_none(changes: dict[str, Any]) -> None:
    assert not child.can_be(replace(common(), **changes))


@pytest.mark.parametrize("changes", RARE_PROCESSES.values(), ids=RARE_PROCESSES)
def test_nor_has_a_rare_process(changes: dict[str, Any]) -> None:
    plan = common()
    assert not child.can_be(replace(plan, process=replace(plan.process, **changes)))


@pytest.mark.parametrize("changes", RARE_MOUNTS.values(), ids=RARE_MOUNTS)
def test_nor_has_a_rare_mount(changes: dict[str, Any]) -> None:
    plan = common()
    first, *others = plan.mounts
    assert first["operation"] == "FileSystem"
    assert not child.can_be(replace(plan, mounts=[first | changes, *others]))


@pytest.mark.parametrize("target", ["/data/below", "/", "/dev"])
def test_nor_has_a_mount_below_or_over_another(target: str) -> None:
    """Below one that is bound, which a script doesn't remember; over one that it does."""
    assert not child.can_be(common(data=bundle.bind("/data", "/data"), other=bundle.bind("/data", target)))


def test_registers_are_descriptors_and_numbers_are_not() -> None:
    script = Script(5)
    script.call("dup3", Register(3), 3, 0)
    (_, call), _ = calls_of(script.packed(0, -1, 0))
    assert call[5:8] == (REGISTER, 0, 0)
