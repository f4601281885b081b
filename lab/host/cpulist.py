"""Lists of CPUs as the kernel writes them, like ``0-3,8`` (cpuset(7), "List format"). Imports nothing."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

MOST = 8192  # NR_CPUS of arch/x86/Kconfig at its largest


def numbers(text: str) -> list[int]:
    """What a list names, in its order. Raises ValueError, also for a number that no kernel gives a CPU."""
    found: list[int] = []
    for part in filter(None, text.strip().split(",")):
        first, _, last = part.partition("-")
        if int(last or first) >= MOST:
            raise ValueError(f"there is no CPU {last or first}")
        found += range(int(first), int(last or first) + 1)
    return found


def listed(cpus: Iterable[int]) -> str:
    """The shortest list that names ``cpus``."""
    ranges: list[list[int]] = []
    for cpu in sorted(cpus):
        if ranges and cpu == ranges[-1][1] + 1:
            ranges[-1][1] = cpu
        else:
            ranges.append([cpu, cpu])
    return ",".join(f"{first}" if first == last else f"{first}-{last}" for first, last in ranges)
