"""What a probe is: one isolation question, asked from inside an instance, with an answer and its evidence.

A probe is one small class. It names the lines it wants `inside batch` to run (see ``lab/inside/inside.c``), and
judges the replies. It has two controls, the same lines in two other places. On the host itself, the positive one,
they must get through: else a refusal inside says nothing about the boundary. In a place where nothing is allowed
(``inside closed``, or a cgroup with the same limits), the negative one, they must not: else they say yes always. A
probe whose controls fail is *inconclusive*, never a green tick.

No probe harms what it asks: invalid arguments that only the privileged get rejected for, opens without a write,
signal 0. It never knows which backend it asks.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, ClassVar

from lab.instance import Backend
from lab.model import Kernel, Limits

Reply = Mapping[str, Any]
"""One line of JSON that a verb of ``inside`` printed."""

EVERY_ID = "0 0 4294967295"
"""user_namespaces(7): what /proc/self/uid_map holds in the first user namespace."""

BOOT_ID = "boot"
"""What tells one kernel from another: the id that it drew when it booted (random(4))."""

BOOTED_SECONDS = 2.0
"""Within this two looks at one kernel's clocks agree when it booted: the clock of the day may be set between them."""


LACKING = frozenset({"ENOSYS", "ENOENT", "ENODEV", "ENXIO", "EOPNOTSUPP", "EINVAL"})
"""What a kernel says of a call, a file or a device that it has not got. Of a lacking capability it says EPERM."""


class Answer(StrEnum):
    """What was found. The first three reach the host, the next two stop before it, the last two don't leave
    the instance's own kernel.
    """

    YES = "yes"  # it works, on the host
    HOST = "host"  # the value seen is the host's
    NO_LIMIT = "no limit"
    NO = "no"
    EFFECTIVE = "effective"  # the limit holds
    OWN = "own"  # the value seen is the instance's own
    GUEST = "guest"  # it works, on the instance's own kernel only

    @property
    def reach(self) -> str:
        """open, closed or own: how reports colour it."""
        if self in (Answer.YES, Answer.HOST, Answer.NO_LIMIT):
            return "open"
        return "own" if self in (Answer.OWN, Answer.GUEST) else "closed"


class Boundary(StrEnum):
    """The kinds of boundary about which expectations can be stated."""

    BARE = "bare"  # no boundary but a root directory: the control of every comparison
    CONTAINER = "container"  # namespaces, capabilities, a filter, cgroups, on the host's kernel
    USER_NAMESPACE = "user namespace"  # the same, and its root is an ordinary user of the host
    DOCKER = "docker"  # a container with Docker's own defaults, where lab's and Docker's are not the same
    PODMAN = "podman"  # the same with podman's, which are mostly Docker's
    BUBBLEWRAP = "bubblewrap"  # namespaces and no capability, without masks and without a filter
    NSPAWN = "nspawn"  # a container whose root keeps nearly all of root's capabilities
    USER_SPACE_KERNEL = "user-space kernel"  # its own, a program of the host's that confines what it serves
    USER_MODE_LINUX = "user-mode linux"  # a Linux of its own, a program of the host that another kernel confines
    OWN_KERNEL = "own kernel"  # a virtual machine
    LIBKRUN = "libkrun"  # one with libkrunfw's kernel, which has less than a distribution's

    @classmethod
    def of(cls, backend: Backend) -> Boundary:
        """Which kind a backend's instances are."""
        if backend.stack:
            return cls(backend.stack)
        if backend.kernel is not Kernel.HOST:
            return OF_KERNELS[backend.kernel]
        if not backend.confines:
            return cls.BARE
        return cls.USER_NAMESPACE if backend.own_ids else cls.CONTAINER


OF_KERNELS: Mapping[Kernel, Boundary] = {
    Kernel.USER_SPACE: Boundary.USER_SPACE_KERNEL,
    Kernel.USER_MODE: Boundary.USER_MODE_LINUX,
    Kernel.OWN: Boundary.OWN_KERNEL,
}


