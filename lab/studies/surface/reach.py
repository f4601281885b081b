"""How much of a kernel's interface a backend's instances reach: each system call, found by two independent ways.

*Called*: lab's helper makes each call inside, in a process of its own, with arguments that none accepts, so that what
gets through fails in the kernel. *Evaluated*: the filter of the instance's configuration is compiled and run by
lab's interpreter of BPF on the same numbers and arguments, and on others, since some decisions depend on them. Where
the two differ, one of them is wrong, or something else than the filter decides.
"""

from __future__ import annotations

import errno
import json
import signal
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from lab.errors import LabError
from lab.host.command import run
from lab.host.kernel.filters import installed
from lab.inside import build
from lab.instance import Instance
from lab.model import Completed
from lab.runtime.config.model import Seccomp
from lab.runtime.seccomp import compiler
from lab.runtime.seccomp.bpf import Action, evaluate, possible
from lab.runtime.seccomp.compiler import native

SECONDS = 120.0
IMPOSSIBLE = (1 << 64) - 1
ACTION, DATA = 0xFFFF0000, 0xFFFF

SKIPPED = {
    "exit": "ends the process, whatever its argument",
    "exit_group": "ends the process, whatever its argument",
    "fork": "takes no argument that could be wrong: a child would run on",
    "vfork": "takes no argument that could be wrong: a child would run on in the caller's memory",
    "clone": "flags that all kernels refuse can't be relied upon: a child might run on",
    "msgget": "any key and any flags make a message queue, which would stay",
    "pause": "waits for ever",
    "kill": "-1 means everybody it may signal",
    "reboot": "what it does should not hang on one argument",
    "rt_sigreturn": "takes what lies on the stack for the registers to go on with",
    "sync": "writes out every file system of the machine",
    "vhangup": "takes no argument that could be wrong: it would hang up the terminal",
    "uretprobe": "kills whoever calls it from anywhere but its trampoline",
    "uprobe": "kills whoever calls it from anywhere but its trampoline",
}
"""What can't be made harmless by wrong arguments, and why."""

ZEROED = ("futex", "init_module", "modify_ldt")
"""Those to which -1 is an operation that doesn't exist (ENOSYS, as from a filter), or a size; 0 fails otherwise."""


class Outcome(StrEnum):
    """What becomes of a call. The first three are the filter's to decide."""

    ALLOWED = "allowed"  # it reaches the kernel's code for it
    ARGUMENTS = "by argument"  # with some arguments it does
    REFUSED = "refused"  # the filter answers with an error
    KILLED = "killed"  # the filter kills who makes it
    PRIVILEGE = "privileged"  # it reaches the kernel, which refuses it to this caller and not to the host's root
    ABSENT = "absent"  # this kernel has no such call
    SKIPPED = "not called"  # it can't be called without harm; what the filter says of it is known all the same


STRICTEST = (Outcome.KILLED, Outcome.REFUSED, Outcome.ARGUMENTS, Outcome.ALLOWED)
"""Of several filters the kernel carries out the strictest one's answer (seccomp(2))."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One system call: what the filter decides, what happened, and whether that fits.

    ``seen`` and ``bare`` are errnos, 0 for success, minus a signal's number, None where it was not called: inside,
    and without any boundary on the kernel that answers inside.
    """

    number: int
    name: str
    filtered: Outcome
    answer: int  # what the filter returns for the arguments that were used
    seen: int | None
    bare: int | None

    @property
    def outcome(self) -> Outcome:
        """What becomes of it, all in all."""
        if self.filtered in (Outcome.REFUSED, Outcome.KILLED, Outcome.ARGUMENTS):
            return self.filtered
        if self.seen is None:
            return Outcome.SKIPPED
        if self.seen == -signal.SIGSYS:
            return Outcome.KILLED
        if self.seen == errno.ENOSYS:
            return Outcome.ABSENT if self.bare == errno.ENOSYS else Outcome.REFUSED
        if self.seen in (errno.EPERM, errno.EACCES) and self.bare not in (errno.EPERM, errno.EACCES):
            return Outcome.PRIVILEGE
        return Outcome.ALLOWED

    @property
    def agrees(self) -> bool | None:
        """Whether what happened is what the filter says; None where it was not called."""
        if self.seen is None:
            return None
        action, data = self.answer & ACTION, self.answer & DATA
        if action == Action.ERRNO & ACTION:
            return self.seen == data
        if action in (Action.KILL_THREAD & ACTION, Action.KILL_PROCESS & ACTION):
            return self.seen == -signal.SIGSYS
        return self.seen != -signal.SIGSYS and (self.seen != errno.ENOSYS or self.bare == errno.ENOSYS)

    @property
    def told(self) -> str:
        """What happened, in a word."""
        return tell(self.seen)


def tell(seen: int | None) -> str:
    """An observed outcome in a word: ``EPERM``, ``SIGSYS``, ``done``, ``waited``."""
    if seen is None:
        return "–"
    if seen < 0:
        return "waited" if seen == -signal.SIGALRM else signal.Signals(-seen).name
    return errno.errorcode.get(seen, str(seen)) if seen else "done"


