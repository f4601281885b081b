"""Device rules: what the eBPF program decides, and what cgroup v1's list of exceptions can hold."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.errors import UsageError
from lab.host.cgroup.group import Group
from lab.host.cgroup.mounted import Mounted
from lab.runtime.cgroup import devices
from lab.runtime.config.model import DeviceRule

NUMBERS = st.sampled_from([None, 1, 3, 5])
ACCESS = st.sets(st.sampled_from("rwm"), min_size=1).map("".join)
RULES = st.lists(
    st.builds(
        DeviceRule, allow=st.booleans(), type=st.sampled_from("abc"), major=NUMBERS, minor=NUMBERS, access=ACCESS
    ),
    max_size=6,
)
WIDE = (
    DeviceRule(allow=True),
    DeviceRule(allow=False, type="c", major=1),
    DeviceRule(allow=True, type="c", major=1, minor=3),
    DeviceRule(allow=False, type="b", access="w"),
)
ASKED = st.tuples(st.sampled_from("bc"), st.sampled_from([1, 3, 4]), st.sampled_from([1, 3, 4]), ACCESS)


@given(RULES, ASKED)
@settings(deadline=None, max_examples=300)
def test_the_last_rule_that_names_an_access_decides_about_it(
    rules: list[DeviceRule], asked: tuple[str, int, int, str]
) -> None:
    kind, major, minor, access = asked
    assert execute(devices.compile(rules), kind, major, minor, access) == all(
        reading(rules, kind, major, minor, letter) for letter in access
    )


@given(RULES, ASKED)
@settings(deadline=None, max_examples=300)
def test_what_v1_holds_means_the_same(rules: list[DeviceRule], asked: tuple[str, int, int, str]) -> None:
    rules = [DeviceRule(allow=False), *rules]
    kind, major, minor, access = asked
    if devices.held_by_v1(rules):
        for letter in access:
            assert v1(rules, kind, major, minor, letter) == reading(rules, kind, major, minor, letter)


@given(st.lists(st.sampled_from([*devices.with_defaults(()), *WIDE]), max_size=12), ASKED)
@settings(deadline=None, max_examples=500)
def test_rules_that_are_left_out_mean_nothing(rules: list[DeviceRule], asked: tuple[str, int, int, str]) -> None:
    kind, major, minor, access = asked
    left = devices.that_matter(rules)
    for letter in access:
        assert reading(list(left), kind, major, minor, letter) == reading(rules, kind, major, minor, letter)


def test_defaults_that_a_caller_lists_too_are_written_once() -> None:
    once = devices.with_defaults(())
    assert devices.that_matter(devices.with_defaults(once)) == once
    assert devices.that_matter(devices.with_defaults(WIDE)) == (WIDE[0], *WIDE[1:], *devices.DEFAULTS)


def test_v1_can_not_take_one_device_off_all() -> None:
    everything = DeviceRule(allow=False)
    characters = DeviceRule(allow=True, type="c", access="r")
    null = DeviceRule(allow=False, type="c", major=1, minor=3)
    assert not devices.held_by_v1((everything, characters, null))
    assert devices.held_by_v1((everything, characters, DeviceRule(allow=False, type="c", access="r")))
    assert devices.held_by_v1((everything, characters, DeviceRule(allow=False, type="b")))
    only_v1 = Mounted({"devices": "/nowhere"}, "", ())
    group = Group("lab/x", only_v1, ("/nowhere",))
    with pytest.raises(UsageError, match="can't be denied by cgroup v1"):
        devices.guard(group, (everything, characters, null))


def test_a_fifo_is_no_device() -> None:
    with pytest.raises(UsageError, match="a FIFO"):
        devices.guard(Group("lab/x", Mounted({}, "/nowhere", ()), ()), (DeviceRule(allow=True, type="p"),))


def reading(rules: list[DeviceRule], kind: str, major: int, minor: int, letter: str) -> bool:
    for rule in reversed(rules):
        named = rule.type in ("a", kind) and rule.major in (None, major) and rule.minor in (None, minor)
        if named and letter in rule.access:
            return rule.allow
    return False


def v1(rules: list[DeviceRule], kind: str, major: int, minor: int, letter: str) -> bool:
    """security/device_cgroup.c in short: a default, and exceptions to it by type and numbers."""
    allowed, exceptions = True, {}
    for rule in rules:
        if (rule.type, rule.major, rule.minor, set(rule.access)) == ("a", None, None, set("rwm")):
            allowed, exceptions = rule.allow, {}
            continue
        for each in "bc" if rule.type == "a" else rule.type:
            held = exceptions.setdefault((each, rule.major, rule.minor), set())
            (held.update if rule.allow != allowed else held.difference_update)(rule.access)
    matches = any(
        type_ == kind and of_major in (None, major) and of_minor in (None, minor) and letter in held
        for (type_, of_major, of_minor), held in exceptions.items()
    )
    return matches != allowed


def execute(code: list[bytes], kind: str, major: int, minor: int, access: str) -> bool:
    """The few instructions of eBPF that a device program uses."""
    context = {
        devices.CONTEXT_TYPE_ACCESS: devices.TYPES[kind] | sum(devices.ACCESSES[one] for one in access) << 16,
        devices.CONTEXT_MAJOR: major,
        devices.CONTEXT_MINOR: minor,
    }
    registers, at = [0] * 6, 0
    while True:
        operation, pair, offset, immediate = devices.INSTRUCTION.unpack(code[at])
        to, source = pair & 15, pair >> 4
        at += 1
        if operation == devices.EXIT:
            return bool(registers[0])
        if operation == devices.LOAD_WORD:
            assert source == 1
            registers[to] = context[offset]
        elif operation == devices.MOVE_REGISTER:
            registers[to] = registers[source]
        elif operation == devices.MOVE:
            registers[to] = immediate
        elif operation == devices.AND:
            registers[to] &= immediate
        elif operation == devices.RIGHT_SHIFT:
            registers[to] >>= immediate
        elif operation == devices.JUMP_EQUAL:
            at += offset * (registers[to] == immediate)
        else:
            assert operation == devices.JUMP_NOT_EQUAL
            at += offset * (registers[to] != immediate)
