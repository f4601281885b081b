"""How fast this host's time stamp counter runs.

An emulated CPU shows the guest the host's counter. A guest without ACPI's timers can only find out its speed
by counting against an interrupt timer, fails now and then when the host is busy, and then hangs: the local
APIC's timer is calibrated against a clock nobody drives (calibrate_APIC_clock() in arch/x86/kernel/apic/apic.c).
So lab tells it (tsc_early_khz=, Documentation/admin-guide/kernel-parameters.txt).

It also lets the guest trust that counter (tsc=reliable, there). A machine without ACPI's timers can check it by its
own count of timer interrupts alone, of which it misses some while QEMU waits for a processor. Then it would take the
counter for the one that is wrong, and tell the time by what interrupts come: a third too slowly, as measured
(clocksource_watchdog() in kernel/time/clocksource.c).
"""

from __future__ import annotations

import ctypes
import mmap
import platform
import time
from collections.abc import Callable
from functools import cache

MEASURE_SECONDS = 0.02
TRIES = 16  # at both ends: of readings between which lab had to wait for a processor one is hardly ever the quickest
RDTSC = bytes.fromhex("0f31 48c1e220 4809d0 c3")  # rdtsc; shl rdx, 32; or rax, rdx; ret


@cache
def tsc_khz() -> int | None:
    """The counter's frequency against CLOCK_MONOTONIC, within 0.01 %, on a busy host too; None on a host that isn't
    x86-64.
    """
    if platform.machine() != "x86_64":
        return None
    with mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC) as page:
        page.write(RDTSC)
        anchor = ctypes.c_char.from_buffer(page)
        read = ctypes.CFUNCTYPE(ctypes.c_uint64)(ctypes.addressof(anchor))
        began, first = read_together(read)
        time.sleep(MEASURE_SECONDS)
        ended, last = read_together(read)
        del read, anchor  # a page with a view into it can't be closed
    return round((last - first) * 1_000_000 / (ended - began))


def read_together(counter: Callable[[], int]) -> tuple[float, int]:
    """A moment in nanoseconds, and what the counter was then: the quickest of several readings, since the guest's
    clock would be as wrong as whatever came between the two.
    """
    readings = []
    for _ in range(TRIES):
        before = time.monotonic_ns()
        count = counter()
        took = time.monotonic_ns() - before
        readings.append((took, before + took / 2, count))
    return min(readings)[1:]
