"""What each quantity is called, what it means, and how its values are written."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantity:
    """A quantity's name for people and its definition in a line; ``key`` ones are checked and compared."""

    name: str
    label: str
    definition: str
    key: bool = False


def _read() -> dict[str, Quantity]:
    raw = tomllib.loads(files("lab.analysis").joinpath("quantities.toml").read_text(encoding="utf-8"))
    return {name: Quantity(name=name, **entry) for name, entry in raw.items()}


QUANTITIES = _read()
SEGMENTS = tuple(name for name in QUANTITIES if name.startswith("boot.") and name not in ("boot.total", "boot.read"))
KEY = tuple(name for name, quantity in QUANTITIES.items() if quantity.key)


def is_key(name: str) -> bool:
    """Whether a quantity is checked for noise and compared; a scenario's own figures all are."""
    return name in KEY or name.startswith("work.")


def label(name: str) -> str:
    """The quantity's name for people; a scenario's own figure is called by the words of its name."""
    if name in QUANTITIES:
        return QUANTITIES[name].label
    return name.removeprefix("work.").replace("_", " ") if name.startswith("work.") else name


def format_value(value: float, unit: str, digits: int = 3) -> str:
    """A value with its unit, in the prefix that reads best, ``digits`` significant digits: ``12.3 MiB``.

    A dash where there is no number.
    """
    if value is None or math.isnan(value):
        return "–"
    if unit == "seconds/s":
        return f"{format_value(value, 'seconds', digits)}/s"
    if unit == "seconds":
        return _scaled(value, ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")), digits)
    if unit == "hertz":
        return _scaled(value, ((1e9, "GHz"), (1e6, "MHz"), (1.0, "Hz")), digits)
    if unit == "bytes/s":
        return f"{format_value(value, 'bytes', digits)}/s"
    if unit == "bytes" and value == 0:
        return "0 B"
    if unit == "bytes":
        return _scaled(value, ((1024.0**3, "GiB"), (1024.0**2, "MiB"), (1024.0, "KiB"), (1.0, "B")), digits)
    number = _significant(value, digits)
    return number if unit in ("1", "") else f"{number} {unit}"


def format_interval(low: float, high: float, unit: str) -> str:
    """``12.1–12.9 s``: both ends in the prefix of the upper one."""
    if math.isnan(low) or math.isnan(high):
        return "–"
    first, last = format_value(low, unit), format_value(high, unit)
    number, _, prefix = first.partition(" ")
    return f"{number}–{last}" if prefix == last.partition(" ")[2] else f"{first} – {last}"


def format_ratio(ratio: float) -> str:
    """``1.07 ×`` near one, ``83 ×`` far from it; a dash where there is no ratio."""
    if math.isnan(ratio):
        return "–"
    return f"{_significant(ratio, 2 if ratio >= 10 or ratio < 0.1 else 3)} ×"


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
