"""An Instance that is no instance: the helper program run on the host, for tests that need no boundary."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from ipaddress import IPv4Address
from pathlib import Path, PurePosixPath
from types import SimpleNamespace
from typing import Any, TypeVar, cast

from lab.host.cgroup.control import ControlGroup, CpuUsage, MemoryUsage, PageFaults
from lab.host.clock import Timeline, now
from lab.host.command import run
from lab.inside import build
from lab.instance import INSIDE, Instance, LaunchRequest
from lab.model import Accelerator, Completed, Limits, Phase, Process
from lab.network.network import Network

T = TypeVar("T")

PROCESS_CPU_CLOCK = 2  # clock_getcpuclockid(3): the kernel's name for the CPU time of a whole process


class LocalGroup:
    """As much of a ControlGroup as metrics read, about one process of the host."""

    path = PurePosixPath("lab/test/local")

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def processes(self) -> set[int]:
        return {self.pid}

    def cpu(self) -> CpuUsage:
        total = time.clock_gettime_ns(~self.pid << 3 | PROCESS_CPU_CLOCK)
        return CpuUsage(total_nanoseconds=total, user_nanoseconds=total, system_nanoseconds=0)

    def limit_hits(self) -> dict[str, int]:
        return {}

    def faults(self) -> PageFaults | None:
        return None

    def memory(self) -> MemoryUsage:
        return MemoryUsage(
            usage_bytes=30, anon_bytes=10, file_bytes=15, shared_bytes=3, kernel_bytes=5, inactive_file_bytes=7,
            peak_bytes=40, limit_bytes=None,
        )  # fmt: skip


class LocalInstance(Instance):
    """Runs ``argv`` on the host as the application; answers on the loopback."""

    name = "local"
    backend = "local"
    accelerator = Accelerator.NATIVE
    address = IPv4Address("127.0.0.1")

    def __init__(self, argv: Sequence[str], logs: Path, limits: Limits | None = None) -> None:
        self.timeline = Timeline()
        self.timeline.mark(Phase.REQUESTED)
        self.request = LaunchRequest(
            name=self.name, image=cast("Any", None), process=Process(argv=tuple(argv)), limits=limits or Limits(),
            log_directory=logs,
        )  # fmt: skip
        with (logs / "stdout.log").open("wb") as stdout, (logs / "stderr.log").open("wb") as stderr:
            earliest = now()  # a mark made afterwards can be late by as much as this process waits for a CPU
            self.application = subprocess.Popen(argv, stdout=stdout, stderr=stderr)
        self.timeline.mark(Phase.EXECUTED, earliest)
        self.cgroup = cast("ControlGroup", LocalGroup(self.application.pid))

    def execute(self, argv: Sequence[str], *, stdin: bytes = b"", timeout_seconds: float = 30.0) -> Completed:
        words = [str(build.program()) if word == INSIDE else word for word in argv]
        return run(words, stdin=stdin, timeout_seconds=timeout_seconds, check=False)

    def wait(self, timeout_seconds: float | None = None) -> int | None:
        try:
            return self.application.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            return None

    def signal(self, number: int) -> None:
        self.application.send_signal(number)

    def stop(self, grace_seconds: float = 10.0) -> None:
        self.timeline.mark(Phase.STOPPING)
        self.signal(signal.SIGKILL)
        self.application.wait(grace_seconds)
        self.timeline.mark(Phase.GONE)


def here(function: Callable[[], T]) -> T:
    """A network namespace's ``run`` that stays where it is."""
    return function()


LOOPBACK = cast("Network", SimpleNamespace(run_in=here, clients=frozenset()))
"""A Network whose only place is the host's own loopback."""
