"""Which clocks and traces of others can it watch?"""

from __future__ import annotations

from collections.abc import Sequence

from lab.isolation.base import (
    BOOT_ID,
    NO_SYS,
    Answer,
    Context,
    Found,
    Group,
    HostValue,
    Inconclusive,
    Mechanism,
    Privilege,
    Probe,
    Readable,
    Reply,
    Severity,
    expect,
    expectations,
    is_another_kernel,
    on_whose_kernel,
)
from lab.isolation.probes.kernel import CLOSE_SECONDS, SHARED, SHARED_READ, SHOWN, UNMASKED

FINE_SECONDS = 1e-6


class _Clock(Probe):
    group = Group.TIME
    mechanism = Mechanism.NAMESPACE
    severity = Severity.INFORMATION
    pages = ("clock_gettime(2)", "time_namespaces(7)")

    def lines(self, context: Context) -> Sequence[str]:
        return ("clock 1", BOOT_ID)  # CLOCK_MONOTONIC


class MonotonicClock(_Clock):
    """CLOCK_MONOTONIC inside and on the host. Less than two minutes apart they are one clock: the questions are not
    put at the same moment.
    """

    id = "monotonic-clock"
    question = "Does its clock count from the host's boot?"
    expected = expectations(
        bare=expect(Answer.HOST, because="the kernel has one such clock"),
        container=expect(Answer.HOST, because="Docker uses no time namespace"),
        own_kernel=expect(Answer.OWN, because="the guest's clock began when it booted"),
    )
    surprise = "“own” on the host's kernel: a time namespace shifts it, as after a migration by CRIU."

    def judge(self, seen: Sequence[Reply], host: Sequence[Reply], context: Context) -> Found:
        if seen[0]["errno"]:
            return Found(answer=Answer.NO, evidence=f"clock_gettime: {seen[0]['name']}")
        mine, theirs = (float(reply["seconds"]) for reply in (seen[0], host[0]))
        guest = is_another_kernel(seen[1], host[1])
        if theirs < 2 * CLOSE_SECONDS and not guest:
            raise Inconclusive("the host has booted too recently to tell its clock from another")
        close = abs(mine - theirs) < CLOSE_SECONDS
        same = close and not guest
        evidence = f"{'less than two minutes' if close else f'{theirs - mine:.0f} s'} from the host's"
        return Found(answer=Answer.HOST if same else Answer.OWN, evidence=evidence, value=theirs - mine)


class FineClock(_Clock):
    """The resolution of CLOCK_MONOTONIC. With a microsecond or less one can tell a cached page from another, and an
    hour's patience a cached line.
    """

    id = "fine-clock"
    question = "Has it a clock fine enough to time the host's caches?"
    mechanism = Mechanism.HARDWARE
    expected = expectations(
        bare=expect(Answer.YES, because="nobody is denied the time"),
        container=expect(Answer.YES, because="nobody is denied the time, and the caches are the host's"),
        own_kernel=expect(
            Answer.GUEST,
            Answer.NO,
            because="the guest's clock, coarse if emulated; the processor's caches are shared still",
        ),
    )

    def judge(self, seen: Sequence[Reply], host: Sequence[Reply], context: Context) -> Found:
        if seen[0]["errno"]:
            return Found(answer=Answer.NO, evidence=f"clock_getres: {seen[0]['name']}")
        resolution = float(seen[0]["resolution"])
        evidence = f"CLOCK_MONOTONIC has a resolution of {resolution * 1e9:.0f} ns"
        fine = 0 < resolution <= FINE_SECONDS
        answer = on_whose_kernel(seen[1], host[1]) if fine else Answer.NO
        return Found(answer=answer, evidence=evidence, value=resolution)


