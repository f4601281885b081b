"""How fast this host's time stamp counter runs.

An emulated CPU shows the guest the host's counter. A guest without ACPI's timers can only find out its speed
by counting against an interrupt timer, fails now and then when the host is busy, and then hangs: the local
APIC's timer is calibrated against a clock nobody drives (calibrate_APIC_clock() in arch/x86/kernel/apic/apic.c).
So lab tells it (tsc_early_khz=, Documentation/admin-guide/kernel-parameters.txt).
"""

from __future__ import annotations

import ctypes
import mmap
import platform
import time
from functools import cache

MEASURE_SECONDS = 0.02
RDTSC = bytes.fromhex("0f31 48c1e220 4809d0 c3")  # rdtsc; shl rdx, 32; or rax, rdx; ret


@cache
def tsc_khz() -> int | None:
    """The counter's frequency against CLOCK_MONOTONIC, within 0.01 %; None on a host that isn't x86-64."""
    if platform.machine() != "x86_64":
        return None
    with mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC) as page:
        page.write(RDTSC)
        anchor = ctypes.c_char.from_buffer(page)
        read = ctypes.CFUNCTYPE(ctypes.c_uint64)(ctypes.addressof(anchor))
        began, first = time.monotonic_ns(), int(read())
        time.sleep(MEASURE_SECONDS)
        ended, last = time.monotonic_ns(), int(read())
        del anchor  # a page with a view into it can't be closed
    return round((last - first) * 1_000_000 / (ended - began))
