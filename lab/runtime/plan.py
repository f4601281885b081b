"""What is to be done to start a container: the OCI configuration boiled down to plain numbers and strings.

Made in the big process by `lab.runtime.planning.translate`, where libraries may be used; carried out in the small one
by `lab.runtime.container` and `lab.runtime.init`. Everything survives a trip through JSON.
Standard library only; see `lab.runtime.spawner.spawner`.
"""

from __future__ import annotations

import os
import time

from lab.host.syscalls import MS_REC, MS_SLAVE
from lab.record import Names, Record, items

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Parts = list[tuple[str, float, float]]  # what a step consisted of: a line each, when it began, when it ended
    Tell = Callable[[dict[str, object]], None]  # gets a step that was taken: `lab.host.clock.Taken` but for the side

INSIDE = "/.lab/inside"
"""lab's static helper program, on a read-only mount that every container gets."""


class Step(metaclass=Names):
    """The steps of `lab.runtime.container` and `lab.runtime.init`, in the order in which they are numbered there."""

    CLONE = "clone"
    MAP_IDS = "map ids"
    PLACE = "place in cgroups"
    JOIN = "join namespaces"
    ROOT = "mount the root"
    MOUNTS = "mount"
    HOOKS = "run hooks"
    CONSOLE = "open the terminal"
    MASKS = "mask paths"
    ENTER = "enter the root"
    HOSTNAME = "set the hostname"
    LIMITS = "set rlimits"
    DESCRIPTORS = "close descriptors"
    DIRECTORY = "enter the working directory"
    CAPABILITIES = "drop capabilities"
    NO_NEW_PRIVILEGES = "set no_new_privs"
    START_HOOKS = "run startContainer hooks"
    SECCOMP = "install the seccomp filter"
    EXECVE = "execve"


class Before(metaclass=Names):
    """What the big process does before step 1: the container's surroundings."""

    NETWORK = "connect to the network"
    CGROUP = "make the control groups"
    DEVICES = "guard the devices"
    WRITES = "make folders for writes"
    PLAN = "plan"


class Instead(metaclass=Names):
    """What is done in place of the steps after HOSTNAME, see `lab.runtime.restorer`."""

    CRIU = "restore the processes"


class Enter(metaclass=Names):
    """How the new root is entered: for good, or as root can leave it again (chroot(2), NOTES)."""

    PIVOT_ROOT = "pivot_root"
    MOVE = "move"  # the root's mount over /, where pivot_root(2) can't: on a ramfs
    CHROOT = "chroot"
    STAY = "stay"  # not at all: it is put together for a program that enters it by itself
    IN_PLACE = "in place"  # chroot where the files are: without a mount namespace of its own, nothing is mounted


class ProcessPlan(Record):
    """One process and what it may do. Capability sets are masks with bit n for capability n."""

    argv: list[str]
    environment: list[str]  # NAME=value
    directory: str
    uid: int
    gid: int
    groups: list[int]
    umask: int
    bounding: int
    effective: int
    permitted: int
    inheritable: int
    ambient: int
    rlimits: list[list[int]]  # number, soft, hard
    no_new_privileges: bool
    seccomp: str  # the BPF program in base 64, "" for none
    oom_score_adj: int | None
    init: bool  # lab's helper is executed first and supervises the application
    helper: list[str]  # what it is told besides, see inside/init.c: a terminal to make
    terminal: bool = False  # a terminal of the container's own, sent as CONSOLE
    console_size: list[int] | None = None  # rows, columns
    scheduler: dict[str, int] | None = None  # fields of sched_setattr(2)
    io_priority: list[int] | None = None  # class, priority
    persona: int | None = None  # of personality(2)
    memory_policy: list[int] | None = None  # of set_mempolicy(2): the mode with its flags, the nodes
    affinity: list[list[int]] | None = None  # processors before it is in its cgroup, and then; none: all there are
    exec_label: tuple[str, ...] | list[str] = ()  # a file of proc_pid_attr(5), and what to write there
    fail_at: str = ""  # as `Plan` has it, for a process beside the first
    leads: bool = False  # a session of its own (setsid(2)), as one that is to be saved must
    preserve: int = 0  # how many descriptors from 3 on are handed over
    survives: bool = False  # the launcher's death: a detached instance's application
    mergeable: bool = False  # its memory and its children's is offered to KSM
    seccomp_flags: int = 0  # for seccomp(2)
    agent: dict[str, object] | None = None  # who is notified: its path, metadata, and the container's state
    filter_follows: bool = False  # a filter comes with the word to go on
    own_keyring: bool = True  # a session keyring of its own, see keyrings(7)
    read_only_by_landlock: (
        tuple[str, ...] | list[str]
    ) = ()  # names in /, see lab.runtime.process.landlock; none: no rules


class CgroupsPlan(Record):
    """Where a process is placed: by birth in the v2 tree, by its own hand in those of v1."""

    unified: str  # its directory, "" where there is no v2 tree
    tasks: list[str]  # v1 tasks files


