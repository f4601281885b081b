"""What each quantity is called, what it means, and how its values are written."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from importlib.resources import files


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantity:
    """A quantity's name for people, its definition in a line, and its samples' unit; ``key`` ones have figures and
    checks of their own.

    ``headline`` names the states in which it belongs to the declared family of `lab.analysis.inference.judge`; "" is
    none.
    """

    name: str
    label: str
    definition: str
    unit: str
    key: bool = False
    headline: tuple[str, ...] = ()


def _read() -> dict[str, Quantity]:
    raw = tomllib.loads(files("lab.analysis").joinpath("quantities.toml").read_text(encoding="utf-8"))
    return {
        name: Quantity(name=name, **{**entry, "headline": tuple(entry.get("headline", ()))})
        for name, entry in raw.items()
    }


QUANTITIES = _read()
SEGMENTS = tuple(name for name in QUANTITIES if name.startswith("boot.") and name not in ("boot.total", "boot.read"))
KEY = tuple(name for name, quantity in QUANTITIES.items() if quantity.key)


def is_key(name: str) -> bool:
    """Whether a quantity is shown in comparisons and checked for noise; a scenario's own figures all are."""
    return name in KEY or name.startswith("work.")


def is_headline(name: str, state: str = "") -> bool:
    """Whether a quantity belongs, in that state, to the declared family: see `lab.analysis.inference.judge`."""
    return name in QUANTITIES and state in QUANTITIES[name].headline


RATES = ("load.requests_per_second", "openloop.rate")
"""Of which more is better."""


def more_is_better(name: str, wanted: Collection[str] = ()) -> bool:
    """Whether more of it is better; ``wanted`` names those of a scenario's own work."""
    return name in RATES or name in wanted


def is_directed(name: str, wanted: Collection[str] = ()) -> bool:
    """Whether less (or more) of it is better, so that an instance that died has to count as the worst."""
    directed = ("boot.", "teardown.", "cpu.", "load.", "work.", "crossings.", "debt.", "openloop.")
    return name.startswith(directed) or more_is_better(name, wanted)


def label(name: str) -> str:
    """The quantity's name for people; a scenario's own figure is called by the words of its name."""
    if name in QUANTITIES:
        return QUANTITIES[name].label
    return name.removeprefix("work.").replace("_", " ") if name.startswith("work.") else name


def preferred(unit: str) -> int:
    """-1 where less is better (time, memory), 1 where more is (a rate), 0 where nobody says."""
    if unit in ("seconds", "bytes", "seconds/s"):
        return -1
    return 1 if unit.endswith("/s") or unit == "hertz" else 0


def format_value(value: float, unit: str, digits: int = 3) -> str:
    """A value with its unit, in the prefix that reads best, ``digits`` significant digits: ``12.3 MiB``.

    A dash where there is no number.
    """
    if value is None or math.isnan(value):
        return "–"
    if unit == "seconds/s":
        return f"{format_value(value, 'seconds', digits)}/s"
    if unit == "seconds":
        return _scaled(value, ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns")), digits)
    if unit == "hertz":
        return _scaled(value, ((1e9, "GHz"), (1e6, "MHz"), (1.0, "Hz")), digits)
    if unit == "bytes/s":
        return f"{format_value(value, 'bytes', digits)}/s"
    if unit == "bytes" and abs(value) < 1024.0:
        return f"{value:.0f} B"  # there is no part of a byte
    if unit == "bytes":
        return _scaled(value, ((1024.0**3, "GiB"), (1024.0**2, "MiB"), (1024.0, "KiB"), (1.0, "B")), digits)
    number = _significant(value, digits)
    return number if unit in ("1", "") else f"{number} {unit}"


def format_interval(low: float, high: float, unit: str) -> str:
    """``12.1–12.9 s``: both ends in the prefix of the upper one."""
    if math.isnan(low) or math.isnan(high):
        return "–"
    first, last = _apart(low, high, lambda value, digits: format_value(value, unit, digits), 3)
    number, _, prefix = first.partition(" ")
    return f"{number}–{last}" if prefix == last.partition(" ")[2] else f"{first} – {last}"


def format_ratio(ratio: float) -> str:
    """``1.07 ×`` near one, ``83 ×`` far from it; a dash where there is no ratio."""
    if math.isnan(ratio):
        return "–"
    return f"{_ratio(ratio)} ×"


def format_ratios(low: float, high: float) -> str:
    """``0.95–1.12 ×``, with as many digits as tell the ends apart; "" where there is no interval."""
    if math.isnan(low) or math.isnan(high):
        return ""
    first, last = _apart(low, high, _ratio, 0)
    return f"{first}–{last} ×"


def _apart(low: float, high: float, write: Callable[[float, int], str], digits: int) -> tuple[str, str]:
    """Both ends as ``write`` has them, with a few more than ``digits`` where they would read the same."""
    for more in range(digits, digits + 3):
        first, last = write(low, more), write(high, more)
        if first != last or low == high:
            break
    return first, last


def _ratio(ratio: float, more: int = 0) -> str:
    if math.isinf(ratio):
        return "∞"
    return _significant(ratio, more + (2 if ratio >= 10 or ratio < 0.1 else 3))


def _scaled(value: float, units: tuple[tuple[float, str], ...], digits: int) -> str:
    if value == 0:
        return f"0 {units[0][1]}"
    for factor, prefix in units:
        # 0.9995 of a unit would be written as 1000 of the next smaller one
        if abs(value) >= factor * (1 - 0.5 * 10**-digits):
            return f"{_significant(value / factor, digits)} {prefix}"
    factor, prefix = units[-1]
    return f"{_significant(value / factor, digits)} {prefix}"


def _significant(value: float, digits: int) -> str:
    if value == 0:
        return "0"
    places = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    rounded = round(value, places)
    if rounded and math.floor(math.log10(abs(rounded))) > math.floor(math.log10(abs(value))):
        places = max(0, places - 1)
    return f"{rounded:,.{places}f}" if places < 12 else f"{value:.{digits}g}"


def some(texts: Sequence[str], most: int = 4) -> str:
    """``texts`` in a sentence; how many more where there are too many."""
    shown = texts[:most]
    if len(texts) > most:
        return f"{', '.join(shown)} and {len(texts) - most} more"
    return " and ".join([", ".join(shown[:-1]), shown[-1]]) if len(shown) > 1 else shown[0]
