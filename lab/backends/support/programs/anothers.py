"""What lab sees of a container that another engine makes: its group, why it did not start, what serves it."""

from __future__ import annotations

import resource
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from lab import record
from lab.errors import GroupGone, LaunchError
from lab.host.cgroup.control import ControlGroup, CpuUsage
from lab.host.survey import facts
from lab.model import Limits
from lab.runtime.bundle import OPEN_FILES

ENTER = 'while [ "$1" != -- ]; do echo $$ >"$1"; shift; done; shift; exec "$@"'
"""For sh: a process writes its number into the files before --, and becomes the command behind it."""

LIKE_DOCKER = 125
NOT_FOUND = ("executable file not found", "no such file or directory")
NOT_EXECUTABLE = ("permission denied", "not a directory", "is a directory", "exec format error")


class GroupAround(ControlGroup):
    """The group that lab made around a container: it is there before the engine's own, and after it.

    What is used is counted here as well as below. What is limited, and how often a limit was met, is found below.
    """

    below: ControlGroup | None = None

    def effective_limits(self) -> Limits:
        return self.below.effective_limits() if self.below else super().effective_limits()

    def limit_hits(self) -> dict[str, int]:
        with suppress(GroupGone):
            return self.below.limit_hits() if self.below else super().limit_hits()
        return {}

    def cpu(self) -> CpuUsage:
        used = super().cpu()
        with suppress(GroupGone):
            if self.below:
                inner = self.below.cpu()
                return record.replace(
                    used,
                    throttled_nanoseconds=inner.throttled_nanoseconds,
                    throttled_periods=inner.throttled_periods,
                    periods=inner.periods,
                )
        return used


def not_started(whose: str, name: str, said: str) -> LaunchError:
    """The error of a container that did not start, with the exit code that ``docker run`` would end with."""
    code = LIKE_DOCKER
    if any(word in said for word in NOT_FOUND):
        code = 127
    elif any(word in said for word in NOT_EXECUTABLE):
        code = 126
    hint = "does the image hold that program?" if code != LIKE_DOCKER else "lab doctor"
    return LaunchError(f"{whose} can't start container {name}: {said}", hint=hint, exit_code=code)


def processes_of(cgroup: ControlGroup, names: Collection[str]) -> dict[int, str]:
    """The pids of those in ``cgroup`` whose names begin so, each with its name (proc_pid_comm(5))."""
    found = {}
    for pid in cgroup.processes():
        with suppress(OSError):
            name = Path(f"/proc/{pid}/comm").read_text().strip()
            if name.startswith(tuple(names)):
                found[pid] = name
    return found


def pss_bytes(pid: int) -> int:
    """proc_pid_smaps(5); 0 of a process that has ended."""
    with suppress(FileNotFoundError, ProcessLookupError):
        return facts.parse_meminfo(Path(f"/proc/{pid}/smaps_rollup").read_text()).get("Pss", 0)
    return 0


def open_files() -> int:
    """How many files a container's process may open: as Docker's own service allows, or this host."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