def observe(instance: Instance) -> list[int | None]:
    """What becomes of each call inside, by number. Raises LabError."""
    return _outcomes(instance.inside(*arguments(), timeout_seconds=SECONDS))


def observe_host() -> list[int | None]:
    """The same on the host, without any boundary: what the kernel itself says to these arguments."""
    return _outcomes(run([build.program(), *arguments()], timeout_seconds=SECONDS))


def arguments() -> Sequence[str]:
    """What lab's helper is called with to make every call."""
    table = native()
    lists = (",".join(str(table[name]) for name in names if name in table) for names in (SKIPPED, ZEROED))
    return ("surface", str(max(table.values()) + 1), *lists)


def _outcomes(done: Completed) -> list[int | None]:
    try:
        found: list[int | None] = json.loads(done.stdout)["outcomes"]
    except (ValueError, KeyError) as error:
        raise LabError("the system calls can't be tried inside", detail=done.stderr.decode()) from error
    return found


def compare(
    profile: Seccomp | None, seen: Sequence[int | None], bare: Sequence[int | None], held: InForce | None = None
) -> list[Call]:
    """Every call this machine's kernel is known to have, in the order of the numbers.

    ``profile`` is the filter in force inside, None for none, unless ``held`` has what the kernel says of it; ``seen``
    is `observe`'s. ``bare`` is what the kernel that answers inside says without a boundary: `observe_host`'s for the
    host's, ``seen`` itself for one of its own.
    """
    program = compiler.compile(profile) if profile else b""
    by_argument = _by_argument(profile, program) if profile else frozenset()
    found = []
    for name, number in sorted(native().items(), key=lambda item: item[1]):
        used = [0 if name in ZEROED else IMPOSSIBLE] * 6
        answer = evaluate(program, number, used) if program else int(Action.ALLOW)
        filtered = Outcome.ARGUMENTS if name in by_argument else _meaning(answer)
        if held is not None:
            filtered, answer = held.outcomes[name], held.answers[name]
        found.append(
            Call(number=number, name=name, filtered=filtered, answer=answer, seen=seen[number], bare=bare[number])
        )
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class InForce:
    """The filters of a process as the kernel holds them, and what they decide about each call by its name.

    ``answers`` are what the strictest one returns for the arguments with which calls are made.
    """

    filters: int
    instructions: int
    outcomes: Mapping[str, Outcome]
    answers: Mapping[str, int]


def in_force(pid: int) -> InForce:
    """Read a process's filters back and evaluate them. Raises LabError where the kernel does not give them away."""
    programs = installed(pid)
    outcomes, answers = {}, {}
    for name, number in native().items():
        used = [0 if name in ZEROED else IMPOSSIBLE] * 6
        decided = [_decision(possible(program, number)) for program in programs]
        outcomes[name] = min(decided, key=STRICTEST.index, default=Outcome.ALLOWED)
        returned = [evaluate(program, number, used) for program in programs]
        answers[name] = min(returned, key=lambda word: STRICTEST.index(_meaning(word)), default=int(Action.ALLOW))
    return InForce(
        filters=len(programs), instructions=sum(map(len, programs)) // 8, outcomes=outcomes, answers=answers
    )


def _decision(words: Collection[int]) -> Outcome:
    meanings = {_meaning(word) for word in words}
    return meanings.pop() if len(meanings) == 1 else Outcome.ARGUMENTS


def tell_answer(word: int) -> str:
    """What a filter returned, in a word: ``EPERM``, ``killed``, ``allowed``."""
    if word & ACTION == Action.ERRNO & ACTION:
        return tell(word & DATA)
    return str(_meaning(word))


def _meaning(answer: int) -> Outcome:
    action = answer & ACTION
    if action in (Action.KILL_THREAD & ACTION, Action.KILL_PROCESS & ACTION, Action.TRAP & ACTION):
        return Outcome.KILLED
    return Outcome.REFUSED if action == Action.ERRNO & ACTION else Outcome.ALLOWED


def _by_argument(profile: Seccomp, program: bytes) -> frozenset[str]:
    """Those of which the filter's answer depends on an argument: asked with what its rules name, and more."""
    table, found = native(), set()
    for rule in profile.syscalls:
        for name in rule.names if rule.args else ():
            if name not in table:
                continue
            answers = {evaluate(program, table[name], used) for used in _tries(rule.args)}
            if len({_meaning(answer) for answer in answers}) > 1:
                found.add(name)
    return frozenset(found)


def _tries(arguments: Sequence[object]) -> list[list[int]]:
    tries = [[0] * 6, [IMPOSSIBLE] * 6]
    for argument in arguments:
        index, value, two = (int(getattr(argument, field)) for field in ("index", "value", "value_two"))
        for one in (value, two, value + 1, value | two):
            used = [0] * 6
            used[index] = one
            tries.append(used)
    return tries
