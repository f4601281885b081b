"""Sizes and CPU counts as people write them on a command line or in scenario.toml."""

from __future__ import annotations

import math
import re

from lab.errors import UsageError

_SIZE = re.compile(r"(?P<number>\d+(\.\d+)?)\s*(?P<unit>[kmgt]?)(i?b)?", re.IGNORECASE)
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
MIB = 1024 * 1024


def parse_words(text: str) -> list[str]:
    """The words of ``a, b,c``; of nothing there are none."""
    return [word for each in text.split(",") if (word := each.strip())]


def parse_bytes(text: str) -> int:
    """``256M``, ``256MiB``, ``1.5g`` or ``4096`` as bytes; units are powers of 1024, as Docker reads them.

    Raises UsageError for anything else, for zero and for less than one byte.
    """
    match = _SIZE.fullmatch(text.strip())
    if not match:
        raise UsageError(f"{text!r} is not a size", hint="write a number and K, M, G or T, for example 256M")
    power = _POWERS[match["unit"].lower()]
    # int first: a float has 53 bits, and a size written without a point should come back exactly.
    number = match["number"]
    size = int(float(number) * 1024**power) if "." in number else int(number) * 1024**power
    if size <= 0:
        raise UsageError(f"a size of {text!r} is not above zero", hint="write for example 256M")
    return size


MOST_CPUS = 8192  # NR_CPUS on x86-64: no kernel has more
LEAST_CPUS = 0.01  # 1 ms in each 100 ms is the smallest quota that the kernel takes (kernel/sched/core.c)


def parse_cpus(text: str) -> float:
    """``1``, ``0.5`` or ``2.25`` CPUs. Raises UsageError for any other text, and for what no kernel grants."""
    try:
        cpus = float(text)
    except ValueError:
        cpus = math.nan
    if not math.isfinite(cpus) or cpus <= 0:
        raise UsageError(f"{text!r} is not a number of CPUs", hint="write for example 1 or 0.5")
    if not LEAST_CPUS <= cpus <= MOST_CPUS:
        hint = f"write a number from {LEAST_CPUS:g} to {MOST_CPUS}, for example 1 or 0.5"
        raise UsageError(f"{text!r} CPUs is more or less than a kernel can grant", hint=hint)
    return cpus


def parse_share(text: str) -> float:
    """``5%`` or ``0.05`` as 0.05. Raises UsageError for anything that is not above zero and below one."""
    number = text.strip()
    try:
        share = float(number[:-1]) / 100 if number.endswith("%") else float(number)
    except ValueError:
        share = math.nan
    if not 0 < share < 1:
        raise UsageError(f"{text!r} is not a share", hint="write for example 5% or 0.05")
    return share


def format_bytes(size_bytes: float) -> str:
    """``268435456`` as ``256 MiB``: at most one decimal place, none when it would be zero."""
    value, units = float(size_bytes), ["B", "KiB", "MiB", "GiB", "TiB"]
    unit = units.pop(0)
    while abs(value) >= 1024 and units:
        value, unit = value / 1024, units.pop(0)
    return f"{value:.1f}".removesuffix(".0") + f" {unit}"


_DURATION = re.compile(r"(?:(?P<h>\d+(?:\.\d+)?)h)?(?:(?P<m>\d+(?:\.\d+)?)m)?(?:(?P<s>\d+(?:\.\d+)?)s?)?")


def parse_seconds(text: str) -> float:
    """``5m``, ``90s``, ``1h30m`` or ``45`` (seconds) as seconds. Raises UsageError for anything else and for zero."""
    match = _DURATION.fullmatch(text.strip().lower())
    parts = {unit: float(number) for unit, number in match.groupdict().items() if number} if match else {}
    seconds = parts.get("h", 0) * 3600 + parts.get("m", 0) * 60 + parts.get("s", 0)
    if seconds <= 0:
        raise UsageError(f"{text!r} is not a duration", hint="write for example 5m, 90s or 1h30m")
    return seconds


def format_seconds(seconds: float) -> str:
    """``45 s``, ``12 min``, ``1.5 h``: about how long something takes, for people who wait for it."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"
