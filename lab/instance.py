"""What every backend promises and every metric and probe may rely on.

Metrics and probes know an `Instance`, never which backend made it; a backend makes instances and never
knows who measures them.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from pathlib import Path
from typing import ClassVar, Self

from lab.errors import LabError, UsageError
from lab.host.cgroup import accounting, mounted
from lab.host.cgroup.control import ControlGroup
from lab.host.clock import Listener, Timeline
from lab.host.execution.contract import Execution as Execution
from lab.host.identity import privilege
from lab.host.procstat import start_time
from lab.images.store import Image
from lab.model import (
    Accelerator,
    Check,
    Completed,
    Kernel,
    Limits,
    Process,
    PublishedPort,
    Stack,
    TerminalSize,
    Volume,
)

INSIDE = "/.lab/inside"
"""Where every instance sees lab's static helper program, on a read-only mount of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Knob:
    """What of a backend's instances an experiment may vary: a factor, in the words of experimental design.

    ``levels`` are all that it can be set to, the first one being what it is when nobody sets it. ``tells`` is what
    varying it shows, in one plain sentence. One that is ``application_only`` says how the application comes to run,
    and means nothing for another command that is launched in its place. One that ``is_open`` can be set to more than
    can be listed, like ``example``; `Backend.settle` refuses what it can't be, and writes all ways to say it as one.
    """

    name: str
    levels: tuple[str, ...]
    tells: str
    application_only: bool = False
    is_open: bool = False
    example: str = ""


