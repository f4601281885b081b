"""Frozen data shared by every part of lab. No behaviour beyond reading oneself; no imports from lab."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path


class Accelerator(StrEnum):
    """What executes an instance's instructions; stamped on every sample."""

    NATIVE = "native"
    KVM = "kvm"
    TCG = "tcg"


class Kernel(StrEnum):
    """Whose kernel answers an instance's system calls."""

    HOST = "host"
    OWN = "own"


class Phase(StrEnum):
    """The events in an instance's life, in order. Every one is stamped by the host's CLOCK_MONOTONIC."""

    REQUESTED = "requested"  # lab decided to start it
    ISOLATED = "isolated"  # its boundary exists: namespaces and cgroup, or a VMM about to run its vCPUs
    KERNEL = "kernel"  # its own kernel gave its first sign of life (own-kernel backends only)
    INIT = "init"  # its first user-space process runs
    EXECUTED = "executed"  # the application's execve has happened
    LISTENING = "listening"  # its port accepts a connection
    RESPONDED = "responded"  # its first correct response arrived
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


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpReadiness:
    """Ready when GET ``path`` answers with ``status`` and a body that contains ``body``."""

    path: str = "/"
    status: int = 200
    body: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TcpReadiness:
    """Ready when the port accepts a connection."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogReadiness:
    """Ready when a line of the output matches the regular expression ``pattern``."""

    pattern: str


Readiness = HttpReadiness | TcpReadiness | LogReadiness


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """The HTTP load that wrk offers to an instance."""

    path: str = "/"
    connections: int = 4
    duration_seconds: float = 3.0


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
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageConfig:
    """The part of an OCI image configuration that says how to run it (OCI image-spec, config.md)."""

    environment: Mapping[str, str] = field(default_factory=dict)
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    working_directory: str = "/"
    user: str = ""
    exposed_ports: tuple[int, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    stop_signal: str = "SIGTERM"


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
    """``host_port`` on 127.0.0.1 leads to ``instance_port``; host port 0 lets the kernel choose."""

    host_port: int
    instance_port: int


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
