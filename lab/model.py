"""Frozen data shared by every part of lab. No behaviour beyond reading oneself; no imports from lab."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import ClassVar

KSM_PASSES = 3
"""What kernel same-page merging takes: the end of a pass that is under way, and two whole ones, since it merges what
it has seen unchanged since the one before.
"""


class Accelerator(StrEnum):
    """What executes an instance's instructions; stamped on every sample."""

    NATIVE = "native"
    KVM = "kvm"
    TCG = "tcg"


class Kernel(StrEnum):
    """Whose kernel answers an instance's system calls."""

    HOST = "host"
    OWN = "own"  # a virtual machine's
    USER_SPACE = "user space"  # its own, too, but a program of the host's, without a machine
    USER_MODE = "user mode"  # its own Linux, which is a program of the host's as well

    @property
    def is_guest(self) -> bool:
        """Whether it is a Linux that has as much memory as the limits say, and a pids limit of its own."""
        return self in (Kernel.OWN, Kernel.USER_MODE)


class DiskFileSystem(StrEnum):
    """The file systems that an image's disk may have, as mount(8) calls them."""

    EXT4 = "ext4"
    EROFS = "erofs"


class Stack(StrEnum):
    """Other makers of instances, whose defaults, or whose kernel, are not quite those of lab."""

    DOCKER = "docker"
    PODMAN = "podman"
    BUBBLEWRAP = "bubblewrap"
    NSPAWN = "nspawn"
    LIBKRUN = "libkrun"

    @property
    def is_engine(self) -> bool:
        """Whether programs of it run beside its containers, in no instance's group."""
        return self in (Stack.DOCKER, Stack.PODMAN)


class Phase(StrEnum):
    """The events in an instance's life, in order. Every one is stamped by the host's CLOCK_MONOTONIC."""

    REQUESTED = "requested"  # lab decided to start it
    ISOLATED = "isolated"  # its boundary exists: namespaces and cgroup, or a VMM about to run its vCPUs
    KERNEL = "kernel"  # its own kernel gave its first sign of life (own-kernel backends only)
    INIT = "init"  # its first user-space process runs
    EXECUTED = "executed"  # the application's execve has happened
    RESTORED = "restored"  # instead of the last three: one that was saved with its application goes on
    ADDRESSED = "addressed"  # of a system that lab did not make: it was given its address by DHCP
    LISTENING = "listening"  # its port accepts a connection
    RESPONDED = "responded"  # it is ready: what was waited for was seen, a `Milestone`
    DONE = "done"  # it ended by itself
    STOPPING = "stopping"  # lab asked it to stop
    GONE = "gone"  # nothing of it is left on the host


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Resource limits of one instance; ``None`` means unlimited.

    For an own-kernel backend ``memory_bytes`` is the guest's RAM and ``cpus``, rounded up, its vCPUs:
    not the same thing as a cgroup's limit, and every report says so.
    """

    memory_bytes: int | None = None
    cpus: float | None = None
    pids: int | None = None


class Milestone(StrEnum):
    """What was seen of an instance that counts as ready, and with that what its boot time is the time of.

    The words are part of the quantity's name wherever a reader meets it: no number that was measured until one
    of them may be shown as if it had been measured until another.
    """

    CORRECT_ANSWER = "first correct answer"  # what the answer says was compared, over HTTP its status too
    ANSWER = "first answer"  # over HTTP, with the status that was asked for; nobody said what its body must hold
    PORT_OPEN = "port open"  # a connection was accepted; nothing was asked
    LOG_LINE = "log line"  # the application wrote that it is ready
    HEALTHY = "healthy"  # the image's HEALTHCHECK succeeded
    STARTED = "started"  # its execve has happened; nothing was asked
    DONE = "done"  # it ended by itself, with exit code 0


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpReadiness:
    """Ready when GET ``path`` answers with ``status`` and a body that contains ``body``."""

    path: str = "/"
    status: int = 200
    body: str = ""

    @property
    def milestone(self) -> Milestone:
        """Without a body to compare, an answer is not known to be a correct one."""
        return Milestone.CORRECT_ANSWER if self.body else Milestone.ANSWER


@dataclass(frozen=True, slots=True, kw_only=True)
class TcpReadiness:
    """Ready when the port accepts a connection."""

    milestone: ClassVar[Milestone] = Milestone.PORT_OPEN


@dataclass(frozen=True, slots=True, kw_only=True)
class LogReadiness:
    """Ready when a line of the output matches the regular expression ``pattern``."""

    milestone: ClassVar[Milestone] = Milestone.LOG_LINE

    pattern: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TalkReadiness:
    """Ready when the port answers the bytes ``send`` with some that contain ``expect``: a protocol's own ping."""

    milestone: ClassVar[Milestone] = Milestone.CORRECT_ANSWER

    send: str
    expect: str


