"""The CPU time of processes, one by one: for an ordinary user whose instances are in no group that accounts for it.

Each process's clock has nanoseconds, its threads that have ended included; what it has waited for counts in ticks of
10 ms. Lost is what nobody of them has waited for: a child that has left its parent, once it has ended.
Sources: clock_getcpuclockid(3), proc_pid_stat(5). Imports little.
"""

from __future__ import annotations

import os
import time

from lab.host import procstat
from lab.shims import suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

NANOSECONDS = 1_000_000_000
SCHEDULED = 2  # CPUCLOCK_SCHED of include/linux/posix-timers.h, of a whole process
USER = 11  # fields behind the program's name: user, system, and both of the children that were waited for


def cpu_nanoseconds(pids: Iterable[int]) -> tuple[int, int, int]:
    """All of it, as user and as system; the clock tells no halves, so that these are shared out as the ticks are."""
    total = user = system = 0
    for pid in pids:
        with suppress(OSError, IndexError):  # it has ended
            ticks = [int(field) for field in procstat.fields(pid)[USER : USER + 4]]
            waited = sum(ticks[2:]) * NANOSECONDS // os.sysconf("SC_CLK_TCK")
            whole = time.clock_gettime_ns(clock_of(pid)) + waited
            in_user = whole * (ticks[0] + ticks[2]) // max(1, sum(ticks))
            total, user, system = total + whole, user + in_user, system + whole - in_user
    return total, user, system


def clock_of(pid: int) -> int:
    """The kernel's number for the CPU clock of the process ``pid``, which clock_gettime(2) takes."""
    return ~pid << 3 | SCHEDULED