class ProcessorTimes(HostValue):
    """btime in /proc/stat, the boot's time of day: whose it is, the counters beside it are, that tell how busy each
    processor is.
    """

    id = "processor-times"
    question = "Does it see how busy the host's processors are?"
    group = Group.TIME
    mechanism = Mechanism.NONE
    path = "/proc/stat"
    most_bytes = 65536
    pages = ("proc_stat(5)",)
    expected = SHARED

    def essence(self, text: str) -> str:
        return next((line for line in str(text).splitlines() if line.startswith("btime ")), "")

    def same(self, seen: str, host: str) -> bool:
        return abs(int(seen.split()[1]) - int(host.split()[1])) <= 2  # recomputed at each look, from two clocks


class TimerList(Readable):
    """/proc/timer_list: which process waits for what, and until when."""

    id = "timer-list"
    question = "Can it watch the timers of the host's processes?"
    group = Group.TIME
    path = "/proc/timer_list"
    pages = ("proc_timer_list(5)",)
    because = "/proc/timer_list is masked"
    expected = expectations(
        bare=SHARED_READ[0],
        container=expect(Answer.NO, because="/proc/timer_list is masked"),
        own_kernel=SHARED_READ[1],
        bubblewrap=UNMASKED,
        nspawn=SHOWN,
    )


class Pressure(Readable):
    """/proc/pressure/cpu: for how long anybody on the machine had to wait for a processor."""

    id = "pressure"
    question = "Can it watch what the host waits for?"
    group = Group.TIME
    mechanism = Mechanism.NONE
    path = "/proc/pressure/cpu"
    expected = expectations(
        bare=SHARED_READ[0],
        container=expect(Answer.YES, because="no namespace covers it, and the file is open to all"),
        own_kernel=SHARED_READ[1],
    )
    pages = ("proc(5)",)


class Energy(Privilege):
    """The processor's energy counter (RAPL) opened for reading, and not read: power tells what is computed
    (CVE-2020-8694).
    """

    id = "energy"
    question = "Can it measure the processor's power?"
    group = Group.TIME
    mechanism = Mechanism.MASKED
    severity = Severity.LEAK
    line = "open /sys/class/powercap/intel-rapl:0/energy_uj read"
    allowed = frozenset({""})
    pages = ("sysfs(5)",)
    expected = expectations(
        bare=SHARED_READ[0],
        container=expect(Answer.NO, because="/sys/devices/virtual/powercap is masked"),
        own_kernel=expect(Answer.NO, because="the virtual machine has no such counter"),
        bubblewrap=NO_SYS,
    )


class SharedCaches(Readable):
    """Which processors share the last cache, in /sys: whom one would evict, and be evicted by."""

    id = "cache-topology"
    question = "Does it see who shares the host's last cache?"
    group = Group.TIME
    mechanism = Mechanism.NONE
    severity = Severity.INFORMATION
    path = "/sys/devices/system/cpu/cpu0/cache/index3/shared_cpu_list"
    pages = ("sysfs(5)", "lscpu(1)")
    expected = expectations(
        bare=expect(Answer.YES, because="/sys is the host’s"),
        container=expect(Answer.YES, because="/sys is read-only, but shows the host's hardware"),
        own_kernel=expect(Answer.GUEST, Answer.NO, because="it sees the virtual processor's caches, if it shows any"),
        bubblewrap=NO_SYS,
    )


class SamePages(Readable):
    """Whether the settings of kernel samepage merging can be read. Where it merges, the time that a write takes tells
    whether somebody else has an equal page. Who is merged must have asked for it (madvise(2), MADV_MERGEABLE), as
    a VMM does for its guest: nothing inside a guest shows that.
    """

    id = "same-page-merging"
    question = "Does it see whether the host merges equal pages?"
    group = Group.TIME
    mechanism = Mechanism.NONE
    severity = Severity.INFORMATION
    path = "/sys/kernel/mm/ksm/run"
    pages = ("madvise(2)", "sysfs(5)")
    expected = expectations(
        bare=SHARED_READ[0],
        container=expect(Answer.YES, because="/sys is read-only, but shows the kernel's settings"),
        own_kernel=SHARED_READ[1],
        bubblewrap=NO_SYS,
    )
