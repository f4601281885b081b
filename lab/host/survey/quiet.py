"""How quiet the host is at this moment: what else runs on it, what its hypervisor takes, how fast its clock is.

Read from /proc and /sys in less than a millisecond. What this kernel does not offer is None, never guessed.
"""

from __future__ import annotations

import os
import re
import statistics
from dataclasses import dataclass
from pathlib import Path

from lab.host.clock import now
from lab.host.survey.facts import parse_pressure

PRESSURES = ("cpu", "memory", "io")


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuTimes:
    """Seconds since boot, added up over all processors (proc(5), /proc/stat)."""

    busy_seconds: float
    idle_seconds: float
    stolen_seconds: float

    @property
    def total_seconds(self) -> float:
        """All of the time that there was."""
        return self.busy_seconds + self.idle_seconds + self.stolen_seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One look. ``pressure``: the share of the last 10 s in which some task waited for the resource, from 0 to 1."""

    at: float  # CLOCK_MONOTONIC, seconds
    cpu: CpuTimes | None
    pressure: dict[str, float]
    load_average: float | None  # over the last minute
    frequency_hertz: float | None  # mean over the processors

    def stolen_since(self, before: Reading) -> float | None:
        """The share of all processors' time that the hypervisor below gave to others; None when it can't be told."""
        if self.cpu is None or before.cpu is None:
            return None
        total = self.cpu.total_seconds - before.cpu.total_seconds
        return (self.cpu.stolen_seconds - before.cpu.stolen_seconds) / total if total > 0 else None

    def busy_since(self, before: Reading) -> float | None:
        """How many processors were busy on average, whoever kept them so; None when it can't be told."""
        if self.cpu is None or before.cpu is None or self.at <= before.at:
            return None
        return (self.cpu.busy_seconds - before.cpu.busy_seconds) / (self.at - before.at)


def read(root: Path = Path("/")) -> Reading:
    """Look once. ``root`` is the tree in which proc and sys are looked up."""
    pressure = {name: parse_pressure(_text(root / "proc/pressure" / name)) for name in PRESSURES}
    load = _text(root / "proc/loadavg").split()
    return Reading(
        at=now(),
        cpu=parse_cpu_times(_text(root / "proc/stat")),
        pressure={name: percent / 100 for name, percent in pressure.items() if percent is not None},
        load_average=float(load[0]) if load else None,
        frequency_hertz=frequency(root),
    )


def parse_cpu_times(text: str) -> CpuTimes | None:
    """The first line of /proc/stat. Guests' time is part of user's and is not added again."""
    words = text.split("\n", 1)[0].split()
    if len(words) < 9 or words[0] != "cpu":
        return None
    user, nice, system, idle, waiting, interrupts, soft, stolen = (
        int(word) / os.sysconf("SC_CLK_TCK") for word in words[1:9]
    )
    return CpuTimes(
        busy_seconds=user + nice + system + interrupts + soft,
        idle_seconds=idle + waiting,
        stolen_seconds=stolen,
    )


def frequency(root: Path = Path("/")) -> float | None:
    """The processors' mean clock in hertz: cpufreq's where it is, else /proc/cpuinfo's, nominal in many a guest."""
    scaling = (root / "sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq/scaling_cur_freq")
    found = [1e3 * float(text) for path in scaling if (text := _text(path).strip()).isdecimal()]
    if not found:
        said = re.findall(r"^cpu MHz\s*:\s*([\d.]+)", _text(root / "proc/cpuinfo"), re.MULTILINE)
        found = [1e6 * float(number) for number in said]
    return statistics.fmean(found) if found else None


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace")
    except OSError:
        return ""
