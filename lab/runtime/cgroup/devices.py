"""Which device nodes a container may open: an eBPF program on cgroup v2, the devices controller on v1.

Root in a container keeps CAP_MKNOD, so a node for the host's disk can be made; opening it must fail. In hybrid
mode the v2 tree does it too, for groups that are in no devices hierarchy and for rules that v1 can't hold.
Sources: cgroup-v2.rst "Device controller", cgroup-v1/devices.rst, bpf(2).
"""

from __future__ import annotations

import os
import struct

from lab.errors import LaunchError, UsageError
from lab.host.identity import ownspace
from lab.record import replace
from lab.runtime.config.model import DeviceRule

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from lab.host.cgroup.group import Group

# struct bpf_insn (linux/bpf.h): code, destination and source register, offset, immediate
INSTRUCTION = struct.Struct("=BBhi")
LOAD_WORD, AND, RIGHT_SHIFT, MOVE_REGISTER, MOVE = 0x61, 0x57, 0x77, 0xBF, 0xB7
JUMP_EQUAL, JUMP_NOT_EQUAL, EXIT = 0x15, 0x55, 0x95

TYPE, ACCESS, MAJOR, MINOR = 2, 3, 4, 5  # registers
CONTEXT_TYPE_ACCESS, CONTEXT_MAJOR, CONTEXT_MINOR = 0, 4, 8  # struct bpf_cgroup_dev_ctx
TYPES = {"b": 1, "c": 2}  # BPF_DEVCG_DEV_BLOCK, BPF_DEVCG_DEV_CHAR
ACCESSES = {"m": 1, "r": 2, "w": 4}  # BPF_DEVCG_ACC_MKNOD, READ, WRITE
EVERY_ACCESS = "rwm"

DEFAULTS = (
    DeviceRule(allow=True, type="c", access="m"),
    DeviceRule(allow=True, type="b", access="m"),
    DeviceRule(allow=True, type="c", major=1, minor=3),  # null
    DeviceRule(allow=True, type="c", major=1, minor=8),  # random
    DeviceRule(allow=True, type="c", major=1, minor=7),  # full
    DeviceRule(allow=True, type="c", major=5, minor=0),  # tty
    DeviceRule(allow=True, type="c", major=1, minor=5),  # zero
    DeviceRule(allow=True, type="c", major=1, minor=9),  # urandom
    DeviceRule(allow=True, type="c", major=136),  # pseudo-terminals
    DeviceRule(allow=True, type="c", major=5, minor=2),  # ptmx
)
"""Any node may be made, and those that every container has (config-linux.md "Default Devices") may be opened."""


def with_defaults(rules: Sequence[DeviceRule]) -> tuple[DeviceRule, ...]:
    """The rules of a configuration between what they can't change: nothing is allowed before them, as in runc, and
    the default devices are, whatever they say.
    """
    return (DeviceRule(allow=False), *rules, *DEFAULTS)


def guard(group: Group, rules: Sequence[DeviceRule]) -> None:
    """Apply ``rules``, the last one that matches deciding, to everything in ``group``.

    No rules, no guard. Again for the same group: the new rules take the old ones' place. Raises LaunchError when
    this host can't guard: never without saying so. In a user namespace the kernel lets nobody make a node that could
    be opened, and an ordinary user attach no program: what is in an instance's /dev is then all that there is.
    """
    if not rules or ownspace.ordinary_user() > 0:
        return
    rules = that_matter([_normal(rule) for rule in rules])
    try:
        if group.unified and ("devices" not in group.controllers or not held_by_v1(rules)):
            _attach(group.unified, rules)
        elif held_by_v1(rules):
            _write_v1(group, rules)
        else:
            raise UsageError(
                "linux.resources.devices: a part of what was allowed before can't be denied by cgroup v1"
            )
    except OSError as error:
        raise LaunchError(
            f"access to devices can't be restricted: {error}",
            hint="needs CONFIG_CGROUP_BPF, or the v1 devices controller",
            exit_code=125,
        ) from error


def _normal(rule: DeviceRule) -> DeviceRule:
    """One way to say "any"; "u" is what mknod(1) calls an unbuffered character device."""
    if rule.type == "p":
        raise UsageError("linux.resources.devices: a FIFO (type p) is no device")
    return replace(
        rule,
        type={"u": "c"}.get(rule.type, rule.type),
        major=None if rule.major == -1 else rule.major,
        minor=None if rule.minor == -1 else rule.minor,
        access=rule.access or EVERY_ACCESS,
    )


def that_matter(rules: Sequence[DeviceRule]) -> tuple[DeviceRule, ...]:
    """Without those before the last that is about everything, and without what was said since rules last turned from
    allowing to denying, or back: callers list the defaults too, and each rule is a write(2) on v1.
    """
    found: list[DeviceRule] = []
    since: set[DeviceRule] = set()
    for rule in rules:
        if _is_everything(rule):
            found.clear()
        if not found or found[-1].allow != rule.allow:
            since.clear()
        if rule not in since:
            found.append(rule)
            since.add(rule)
    return tuple(found)


def _is_everything(rule: DeviceRule) -> bool:
    return rule.type == "a" and rule.major is None and rule.minor is None and set(rule.access) == set(EVERY_ACCESS)


