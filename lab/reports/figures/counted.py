"""How many answers of each class: what the bars of counts are made of. One polarity: what reaches the host comes
first.
"""

from __future__ import annotations

from collections.abc import Sequence

from lab.reports import style
from lab.reports.answers import WORDS, Probe
from lab.reports.charts import Data
from lab.reports.material import stamp
from lab.results.record import Arm

ORDER = ("open", "own", "closed", "unknown")
"""Of the parts of a bar."""
MOST_NAMED = 6


def parts_of(probes: Sequence[Probe], arm: Arm) -> list[Data]:
    """A part for each class that was answered, with the questions behind it."""
    found = []
    for reach in ORDER:
        those = [probe for probe in probes if arm.label in probe.cells and probe.cells[arm.label].reach == reach]
        if those:
            fill, ink, symbol = style.REACH[reach]
            named = [probe.question for probe in those[:MOST_NAMED]]
            more = [f"and {len(those) - MOST_NAMED} more"] if len(those) > MOST_NAMED else []
            tip = [
                f"{arm.label} · {stamp(arm)}",
                f"{WORDS[reach]}: {len(those)} of {len(probes)} questions",
                *named,
                *more,
            ]
            found.append(
                {"value": len(those), "reach": reach, "fill": fill, "ink": ink, "symbol": symbol, "tip": tip}
            )
    return found


def in_words(parts: Sequence[Data]) -> str:
    """``75 reach the host``; what is counted first."""
    count = sum(part["value"] for part in parts if part["reach"] == "open")
    return f"{count or 'none'} reach{'es' * (count < 2)} the host" if parts else "not asked"
