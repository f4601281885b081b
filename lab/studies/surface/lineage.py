"""Who does a traced thread work for? Told from the births and executions that a recording holds. Pure.

A start is work of three: lab itself, which asks for it and watches (its process, and the launcher); the processes
that are made to put the boundary up; and the instance. What was forked to put a boundary up *becomes* the instance
with one execve(2): of the application, or of the virtual machine monitor.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

CLONE_THREAD = 0x00010000
ENCLOSING = ("systemd-nspawn",)
"""Programs that a shell of lab's becomes, and that stay in the instance's group while the application runs below."""


class Side(StrEnum):
    """Whose work it is."""

    LAB = "lab"
    SETUP = "setup"  # processes made by lab until they are the instance, or gone
    INSTANCE = "instance"  # the application, or the monitor of its machine, with all their children
    KERNEL = "kernel"  # threads of the kernel's own, and interrupts, in whose time ever they came
    OTHER = "other"


@dataclass(frozen=True, slots=True, kw_only=True)
class Born:
    """clone(2): a thread or process ``child`` of the thread ``parent``; ``time`` in nanoseconds."""

    time: int
    parent: int
    child: int
    is_thread: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Executed:
    """execve(2) of ``program`` by the thread ``former``, which is the process ``pid`` afterwards."""

    time: int
    pid: int
    former: int
    program: str


Step = Born | Executed


class Lineage:
    """The sides of all threads that descend from ``roots``, over time."""

    def __init__(self, steps: Iterable[Step], roots: Collection[int], becomes: Executed | None, side: Side) -> None:
        """``roots`` are on ``side``. ``becomes`` is the execution at which the instance begins."""
        self._times: dict[int, list[int]] = {root: [0] for root in roots}
        self._sides: dict[int, list[Side]] = {root: [side] for root in roots}
        for step in sorted(steps, key=lambda each: each.time):
            match step:
                case Born(parent=parent, child=child) if parent in self._sides:
                    heir = self._sides[parent][-1]
                    is_new = heir is Side.LAB and not step.is_thread
                    self._note(child, step.time, Side.SETUP if is_new else heir)
                case Executed(pid=pid) if step == becomes:
                    self._note(pid, step.time, Side.INSTANCE)
                case Executed(pid=pid, former=former) if pid != former and former in self._sides:
                    self._note(pid, step.time, self._sides[former][-1])

    def _note(self, thread: int, time: int, side: Side) -> None:
        self._times.setdefault(thread, []).append(time)
        self._sides.setdefault(thread, []).append(side)

    def side(self, thread: int, time: int) -> Side:
        """Whose work the thread did at ``time``."""
        if thread not in self._times:
            return Side.OTHER
        place = bisect_right(self._times[thread], time) - 1
        return self._sides[thread][max(place, 0)]


def find_becoming(
    steps: Sequence[Step], roots: Collection[int], members: Collection[int], program: str, kernel: int | None = None
) -> Executed | None:
    """The execution at which what was forked by ``roots`` became the instance, whose processes are ``members`` now.

    Of the executions by these and their forebears it is the first one of a program called as ``program`` (the
    application's argv[0]), a shell that becomes one of `ENCLOSING` apart; if there is none, as for a machine whose
    application runs inside, the last one by the process that is or runs its ``kernel``, or else by the oldest member.
    None when nothing was executed.
    """
    leader, parent = {root: root for root in roots}, dict[int, int]()
    for step in sorted(steps, key=lambda each: each.time):
        if isinstance(step, Born):
            above = leader.get(step.parent, step.parent)
            leader[step.child] = above if step.is_thread else step.child
            if not step.is_thread:
                parent[step.child] = above
    line, oldest = set[int](), kernel or min(members, key=lambda pid: _birth(steps, pid), default=0)
    for pid in members:
        while pid and pid not in roots and pid not in line:
            line.add(pid)
            pid = parent.get(pid, 0)
    executions = sorted(
        (step for step in steps if isinstance(step, Executed) and step.pid in line), key=lambda each: each.time
    )
    enclosing = {step.pid: step.time for step in executions if _base(step.program) in ENCLOSING}
    named = [
        step
        for step in executions
        if _base(step.program) == _base(program) and step.time >= enclosing.get(step.pid, step.time)
    ]
    last = [step for step in executions if step.pid == oldest]
    return named[0] if named else last[-1] if last else None


def _birth(steps: Iterable[Step], pid: int) -> int:
    return next((step.time for step in steps if isinstance(step, Born) and step.child == pid), 0)


def _base(program: str) -> str:
    return program.rpartition("/")[2]
