"""Which device nodes a container may open: an eBPF program on cgroup v2, the devices controller on v1.

Root in a container keeps CAP_MKNOD, so a node for the host's disk can be made; opening it must fail. In hybrid
mode the v2 tree does it too. Sources: cgroup-v2.rst "Device controller", cgroup-v1/devices.rst, bpf(2).
"""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from functools import cache

from lab.errors import LaunchError
from lab.host import syscalls
from lab.host.cgroup import ControlGroup
from lab.runtime.config import DeviceRule

# struct bpf_insn (linux/bpf.h): code, destination and source register, offset, immediate
INSTRUCTION = struct.Struct("=BBhi")
LOAD_WORD, AND, RIGHT_SHIFT, MOVE_REGISTER, MOVE = 0x61, 0x57, 0x77, 0xBF, 0xB7
JUMP_NOT_EQUAL, JUMP, EXIT = 0x55, 0x05, 0x95

TYPE, ACCESS, MAJOR, MINOR = 2, 3, 4, 5  # registers
CONTEXT_TYPE_ACCESS, CONTEXT_MAJOR, CONTEXT_MINOR = 0, 4, 8  # struct bpf_cgroup_dev_ctx
TYPES = {"b": 1, "c": 2}  # BPF_DEVCG_DEV_BLOCK, BPF_DEVCG_DEV_CHAR
ACCESSES = {"m": 1, "r": 2, "w": 4}  # BPF_DEVCG_ACC_MKNOD, READ, WRITE


def guard(cgroup: ControlGroup, rules: Sequence[DeviceRule]) -> None:
    """Apply ``rules``, the last one that matches deciding, to everything in ``cgroup``.

    No rules, no guard. Raises LaunchError when this host can't guard: never without saying so.
    """
    if not rules:
        return
    try:
        if cgroup.unified_directory is not None:
            _attach(cgroup.unified_directory, _program(tuple(rules)))
        else:
            _write_v1(cgroup, rules)
    except OSError as error:
        raise LaunchError(
            f"access to devices can't be restricted: {error}",
            hint="needs CONFIG_CGROUP_BPF, or the v1 devices controller",
            exit_code=125,
        ) from error


def _attach(directory: os.PathLike[str], program: int) -> None:
    opened = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        syscalls.bpf_attach_cgroup_device(opened, program)
    finally:
        os.close(opened)


@cache
def _program(rules: tuple[DeviceRule, ...]) -> int:
    """Loaded once per set of rules and kept: containers with the same rules share it."""
    return syscalls.bpf_load_cgroup_device(compile(rules))


def compile(rules: Sequence[DeviceRule]) -> list[bytes]:
    """eBPF instructions that return 1 for an access the rules allow, else 0."""
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
        if rule == DeviceRule(allow=rule.allow):
            break  # it matches everything, and the verifier refuses instructions that can't be reached
    return code


def _block(rule: DeviceRule) -> list[bytes]:
    """Return the rule's answer if everything matches, else go on behind the block."""
    tests: list[tuple[int, int]] = []
    if rule.type in TYPES:
        tests.append((TYPE, TYPES[rule.type]))
    if rule.major is not None:
        tests.append((MAJOR, rule.major))
    if rule.minor is not None:
        tests.append((MINOR, rule.minor))
    body = [(JUMP_NOT_EQUAL, register, value) for register, value in tests]
    answer = [_instruction(MOVE, 0, immediate=int(rule.allow)), _instruction(EXIT, 0)]
    others = sum(bit for letter, bit in ACCESSES.items() if letter not in rule.access)
    unasked = []
    if others:  # whatever is asked beyond the rule's letters makes it not match
        unasked = [
            _instruction(MOVE_REGISTER, 1, source=ACCESS),
            _instruction(AND, 1, immediate=others),
            _instruction(JUMP_NOT_EQUAL, 1, offset=len(answer), immediate=0),
        ]
    tail = len(unasked) + len(answer)
    lines = []
    for index, (operation, register, value) in enumerate(body):
        lines.append(_instruction(operation, register, offset=len(body) - index - 1 + tail, immediate=value))
    return lines + unasked + answer


def _instruction(code: int, destination: int, *, source: int = 0, offset: int = 0, immediate: int = 0) -> bytes:
    return INSTRUCTION.pack(code, destination | source << 4, offset, immediate)


def _write_v1(cgroup: ControlGroup, rules: Sequence[DeviceRule]) -> None:
    for rule in rules:
        numbers = ":".join("*" if number is None else str(number) for number in (rule.major, rule.minor))
        text = "a" if rule.type == "a" else f"{rule.type} {numbers} {rule.access}"
        cgroup.write("devices", "devices.allow" if rule.allow else "devices.deny", text)