class Plan(Record):
    """One container."""

    name: str
    clone_flags: int  # namespaces made by clone(2)
    cgroup_namespace: bool  # made later, by unshare(2): its root is where the process is placed by then
    joins: list[list[Any]]  # path of a namespace, its CLONE_NEW flag
    uid_map: str  # lines of proc(5) uid_map, "" without a new user namespace
    gid_map: str
    cgroups: CgroupsPlan
    mount_point: str  # where the root is put together, in the container's own mount namespace
    root: dict[str, object]  # a mount operation as JSON, see lab.runtime.rootfs.mounts
    mounts: list[dict[str, object]]
    masks: list[dict[str, object]]
    read_only_root: bool
    enter: str
    hostname: str
    loopback_up: bool
    sysctls: dict[str, str]
    process: ProcessPlan
    born_in: tuple[()] | list[list[Any]] = ()  # as joins, of those that only a process yet to be born can be in: pid
    time_offsets: str = ""  # lines of time_namespaces(7) timens_offsets
    new_time: bool = False
    own_users: bool = False  # a user namespace, new or given
    users: str = ""  # the path of a given one
    joined_first: tuple[()] | list[list[Any]] = ()  # as joins, of those joined before a user namespace is entered
    trees: bool = False  # some mounts are made by the parent, see lab.runtime.rootfs.idmap
    propagation: int = MS_REC | MS_SLAVE  # between the host's mounts and the namespace's copies of them
    root_propagation: int = 0  # of the container's root once it is entered
    domainname: str = ""
    hooks: dict[str, list[dict[str, Any]]] = {}  # noqa: RUF012  # by name, see lab.runtime.hooks
    state: dict[str, Any] = {}  # noqa: RUF012  # the container's, for hooks; without its pid
    hold: bool = False  # wait for EXEC_NOW once isolated
    criu: tuple[str, ...] | list[str] = ()  # instead of a process to execute: the command that restores those saved
    criu_knows: str = ""  # a file with what it has found out about the kernel
    pid_file: str = ""  # where that command tells the first one's pid
    fail_at: str = ""  # a Step at which to fail on purpose: how tests prove that every failure is cleaned up
    explain: bool = False  # tell of each step when it has been taken

    def is_mapped_to_itself(self) -> bool:
        """Whether each id of its user namespace is that very one around it."""
        lines = [line.split() for line in f"{self.uid_map}\n{self.gid_map}".split("\n") if line]
        return bool(lines) and all(inside == outside for inside, outside, _ in lines)

    def to_json(self) -> dict[str, object]:
        return items(self) | {"process": items(self.process), "cgroups": items(self.cgroups)}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Plan:
        process, cgroups = ProcessPlan(**value["process"]), CgroupsPlan(**value["cgroups"])
        return cls(**value | {"process": process, "cgroups": cgroups})


class StepFailed(Exception):
    """A step failed; ``step`` is its name, ``number`` the errno or 0."""

    def __init__(self, step: str, number: int, text: str) -> None:
        super().__init__(f"{step}: {text}")
        self.step = step
        self.number = number
        self.text = text


class Progress:
    """Remembers the step that is being done, for errors to name it, and fails at ``fail_at`` on purpose.

    ``tell`` hears of each step when it has been taken, where somebody wants the start explained. The time that
    telling takes belongs to no step.
    """

    def __init__(self, fail_at: str = "", tell: Tell | None = None) -> None:
        self.step: str = Step.CLONE
        self._fail_at = fail_at
        self._tell = tell
        self._began = 0.0  # of the step, while none has begun
        self._parts: Parts = []

    def enter(self, step: str) -> None:
        """``step`` begins."""
        if self._tell is not None:
            self.finish()
            self._began = _now()
        self.step = step
        if step == self._fail_at:
            raise OSError(0, "injected failure")

    def did(self, describe: Callable[[], str]) -> None:
        """A part of the step has been done, described only if somebody wants to know."""
        if self._tell is not None:
            began = self._parts[-1][2] if self._parts else self._began
            self._parts.append((describe(), began, _now()))

    def finish(self) -> None:
        """The last step has been taken; `enter` says so of the others."""
        if self._tell is not None and self._began:
            self._tell({"step": self.step, "began": self._began, "ended": _now(), "parts": self._parts})
            self._began, self._parts = 0.0, []

    def failure(self, error: BaseException) -> StepFailed:
        """The error that stopped the current step, by name."""
        if isinstance(error, StepFailed):
            return error
        number = error.errno if isinstance(error, OSError) and error.errno else 0
        text = error.strerror if isinstance(error, OSError) and error.strerror else repr(error)
        if isinstance(error, OSError) and error.filename:
            text = f"{os.fsdecode(error.filename)}: {text}"
        return StepFailed(self.step, number, text)


def _now() -> float:
    return time.clock_gettime(time.CLOCK_MONOTONIC)