class Mechanism(StrEnum):
    """What answers the question where the boundary is a container's."""

    NONE = "none"
    NAMESPACE = "namespace"
    CAPABILITY = "capability"
    SECCOMP = "seccomp filter"
    CGROUP = "cgroup"
    MASKED = "masked or read-only path"
    RESOURCE_LIMIT = "resource limit"
    HARDWARE = "hardware"
    OWN_KERNEL = "own kernel"
    ABSENT = "not in its kernel"
    UNMOUNTED = "not mounted"


class Group(StrEnum):
    """Headings of the matrix, in the order in which they are asked: what weighs on the instance comes last."""

    KERNEL = "kernel sharing"
    VISIBILITY = "visibility"
    PRIVILEGE = "privilege"
    SURFACE = "kernel attack surface"
    DEVICES = "devices"
    NETWORK = "network"
    TIME = "time and side channels"
    LIMITS = "resource exhaustion"


class Place(StrEnum):
    """Where a control runs; all of them are on the host's kernel."""

    HOST = "the host itself"
    CLOSED = "a place where nothing is allowed"
    LIMITED = "the host, in a cgroup with the same limits"


class Severity(StrEnum):
    """What an unexpected answer would mean."""

    ESCAPE = "reaches the host"
    LEAK = "tells about the host"
    INFORMATION = "characterises the boundary"


@dataclass(frozen=True, slots=True)
class Expected:
    """The answers that are right for a kind of boundary, and why, in a sentence."""

    answers: tuple[Answer, ...]
    because: str


def expect(*answers: Answer, because: str) -> Expected:
    """``expect(Answer.NO, because="…")``, as probes write it."""
    return Expected(answers, because)