MOST_HEALTHCHECK_SECONDS = 10 * 365.25 * 86_400
"""Ten years: of what a check of an image's may ask for, more is a mistake, or an attempt to overflow something."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Healthcheck:
    """How an image says that it works (Docker image specification, ``Healthcheck``).

    ``test`` is ``("CMD", WORD…)``, ``("CMD-SHELL", LINE)``, or ``("NONE",)`` to switch a base image's off. None means
    Docker's default: every 30 s, 30 s each, no start period, every 5 s in it, 3 failures in a row are unhealthy.
    """

    test: tuple[str, ...]
    interval_seconds: float | None = None
    timeout_seconds: float | None = None
    start_period_seconds: float | None = None
    start_interval_seconds: float | None = None
    retries: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthReadiness:
    """Ready when the image's own HEALTHCHECK succeeds; ``shell`` is the image's, () for ``/bin/sh -c``."""

    milestone: ClassVar[Milestone] = Milestone.HEALTHY

    check: Healthcheck
    shell: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class StartedReadiness:
    """Ready when its execve has happened: there is nothing to ask, or nobody shall ask."""

    milestone: ClassVar[Milestone] = Milestone.STARTED


@dataclass(frozen=True, slots=True, kw_only=True)
class DoneReadiness:
    """A batch job: what counts is when it has ended, with exit code 0. Its boot is over when it has started."""

    milestone: ClassVar[Milestone] = Milestone.DONE


Readiness = (
    HttpReadiness | TcpReadiness | LogReadiness | TalkReadiness | HealthReadiness | StartedReadiness | DoneReadiness
)
"""How it is seen that an instance is ready; None in a scenario means that nobody has said it yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """The HTTP load that wrk offers to an instance."""

    path: str = "/"
    connections: int = 4
    duration_seconds: float = 3.0


class Place(StrEnum):
    """Where a scenario's own work is started."""

    INSIDE = "inside"  # in the instance, as root: a batch job, a disk benchmark
    BESIDE = "beside"  # in a second copy of the image, on the backend process, whatever backend is measured: a client


class Take(StrEnum):
    """Which of several numbers that match a figure's pattern is the figure."""

    LAST = "last"  # what a tool prints on its way comes before its result
    MEDIAN = "median"
    P95 = "p95"


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One number that a scenario's work prints: the one group of the regular expression ``pattern``, times ``scale``.

    ``take`` says which one of several. ``unit`` is as samples have it ("seconds", "bytes/s", "requests/s", "1", …).
    """

    name: str
    pattern: str
    unit: str
    label: str
    definition: str = ""
    take: Take = Take.LAST
    scale: float = 1.0
    more_is_better: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """A load or a job of the scenario's own: a command, what its output must match, and the figures in it.

    ``{address}`` and ``{port}`` in ``argv`` become the instance's.
    """

    argv: tuple[str, ...]
    place: Place
    expect: str = ""
    timeout_seconds: float = 120.0
    figures: tuple[Figure, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """An application directory and how to run and measure it."""

    name: str
    title: str
    directory: Path
    dockerfile: Path
    port: int | None = None
    readiness: Readiness | None = None
    ready_timeout_seconds: float = 120.0
    limits: Limits = field(default_factory=Limits)
    load: Load | None = None
    work: Work | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    build_arguments: Mapping[str, str] = field(default_factory=dict)
    build_secrets: tuple[str, ...] = ()  # where to read each from, as ``lab build --secret`` has it; never the secret


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageConfig:
    """The part of an OCI image configuration that says how to run it (OCI image-spec, config.md).

    ``exposed_ports`` are TCP's, ``other_ports`` those of other protocols, like ``53/udp``. ``stop_signal`` "" means
    SIGTERM. ``shell``, ``on_build`` and ``health`` are Docker's additions; ``shell`` () means ``/bin/sh -c``.
    """

    environment: Mapping[str, str] = field(default_factory=dict)
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    working_directory: str = "/"
    user: str = ""
    exposed_ports: tuple[int, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    stop_signal: str = ""
    other_ports: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()
    shell: tuple[str, ...] = ()
    on_build: tuple[str, ...] = ()
    health: Healthcheck | None = None
    author: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """What an instance executes, fully resolved: numeric ids, absolute working directory."""

    argv: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    working_directory: str = "/"
    uid: int = 0
    gid: int = 0
    additional_gids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedPort:
    """``host_port`` of the host's ``address`` leads to ``instance_port``; host port 0 lets the kernel choose.

    ``address`` is one of the host's, IPv4 or IPv6, without brackets; the loopback unless somebody asks for more.
    """

    host_port: int
    instance_port: int
    address: str = "127.0.0.1"

    @property
    def host(self) -> str:
        """The host's end as it is written in a URL: ``127.0.0.1:8080``, ``[::1]:8080``."""
        return f"[{self.address}]:{self.host_port}" if ":" in self.address else f"{self.address}:{self.host_port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume:
    """A file or folder of the host's, ``source``, that an instance sees at ``target``; both are absolute paths."""

    source: str
    target: str
    read_only: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TerminalSize:
    """A terminal's size in characters, as in tty_ioctl(4)'s struct winsize; 0 means unknown."""

    rows: int = 24
    columns: int = 80


@dataclass(frozen=True, slots=True, kw_only=True)
class Completed:
    """A command that ran to its end inside an instance or on the host."""

    exit_code: int
    stdout: bytes
    stderr: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing ``lab doctor`` looked at."""

    name: str
    ok: bool
    found: str
    remedy: str = ""
    required_by: tuple[str, ...] = ()  # the backends that can't work without it
    costs: str = ""  # what else can't be had without it, "" for what backends alone need