def _attach(directory: str, rules: tuple[DeviceRule, ...]) -> None:
    from lab.host.kernel import bpf

    opened = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        bpf.attach_cgroup_device(opened, _program(rules))
    finally:
        os.close(opened)


_programs: dict[tuple[DeviceRule, ...], int] = {}


def _program(rules: tuple[DeviceRule, ...]) -> int:
    """Loaded once per set of rules and kept: containers with the same rules share it."""
    from lab.host.kernel import bpf

    if rules not in _programs:
        _programs[rules] = bpf.load_cgroup_device(compile(rules))
    return _programs[rules]


def compile(rules: Sequence[DeviceRule]) -> list[bytes]:
    """eBPF instructions that return 1 for an access the rules allow, else 0. Several may be asked for at once, to
    read and to write; about each the last rule that names it decides.
    """
    code = [
        _instruction(LOAD_WORD, TYPE, source=1, offset=CONTEXT_TYPE_ACCESS),
        _instruction(MOVE_REGISTER, ACCESS, source=TYPE),
        _instruction(AND, TYPE, immediate=0xFFFF),
        _instruction(RIGHT_SHIFT, ACCESS, immediate=16),
        _instruction(LOAD_WORD, MAJOR, source=1, offset=CONTEXT_MAJOR),
        _instruction(LOAD_WORD, MINOR, source=1, offset=CONTEXT_MINOR),
    ]
    for rule in reversed((DeviceRule(allow=False), *rules)):  # the last match decides, so ask it first
        code += _block(rule)
        if _is_everything(rule):
            break  # it matches everything, and the verifier refuses instructions that can't be reached
    return code


def _block(rule: DeviceRule) -> list[bytes]:
    """Return the rule's answer if the device is one it names, else go on behind the block.

    A rule that does not name every access decides about those it names: an allowed one is taken off what is still
    asked, and one that is denied denies the whole.
    """
    answer = [_instruction(MOVE, 0, immediate=int(rule.allow)), _instruction(EXIT, 0)]
    named = sum(ACCESSES[letter] for letter in set(rule.access))
    if named != sum(ACCESSES.values()) and rule.allow:
        answer = [
            _instruction(AND, ACCESS, immediate=sum(ACCESSES.values()) - named),
            _instruction(JUMP_NOT_EQUAL, ACCESS, offset=len(answer), immediate=0),
            *answer,
        ]
    elif named != sum(ACCESSES.values()):
        answer = [
            _instruction(MOVE_REGISTER, 1, source=ACCESS),
            _instruction(AND, 1, immediate=named),
            _instruction(JUMP_EQUAL, 1, offset=len(answer), immediate=0),
            *answer,
        ]
    tests = [(TYPE, TYPES.get(rule.type)), (MAJOR, rule.major), (MINOR, rule.minor)]
    wanted = [(register, value) for register, value in tests if value is not None]
    skips = [len(wanted) - number - 1 + len(answer) for number in range(len(wanted))]
    return [
        _instruction(JUMP_NOT_EQUAL, register, offset=skip, immediate=value)
        for (register, value), skip in zip(wanted, skips, strict=True)
    ] + answer


def _instruction(code: int, destination: int, *, source: int = 0, offset: int = 0, immediate: int = 0) -> bytes:
    return INSTRUCTION.pack(code, destination | source << 4, offset, immediate)


# Version 1: a default and exceptions to it


def held_by_v1(rules: Sequence[DeviceRule]) -> bool:
    """Whether v1 can hold what ``rules`` mean. It has one list of exceptions, from which only a whole one can be
    taken: after "all of c may be read", "not c 1:3" changes nothing.
    """
    allowed = True
    exceptions: dict[tuple[str, int | None, int | None], set[str]] = {}
    for rule in rules:
        if _is_everything(rule):
            allowed = rule.allow
            exceptions.clear()
            continue
        for kind in _kinds(rule):
            key = kind, rule.major, rule.minor
            if rule.allow != allowed:
                exceptions.setdefault(key, set()).update(rule.access)
            elif any(
                other != key and _overlap(other, key) and held & set(rule.access)
                for other, held in exceptions.items()
            ):
                return False
            else:
                exceptions.get(key, set()).difference_update(rule.access)
    return True


def _kinds(rule: DeviceRule) -> tuple[str, ...]:
    return ("b", "c") if rule.type == "a" else (rule.type,)


def _overlap(one: tuple[str, int | None, int | None], other: tuple[str, int | None, int | None]) -> bool:
    return one[0] == other[0] and all(
        mine is None or theirs is None or mine == theirs for mine, theirs in zip(one[1:], other[1:], strict=True)
    )


def _write_v1(group: Group, rules: Sequence[DeviceRule]) -> None:
    """One write(2) a rule, as the kernel wants it."""
    opened: dict[bool, int] = {}
    try:
        for rule in rules:
            if rule.allow not in opened:
                path = group.file("devices", "devices.allow" if rule.allow else "devices.deny")
                opened[rule.allow] = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
            for line in _v1_lines(rule):
                os.write(opened[rule.allow], line.encode())
    finally:
        for descriptor in opened.values():
            os.close(descriptor)


def _v1_lines(rule: DeviceRule) -> list[str]:
    if _is_everything(rule):
        return ["a"]
    numbers = ":".join("*" if number is None else str(number) for number in (rule.major, rule.minor))
    return [f"{kind} {numbers} {rule.access}" for kind in _kinds(rule)]