def expectations(
    *,
    bare: Expected,
    container: Expected,
    own_kernel: Expected,
    user_namespace: Expected | None = None,
    docker: Expected | None = None,
    podman: Expected | None = None,
    bubblewrap: Expected | None = None,
    nspawn: Expected | None = None,
    user_space: Expected | None = None,
    user_mode: Expected | None = None,
    libkrun: Expected | None = None,
) -> Mapping[Boundary, Expected]:
    """What is right for each kind of boundary; every probe says it for all of them. A user namespace around a
    container changes nothing unless said otherwise, nor does it that Docker made it, and podman's is as Docker's.
    A sandbox of bubblewrap's is as a container, and so is nspawn's container. A kernel in user space is another than
    the host's as that of a machine is, unless said otherwise, and so are a User-mode Linux and libkrun's kernel.
    """
    return {
        Boundary.BARE: bare,
        Boundary.CONTAINER: container,
        Boundary.USER_NAMESPACE: user_namespace or container,
        Boundary.DOCKER: docker or container,
        Boundary.PODMAN: podman or docker or container,
        Boundary.BUBBLEWRAP: bubblewrap or container,
        Boundary.NSPAWN: nspawn or container,
        Boundary.USER_SPACE_KERNEL: user_space or own_kernel,
        Boundary.USER_MODE_LINUX: user_mode or own_kernel,
        Boundary.OWN_KERNEL: own_kernel,
        Boundary.LIBKRUN: libkrun or own_kernel,
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Signal:
    """A message left in the host's page cache: of the file ``path`` inside, ``real`` on the host, the pages with a 1
    are in memory, and those with a 0 are not.
    """

    path: str
    real: str
    pages: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What the host knows and an instance must not: a process of the host to look for, a disk, the limits.

    That process says ``victim_token`` to whoever connects to it, on the loopback's ``victim_port`` or by the abstract
    socket of that name, and keeps it in the System V segment ``victim_memory``. ``used_seconds`` is how much CPU the
    instance's group took while it was asked what is judged, by the host's count.
    """

    victim_pid: int
    victim_token: str
    disk: tuple[int, int] | None  # major, minor
    limits: Limits = field(default_factory=Limits)
    victim_port: int = 0
    victim_memory: int = -1
    home: str = "/"  # on the disk that keeps the instances' files
    group: str = ""  # the instance's cgroup, below each hierarchy's root
    signal: Signal | None = None
    used_seconds: float | None = None
    fellow_pid: int = 0  # another process of the user whose container was broken out of (lab.isolation.breakout)
    is_process: bool = False  # its own kernel is a process of the host's


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """An answer and the evidence for it; ``value`` where there is a number worth plotting. ``ended_it`` of an answer
    that was the end of the instance. ``mechanism`` is what the evidence shows to have answered, where it tells.
    """

    answer: Answer
    evidence: str
    value: float | None = None
    ended_it: bool = False
    mechanism: Mechanism | None = None


class Inconclusive(Exception):
    """Raised by a probe that can't tell, with the reason in a sentence."""


class Probe(ABC):
    """One question. Subclasses anywhere below ``lab/isolation/probes/`` are found by themselves."""

    id: ClassVar[str] = ""
    group: ClassVar[Group]
    question: ClassVar[str]
    mechanism: ClassVar[Mechanism]
    severity: ClassVar[Severity] = Severity.ESCAPE
    expected: ClassVar[Mapping[Boundary, Expected]]
    timeout_seconds: ClassVar[float] = 20.0
    together: ClassVar[bool] = True  # its lines may run in one go with other probes'
    may_end: ClassVar[bool] = False  # some boundaries answer by ending the instance: it is asked last of all
    positive: ClassVar[Place] = Place.HOST
    negative: ClassVar[Place] = Place.CLOSED
    pages: ClassVar[tuple[str, ...]] = ()  # manual pages to read on
    surprise: ClassVar[str] = ""  # what another answer than the expected would mean, where there is more to say

    @abstractmethod
    def lines(self, context: Context) -> Sequence[str]:
        """The lines to run inside. Raises Inconclusive when there is nothing sensible to ask."""

    @abstractmethod
    def judge(self, seen: Sequence[Reply], host: Sequence[Reply], context: Context) -> Found:
        """The answer, from the replies inside and those of the control on the host. Raises Inconclusive."""

    def judge_ended(self, hits: Mapping[str, int], context: Context) -> Found:
        """The answer of an instance that ended when it was asked, of one that `may_end`; ``hits`` is how often it met
        its limits (`lab.host.cgroup.control.ControlGroup.limit_hits`). Raises Inconclusive.
        """
        raise Inconclusive("the instance has ended")

    def control_lines(self, context: Context) -> Sequence[str]:
        """The lines of the positive control, run on the host itself; the probe's own unless that would harm."""
        return self.lines(context)

    def check_control(self, host: Sequence[Reply], context: Context) -> None:
        """Raise Inconclusive unless the host shows the bare truth: asked there, it must reach the host.

        Does not bind where it works inside, or on the instance's own kernel: that needs no control to be believed.
        """
        found = self.judge(host, host, context)
        if found.answer.reach != "open":
            raise Inconclusive(f"on the host itself the answer is {found.answer}: {found.evidence}")

    def check_negative(self, closed: Sequence[Reply], host: Sequence[Reply], context: Context) -> None:
        """Raise Inconclusive unless a closed place shows that it can say no: what says yes there says it always."""
        try:
            found = self.judge(closed, host, context)
        except Inconclusive as error:
            raise Inconclusive(f"in a closed place it can't be told: {error}") from error
        if found.answer.reach == "open":
            raise Inconclusive(f"even in a closed place the answer is {found.answer}: {found.evidence}")


class HostValue(Probe):
    """Is a file's content the host's? Subclasses name the ``path``, and how many bytes of it are enough.

    What another kernel says is its own, however equal: a guest inside a virtual machine has the same firmware as its
    host, and maybe the same kernel. Unless the content ``passes_through``, because hardware answers and no kernel.
    """

    path: ClassVar[str]
    most_bytes: ClassVar[int] = 4096
    passes_through: ClassVar[bool] = False
    severity = Severity.LEAK

    def lines(self, context: Context) -> Sequence[str]:
        return (f"read {self.path} {self.most_bytes}", BOOT_ID)

    def judge(self, seen: Sequence[Reply], host: Sequence[Reply], context: Context) -> Found:
        text, theirs = self.essence(seen[0]["text"]), self.essence(host[0]["text"])
        if seen[0]["errno"] or not text:
            error = str(seen[0]["name"])
            return Found(answer=Answer.NO, evidence=f"{self.path}: {error or 'empty'}", mechanism=stopped_by(error))
        own = not self.passes_through and is_another_kernel(seen[-1], host[-1])
        answer = Answer.HOST if not own and self.same(text, theirs) else Answer.OWN
        evidence = f"{self.path}: {' '.join(text.split())[:120]}"
        if own and text == theirs:
            evidence += ", of another kernel, equal to the host's"
        return Found(answer=answer, evidence=evidence, value=self.value(text))

    def essence(self, text: str) -> str:
        """The part of the file that identifies who it is about; empty when it says nothing."""
        return str(text).strip()

    def same(self, seen: str, host: str) -> bool:
        """Whether two essences are about the same thing."""
        return seen == host

    def value(self, essence: str) -> float | None:
        """The number in it, where there is one worth plotting."""
        return None


DROPPED = Expected((Answer.NO,), "every capability is dropped, and the kernel asks for one")
AS_ROOT = Expected((Answer.YES,), "nspawn leaves its root the capability, and its filter allows what that is for")
"""Of a container of systemd-nspawn's."""

NO_SYS = Expected((Answer.NO,), "it has no /sys: bwrap mounts one only where it is told to")
"""Of a sandbox of bubblewrap's."""


def stopped_by(error: str) -> Mechanism | None:
    """What says so with that error, where the error tells."""
    return Mechanism.ABSENT if error in LACKING else Mechanism.MASKED if error == "EROFS" else None


class Privilege(Probe):
    """Does a line get past the permission check? Subclasses name the ``line``, and the errors that only those
    get who are ``allowed`` ("" is success); ``because`` says why a default container's root is not, ``docker``
    what is expected of Docker's where that is not the same, and ``podman`` what of podman's where that is not either,
    ``bubblewrap`` what of a sandbox of bubblewrap's, ``nspawn`` what of a container of systemd-nspawn's,
    ``user_space`` what of a kernel in user space, ``user_mode`` what of a User-mode Linux that lacks the thing,
    ``libkrun`` what of libkrun's kernel that does. With ``of_namespace``, a kind of them, it is done to that of the
    caller: to its own, unless that is the host's.
    """

    line: ClassVar[str]
    allowed: ClassVar[frozenset[str]]
    refused: ClassVar[frozenset[str]] = frozenset({"EPERM", "EACCES", "ENOSYS", "EROFS", "ENOENT", "ESRCH"})
    because: ClassVar[str]
    docker: ClassVar[Expected | None] = None
    podman: ClassVar[Expected | None] = None
    bubblewrap: ClassVar[Expected | None] = None
    nspawn: ClassVar[Expected | None] = None
    of_namespace: ClassVar[str] = ""
    user_space: ClassVar[Expected] = Expected(
        (Answer.NO,), "its kernel asks for the same capability, which its root lacks, or has no such thing at all"
    )
    user_mode: ClassVar[Expected | None] = None
    libkrun: ClassVar[Expected | None] = None
    group = Group.PRIVILEGE
    mechanism = Mechanism.CAPABILITY

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "because" in cls.__dict__ and "expected" not in cls.__dict__:
            cls.expected = expectations(
                bare=expect(Answer.YES, because="lab's own root, with every capability that it has and no filter"),
                container=expect(Answer.NO, because=cls.because),
                own_kernel=expect(Answer.GUEST, because="root is root, but of the guest's own kernel"),
                docker=cls.docker,
                podman=cls.podman,
                bubblewrap=cls.bubblewrap or (DROPPED if cls.mechanism is Mechanism.CAPABILITY else None),
                nspawn=cls.nspawn,
                user_space=cls.user_space,
                user_mode=cls.user_mode,
                libkrun=cls.libkrun,
            )

    def lines(self, context: Context) -> Sequence[str]:
        return (self.line, *(["namespaces"] if self.of_namespace else []), BOOT_ID)

    def judge(self, seen: Sequence[Reply], host: Sequence[Reply], context: Context) -> Found:
        asked, error = self.lines(context)[0].split(" x:")[0], str(seen[0]["name"])
        evidence = f"{asked}: {error or 'succeeded'}"
        if error in self.allowed and self._of_its_own(seen, host):
            evidence += f", in its own {self.of_namespace} namespace"
            return Found(answer=Answer.OWN, evidence=evidence, mechanism=Mechanism.NAMESPACE)
        if error in self.allowed:
            return Found(answer=on_whose_kernel(seen[-1], host[-1]), evidence=evidence)
        if error in self.refused:
            return Found(answer=Answer.NO, evidence=evidence, mechanism=stopped_by(error))
        raise Inconclusive(f"unexpected outcome: {evidence}")

    def _of_its_own(self, seen: Sequence[Reply], host: Sequence[Reply]) -> bool:
        kind = self.of_namespace
        if not kind or on_whose_kernel(seen[-1], host[-1]) is Answer.GUEST:
            return False
        return bool(seen[1].get(kind) != host[1].get(kind))


class Readable(Privilege):
    """Can a file be read that tells about whatever the kernel serves? Subclasses name the ``path`` and the
    ``expected``. An empty file tells nothing: it is masked.
    """

    path: ClassVar[str]
    most_bytes: ClassVar[int] = 200
    allowed = frozenset({""})
    severity = Severity.LEAK
    mechanism = Mechanism.MASKED

    def lines(self, context: Context) -> Sequence[str]:
        return (f"read {self.path} {self.most_bytes}", BOOT_ID)

    def judge(self, seen: Sequence[Reply], host: Sequence[Reply], context: Context) -> Found:
        text = str(seen[0]["text"]).strip("\0 \n")
        if seen[0]["errno"] or not text:
            error = str(seen[0]["name"])
            return Found(answer=Answer.NO, evidence=f"{self.path}: {error or 'empty'}", mechanism=stopped_by(error))
        shown = " ".join("".join(c if c.isprintable() else " " for c in text).split())
        return Found(answer=on_whose_kernel(seen[-1], host[-1]), evidence=f"{self.path}: {shown[:100]}")


def on_whose_kernel(seen: Reply, host: Reply) -> Answer:
    """YES when a reply to `BOOT_ID` is the host's, GUEST when another kernel gave it. Raises Inconclusive."""
    if seen.get("errno", 1) or host.get("errno", 1):
        raise Inconclusive("the boot id can't be read")
    return Answer.YES if _same_boot(seen, host) else Answer.GUEST


def is_another_kernel(seen: Reply, host: Reply) -> bool:
    """Whether both replies to `BOOT_ID` tell, and differ."""
    return not seen.get("errno", 1) and not host.get("errno", 1) and not _same_boot(seen, host)


def _same_boot(seen: Reply, host: Reply) -> bool:
    """By the kernel's id. systemd-nspawn mounts another over it: then by when the kernel booted."""
    if seen.get("masked"):
        return abs(float(seen["booted"]) - float(host["booted"])) < BOOTED_SECONDS
    return bool(seen["text"] == host["text"])