NO_KNOBS: Mapping[str, str] = {}
UNCOUNTED = (
    "No control group counts what it uses: its CPU time is that of its processes' clocks, without those that have "
    "left their parent and ended, and what memory the kernel charges is not known."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchRequest:
    """One copy of ``image`` to start, the same for every backend.

    ``name`` is unique within the session. ``log_directory`` exists already; the backend writes ``stdout.log``,
    ``stderr.log`` (an own-kernel backend may merge the two) and ``console.log`` into it. ``stdout`` and
    ``stderr``, when given, are descriptors that receive the application's output *besides* the log.

    The application reads ``stdin``, a descriptor that stays the caller's; None is /dev/null. With ``terminal`` a
    pseudo-terminal of that size, made inside, is its controlling terminal and all three of its streams: what
    ``stdin`` gives goes in, what comes out is the output (there is no separate stderr then).

    ``listener`` hears of every step of the start.

    A ``detached`` instance survives this process, killed before it could stop it: see `Backend.adopt`.

    ``mergeable`` offers its memory to the host's KSM, where a backend can and a VMM does not do it anyway.

    ``volumes`` are the host's files that it sees, where the backend can show it any: see `Backend.check_volumes`.

    ``knobs`` sets some of the backend's `Knob`s by name; the others stay at their first level.
    """

    name: str
    image: Image
    process: Process
    limits: Limits
    log_directory: Path
    published: tuple[PublishedPort, ...] = ()
    volumes: tuple[Volume, ...] = ()
    stdout: int | None = None
    stderr: int | None = None
    stdin: int | None = None
    terminal: TerminalSize | None = None
    listener: Listener | None = None
    detached: bool = False
    mergeable: bool = False
    knobs: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Survivor:
    """What is left of a detached instance whose process of lab's was killed.

    ``pid`` is its first process on the host, the oldest in its cgroup: its init or its VMM. The session with all its
    files, the cgroup and the network, where it could be saved, are the same as before.
    """

    pid: int
    address: IPv4Address
    accelerator: Accelerator
    timeline: Timeline  # as far as it was recorded


@dataclass(frozen=True, slots=True, kw_only=True)
class Companion:
    """What an instance can't be without and shares with others, so that nobody is charged for it: an engine, with its
    daemons. ``processes`` gives their pids on the host with their names; its group counts their CPU, and that of
    what they started and has ended.

    ``calls`` has the seconds that it took for what it was asked for, by name; ``cpu_before_seconds`` is what its
    group had used when the instance was requested, ``alone_bytes`` the PSS of its processes before anything ran.
    """

    title: str
    cgroup: ControlGroup
    processes: Callable[[], Mapping[int, str]]
    calls: Mapping[str, float] = field(default_factory=dict)
    cpu_before_seconds: float = 0.0
    alone_bytes: int | None = None


class Instance(ABC):
    """One running copy of an image. A context manager: leaving it stops the instance and verifies that
    nothing of it survived.
    """

    name: str
    backend: str
    request: LaunchRequest
    timeline: Timeline
    address: IPv4Address  # on lab's bridge, inside lab's network namespace
    published: tuple[PublishedPort, ...]  # as asked for, host port 0 replaced by the one chosen
    accelerator: Accelerator
    cgroup: ControlGroup  # holds every host process of this instance, a VMM included
    given: Limits | None = None  # of one that can't be asked inside: the limits that it was made with
    opaque: bool = False  # True: nothing of lab's is inside, so that `execute` always raises
    companion: Companion | None = None  # what serves it and others, and is in no instance's cgroup
    bundle: Path | None = None  # the config.json that another than lab has given to its runtime, if it can be read
    snapshot_bytes: int | None = None  # of the saved one that it was restored from, on the host's disk

    @abstractmethod
    def execute(self, argv: Sequence[str], *, stdin: bytes = b"", timeout_seconds: float = 30.0) -> Completed:
        """Run a command of the image inside, as root, behind the same boundary as the application.

        Raises LabError when it can't be run at all, does not end in time, or writes more to a stream than lab keeps:
        64 MiB, 16 MiB in a virtual machine (it is then killed).
        """

    def begin(
        self,
        argv: Sequence[str],
        *,
        stdin: int | None,
        stdout: int,
        stderr: int,
        terminal: TerminalSize | None = None,
        environment: Mapping[str, str] | None = None,
        directory: str = "",
        user: str = "",
    ) -> Execution:
        """Start a command of the image inside, behind the same boundary as the application; return once it runs.

        The descriptors stay the caller's, who may close them when the execution is closed, not before. Without a
        terminal the command reads ``stdin`` (None: /dev/null) and writes ``stdout`` and ``stderr``; it has
        pipes, which are copied to and from these, never the descriptors themselves. With one, a pseudo-terminal of
        that size is made inside, in the instance's own devpts, and is the command's controlling terminal: what
        ``stdin`` gives goes in, what comes out goes to ``stdout``.

        The environment is the application's with ``environment`` over it (and TERM=xterm with a terminal, if
        neither sets it). ``directory`` and ``user`` are the application's unless given; a user is a name or
        a number of the image, with ``:GROUP`` if wanted, as Docker's --user. The command does not outlive this
        process. Raises LaunchError with exit code 126 or 127 when it can't be executed, LabError otherwise; the
        default always does.
        """
        raise LabError(f"backend {self.backend} can't run a command with streams of its own")

    def resize(self, size: TerminalSize) -> None:
        """Give the application's terminal another size. Nothing if it has none."""

    def inside(self, *arguments: str, stdin: bytes = b"", timeout_seconds: float = 30.0) -> Completed:
        """Run lab's own static helper inside; see ``lab/inside/inside.c`` for its verbs."""
        return self.execute((INSIDE, *arguments), stdin=stdin, timeout_seconds=timeout_seconds)

    def wait_executed(self) -> None:
        """Block until the application's execve(2) has happened. Raises LaunchError when it can't be executed.

        By default it has happened when `Backend.launch` returns.
        """

    @abstractmethod
    def wait(self, timeout_seconds: float | None = None) -> int | None:
        """The application's exit code (128 + n after signal n), or None when the time ran out first.

        Raises ExitUnknown when it has ended and its code can't be known, which only happens after `Backend.adopt`.
        """

    @abstractmethod
    def signal(self, number: int) -> None:
        """Send a signal to the application."""

    def saved_memory_bytes(self) -> int | None:
        """What of the host's memory that holds which this one maps with all that go on from the same saved one.

        None where it maps none.
        """
        return None

    def pause(self) -> None:
        """Let everything of it stand still where it is, without a signal that it could notice. Returns when it does.

        By default its cgroup is frozen. Raises LabError, and the instance goes on.
        """
        self.cgroup.freeze()

    def resume(self) -> None:
        """Let what `pause` has stopped go on."""
        self.cgroup.thaw()

    @abstractmethod
    def stop(self, grace_seconds: float = 10.0) -> None:
        """Stop signal, wait, kill; then remove everything and verify. Idempotent.

        Marks STOPPING and GONE. Raises LabError if something survived.
        """

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


@dataclass(frozen=True, slots=True, kw_only=True)
class Parity:
    """What a backend can't make equal, said in the report: one plain sentence each.

    ``of_level`` has those that are true at one level of a knob only, by name and level, and ``rootless`` those that
    are true of an ordinary user's only.
    """

    differences: tuple[str, ...] = field(default_factory=tuple)
    rootless: tuple[str, ...] = ()
    of_level: Mapping[tuple[str, str], str] = field(default_factory=dict)

    def at(self, levels: Mapping[str, str]) -> tuple[str, ...]:
        """What differs where the knobs are at ``levels``, every one of them named."""
        of_levels = tuple(said for at, said in self.of_level.items() if at in levels.items())
        if not privilege.is_rootless():
            return self.differences + of_levels
        uncounted = () if accounting.is_offered(mounted.host()) else (UNCOUNTED,)
        return self.differences + of_levels + self.rootless + uncounted


class Backend(ABC):
    """One way of isolating. A module under ``lab/backends/`` that defines one is found by itself."""

    name: ClassVar[str]
    title: ClassVar[str]  # how reports call it: "container (lab)"
    mechanism: ClassVar[str]  # one sentence a student understands
    kernel: ClassVar[Kernel]
    confines: ClassVar[bool] = True  # False for the control that has a root directory and limits, and no boundary
    filtered: ClassVar[bool] = True  # where it confines on the host's kernel: by a filter of system calls, unasked
    own_filter: ClassVar[bool] = False  # True: it is another program's own, and only the kernel can tell which
    rootless: ClassVar[bool] = False  # True: an ordinary user's lab, in a user namespace of its own, can run it
    own_ids: ClassVar[bool] = False  # True: on the host's kernel, its root is not the host's root
    stack: ClassVar[Stack | None] = None  # whose defaults confine it, where these are not quite those of lab
    opaque: ClassVar[bool] = False  # True: its instances boot what lab did not make, and can't be asked inside
    own_image: ClassVar[Image | None] = None  # what its instances run, whatever they are asked to
    reference: ClassVar[bool] = False  # True: to compare lab with, so nothing runs on it unless it is named
    keeps: ClassVar[bool] = True  # whether what `prepare` makes outlives the session
    adds: ClassVar[tuple[str, ...]] = ()  # files that its instances see where the image has none: not lab's doing
    reading: ClassVar[Mapping[str, str]] = NO_KNOBS  # levels at which root inside may read every file of the image
    order: ClassVar[int]  # from the thinnest boundary to the thickest; also the order of every table and plot
    parity: ClassVar[Parity]
    knobs: ClassVar[tuple[Knob, ...]] = ()

    @property
    def slug(self) -> str:
        """Its name as part of an instance's, which is a host name, a folder and an id of other runtimes."""
        return re.sub(r"[^A-Za-z0-9.-]", "-", self.name)

    @classmethod
    def settle(cls, knobs: Mapping[str, str] = NO_KNOBS) -> dict[str, str]:
        """The level of every knob: the given, of the others the first.

        Raises UsageError for names and levels that don't exist or don't go together, BackendUnavailable when this
        host lacks what a level needs. Quick; makes nothing.
        """
        offered = {knob.name: knob.levels for knob in cls.knobs}
        open_ones = {knob.name for knob in cls.knobs if knob.is_open}
        for name, level in knobs.items():
            if name not in offered:
                what = f"knobs: {', '.join(offered)}" if offered else "it has none"
                raise UsageError(f"backend {cls.name} has no knob {name}", hint=what)
            if level not in offered[name] and name not in open_ones:
                raise UsageError(
                    f"{name} of backend {cls.name} has no level {level}", hint=f"levels: {', '.join(offered[name])}"
                )
        return {name: knobs.get(name, levels[0]) for name, levels in offered.items()}

    @classmethod
    def differences(cls, knobs: Mapping[str, str] = NO_KNOBS) -> tuple[str, ...]:
        """What it can't make equal with these knobs, as reports print it: a sentence each.

        Raises what `settle` raises, and LabError when what makes its instances has changed.
        """
        return cls.parity.at(cls.settle(knobs))

    def facing(self, instance: Instance) -> int:
        """Of an instance's processes the one whose filter stands between it and the host's kernel.

        By default the application, its newest; where its kernel is its own the process that runs that kernel, its
        oldest. Raises LabError.
        """
        ages = sorted(instance.cgroup.processes(), key=lambda pid: start_time(pid) or 0)
        if not ages:
            raise LabError(f"{instance.name} has ended")
        return ages[-1 if self.kernel is Kernel.HOST else 0]

    @classmethod
    def made_by(cls, knobs: Mapping[str, str] = NO_KNOBS) -> Mapping[str, str]:
        """The program of others that makes its instances, as a run keeps it: path, version, features, digest.

        By default there is none of which more has to be known than the versions that every run records.
        """
        return {}

    @classmethod
    def check_limits(cls, limits: Limits, knobs: Mapping[str, str] = NO_KNOBS) -> None:
        """Raises LimitError for limits in which no instance with these knobs can be expected to come up."""

    @classmethod
    def check_volumes(cls, volumes: Sequence[Volume]) -> None:
        """Raises UsageError when an instance can't see the host's files: by default it can't."""
        if volumes:
            raise UsageError(
                f"an instance on {cls.name} has no way to the host's files, so -v can't be had there",
                hint="COPY them into the image, lab cp them into the instance, or: --on container",
            )

    @classmethod
    def carrying(cls, knobs: Mapping[str, str] = NO_KNOBS) -> dict[str, str]:
        """Those of ``knobs`` that an image's files pass on their way into an instance: all but `application_only`."""
        passed = {knob.name for knob in cls.knobs if not knob.application_only}
        return {name: level for name, level in knobs.items() if name in passed}

    @classmethod
    def lacking(cls) -> Mapping[tuple[str, str], str]:
        """The levels of its knobs, by name and level, that this host was asked for and can't offer, and why: a line.

        An experiment leaves these out where others of the factor are left. By default there are none.
        """
        return {}

    @classmethod
    def unfetched(cls) -> str:
        """What `fetch` would get, as a noun; "" where it is here, or nothing is needed. Quick, changes nothing."""
        return ""

    @classmethod
    def fetch(cls, told: Callable[[str], None]) -> None:
        """Get what a host need not have, once for all sessions, and only when this backend is asked for by name.

        ``told`` hears a sentence before anything is fetched. Raises LabError. By default there is nothing to get.
        """

    @classmethod
    @abstractmethod
    def check(cls) -> list[Check]:
        """What this host must offer; quick, changes nothing. Unusable when a check is not ok."""

    @abstractmethod
    def prepare(self, image: Image, knobs: Mapping[str, str] = NO_KNOBS) -> None:
        """Everything that is done once per image and must not count as boot: a disk, a guest kernel.

        ``knobs`` are those of the requests to come.
        """

    def files(self, image: Image, knobs: Mapping[str, str] = NO_KNOBS) -> Iterable[Path]:
        """What lab made, once prepared, and an instance may read from a disk: files and folders of them.

        Cold and warm starts are made with them. What is the host's own, a VMM or a library, is not among them. By
        default none is known: a warm start is then not verified, and a cold one refused.
        """
        return ()

    def rehearse(self, request: LaunchRequest) -> None:
        """What is done once for all requests that differ in name and logs alone, and must not count as their start:
        one to restore them from. `launch` does it by itself, before REQUESTED, where it has not been done.

        Raises LaunchError. By default there is nothing to do.
        """
        return

    @abstractmethod
    def launch(self, request: LaunchRequest) -> Instance:
        """Start one instance and return as soon as its boundary is requested; the timeline goes on by itself.

        Marks REQUESTED first. On failure everything done so far is undone and LaunchError raised.
        """

    def adopt(self, request: LaunchRequest, survivor: Survivor) -> Instance:
        """Take over a detached instance from a process that was killed; ``request`` is what it was launched with.

        Its ports are published again. Raises LabError when it has ended meanwhile, or can't be taken over; it is
        left as it is then.
        """
        raise LabError(f"backend {self.name} can't take an instance over", hint="lab clean, when it has ended")

    def close(self) -> None:
        """Release what the backend holds for the session. Idempotent."""
