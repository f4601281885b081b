"""Do its limits hold? Tried for real: a little more than is allowed, bounded, and given back at once.

Where no limit is set nothing is tried: on a shared kernel it would be the host that suffers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from lab.host.units import MIB
from lab.isolation.base import (
    BOOT_ID,
    Answer,
    Context,
    Found,
    Group,
    Inconclusive,
    Mechanism,
    Place,
    Probe,
    Reply,
    Severity,
    expect,
    expectations,
    on_whose_kernel,
)

LARGEST_TRY_BYTES = 4 << 30
CONTROL_BYTES = 16 * MIB
TOLERANCE = 1.25
"""A quota is given out in periods of 0.1 s, and a try may see one more of them than its share."""

LARGEST_TRY_PIDS = 4096
SPARE_PIDS = 32
CONTROL_PIDS = 8
SPIN_SECONDS = 0.6
LARGEST_TRY_CPUS = 32


class _Limit(Probe):
    group = Group.LIMITS
    mechanism = Mechanism.CGROUP
    severity = Severity.ESCAPE
    timeout_seconds = 150.0
    together = False
    negative = Place.LIMITED


class MemoryLimit(_Limit):
    """A child touches a quarter more than the limit, page by page, and offers itself to the OOM killer. A kernel in
    user space is killed with it.
    """

    id = "memory-limit"
    question = "Does its memory limit hold?"
    may_end = True
    pages = ("cgroups(7)", "mmap(2)")
    expected = expectations(
        bare=expect(Answer.EFFECTIVE, because="it is in a memory cgroup like every instance"),
        container=expect(Answer.EFFECTIVE, because="the memory cgroup's limit kills what exceeds it"),
        own_kernel=expect(Answer.EFFECTIVE, because="the guest has no more RAM than that"),
        user_space=expect(
            Answer.EFFECTIVE, because="the memory cgroup's limit kills the Sentry, and with it everything it serves"
        ),
    )

    def lines(self, context: Context) -> Sequence[str]:
        limit = context.limits.memory_bytes
        if limit is None:
            raise Inconclusive("no limit set")
        asked = limit * 5 // 4 + 32 * MIB
        if asked > LARGEST_TRY_BYTES:
            raise Inconclusive(f"a limit of {limit // MIB} MiB is too large to try")
        return (f"allocate {asked}",)

    def control_lines(self, context: Context) -> Sequence[str]:
        return (f"allocate {CONTROL_BYTES}",)

    def check_control(self, host: Sequence[Reply], context: Context) -> None:
        if host[0]["fate"] != "done" or host[0]["touched"] < CONTROL_BYTES:
            raise Inconclusive(f"on the host even {CONTROL_BYTES // MIB} MiB failed: {host[0]['fate']}")

    def judge(self, seen: Sequence[Reply], host: Sequence[Reply], context: Context) -> Found:
        touched, fate, limit = int(seen[0]["touched"]), seen[0]["fate"], context.limits.memory_bytes
        evidence = f"{fate} after {touched // MIB} MiB, limit {(limit or 0) // MIB} MiB"
        if fate not in ("done", "killed"):
            raise Inconclusive(f"the allocation was {fate}")
        holds = fate == "killed" and limit is not None and touched <= limit
        return Found(answer=Answer.EFFECTIVE if holds else Answer.NO_LIMIT, evidence=evidence, value=float(touched))

    def judge_ended(self, hits: Mapping[str, int], context: Context) -> Found:
        if not hits.get("oom"):
            raise Inconclusive("the instance has ended, and not for want of memory")
        limit = (context.limits.memory_bytes or 0) // MIB
        evidence = f"its cgroup counts a kill for want of memory at {limit} MiB: the whole instance ended"
        return Found(answer=Answer.EFFECTIVE, evidence=evidence, ended_it=True)


class PidsLimit(_Limit):
    """Forks a few more children than the limit allows; they wait, and are reaped. A kernel in user space that gets no
    thread of the host's ends.
    """

    id = "pids-limit"
    question = "Does its limit of processes hold?"
    may_end = True
    pages = ("cgroups(7)", "fork(2)")
    expected = expectations(
        bare=expect(Answer.EFFECTIVE, because="it is in a pids cgroup like every instance"),
        container=expect(Answer.EFFECTIVE, because="the pids cgroup refuses the next fork(2)"),
        own_kernel=expect(Answer.EFFECTIVE, because="the guest's kernel limits it by a pids cgroup of its own"),
        user_space=expect(
            Answer.EFFECTIVE,
            because="the pids cgroup refuses the Sentry a thread of the host's, without which it ends",
        ),
    )

    def lines(self, context: Context) -> Sequence[str]:
        limit = context.limits.pids
        if limit is None:
            raise Inconclusive("no limit set")
        if limit + SPARE_PIDS > LARGEST_TRY_PIDS:
            raise Inconclusive(f"a limit of {limit} processes is too large to try")
        return (f"fork {limit + SPARE_PIDS}", BOOT_ID)

    def control_lines(self, context: Context) -> Sequence[str]:
        return (f"fork {CONTROL_PIDS}", BOOT_ID)

    def check_control(self, host: Sequence[Reply], context: Context) -> None:
        if host[0]["made"] != CONTROL_PIDS:
            raise Inconclusive(f"on the host even {CONTROL_PIDS} processes failed: {host[0]['name']}")

    def judge(self, seen: Sequence[Reply], host: Sequence[Reply], context: Context) -> Found:
        made, limit = int(seen[0]["made"]), context.limits.pids
        evidence = f"{made} children, then {seen[0]['name'] or 'enough'}; limit {limit}"
        if seen[0]["name"] == "EAGAIN" and limit is not None and made < limit:
            return Found(answer=Answer.EFFECTIVE, evidence=evidence, value=float(made))
        if seen[0]["errno"]:
            raise Inconclusive(f"fork failed otherwise: {evidence}")
        own = on_whose_kernel(seen[-1], host[-1]) is Answer.GUEST
        return Found(answer=Answer.GUEST if own else Answer.NO_LIMIT, evidence=evidence, value=float(made))

    def judge_ended(self, hits: Mapping[str, int], context: Context) -> Found:
        if not hits.get("pids"):
            raise Inconclusive("the instance has ended, and not for want of processes")
        evidence = f"its cgroup counts forks refused at {context.limits.pids} processes: the whole instance ended"
        return Found(answer=Answer.EFFECTIVE, evidence=evidence, ended_it=True)


class CpuLimit(_Limit):
    """Keeps one processor more busy than it may have, for a second. The same on the host must get more. Some kernels
    count what was wanted, not what was given: the host's count of the whole instance goes for it where it is less.
    """

    id = "cpu-limit"
    question = "Does its CPU limit hold?"
    pages = ("cgroups(7)", "sched(7)")
    expected = expectations(
        bare=expect(Answer.EFFECTIVE, because="it is in a cpu cgroup like every instance"),
        container=expect(Answer.EFFECTIVE, because="the cpu cgroup's quota stops it for the period's rest"),
        own_kernel=expect(Answer.EFFECTIVE, because="it has no more virtual processors than that"),
        user_space=expect(Answer.EFFECTIVE, because="the cpu cgroup's quota stops the Sentry and all that it serves"),
    )

    def lines(self, context: Context) -> Sequence[str]:
        limit = context.limits.cpus
        if limit is None:
            raise Inconclusive("no limit set")
        if limit + 1 > LARGEST_TRY_CPUS:
            raise Inconclusive(f"a limit of {limit:g} processors is too large to try")
        return (f"spin {SPIN_SECONDS:g} {math.ceil(limit) + 1}",)

    def check_control(self, host: Sequence[Reply], context: Context) -> None:
        obtained, limit = _cpus(host[0]), context.limits.cpus
        if limit is not None and obtained <= limit * TOLERANCE:
            raise Inconclusive(f"even without a limit the host gave no more than {obtained:.2f} CPUs")

    def judge(self, seen: Sequence[Reply], host: Sequence[Reply], context: Context) -> Found:
        obtained, limit = _cpus(seen[0]), context.limits.cpus
        if context.used_seconds is not None:
            obtained = min(obtained, context.used_seconds / float(seen[0]["wall_seconds"]))
        holds = limit is not None and obtained <= limit * TOLERANCE
        return Found(
            answer=Answer.EFFECTIVE if holds else Answer.NO_LIMIT,
            evidence=f"{obtained:.2f} CPUs, limit {limit:g}; {_cpus(host[0]):.2f} on the host",
            value=obtained,
        )


def _cpus(reply: Reply) -> float:
    return float(reply["cpu_seconds"]) / float(reply["wall_seconds"])
