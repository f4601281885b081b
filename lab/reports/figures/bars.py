"""One panel of horizontal bars: a backend per row, value and interval written beside each bar."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lab.analysis.judge import WITHIN
from lab.analysis.quantities import format_interval, format_ratio, format_value
from lab.reports import style
from lab.reports.material import Material
from lab.results.record import Arm

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def panel(
    axes: Axes, material: Material, arms: Sequence[Arm], quantity: str, state: str = "", *, ratio: bool = False
) -> float:
    """Draw ``quantity`` of ``arms``, first row on top; returns the largest value drawn (0 when there is none).

    The bars start at zero and share one linear scale, so lengths may be compared. Below each value stands its
    interval and n or, with ``ratio``, how it compares with the baseline.
    """
    values = {arm.label: material.value(quantity, arm.label, state) for arm in arms}
    top = max((value.edge for value in values.values() if value is not None), default=0.0)
    for row, arm in enumerate(arms):
        value = values[arm.label]
        if value is None:
            axes.text(0, row, "  not measured", va="center", color=style.QUIET, fontsize=13)
            continue
        axes.barh(
            row, value.median, height=0.5, color=style.colour(arm), edgecolor=style.PAPER, hatch=style.hatch(arm),
            linewidth=0,
        )  # fmt: skip
        error = [[reach] for reach in value.whiskers]
        axes.errorbar(value.median, row, xerr=error, fmt="none", color=style.INK, capsize=5, linewidth=1.8)
        edge = value.edge
        text = f"  {format_value(value.median, value.unit)}"
        axes.text(edge, row - 0.01, text, va="bottom", fontsize=16, fontweight="bold")
        if ratio:
            below = compared(material, quantity, arm, state)
        else:
            interval = format_interval(value.low, value.high, value.unit)
            below = f"n = {value.n}" if interval == "–" else f"{interval} · n = {value.n}"
        axes.text(edge, row + 0.05, f"   {below}", va="top", fontsize=13 if ratio else 11.5, color=style.QUIET)
    axes.set_xlim(0, top * (2.1 if ratio else 1.95) if top > 0 else 1)
    return top


def compared(material: Material, quantity: str, arm: Arm, state: str = "") -> str:
    """How an arm compares with the baseline: ``78 × process``, ``the same within 5 %``, ``not proven``.

    ``paired`` stands where the ratio within blocks does not fit the two medians.
    """
    if arm.label == material.baseline:
        return "baseline"
    found, above = material.ratio(quantity, arm.label, state), material.value(quantity, arm.label, state)
    below = material.value(quantity, material.baseline, state)
    if found is None or above is None or below is None or math.isnan(found.ratio):
        return ""
    if found.claim:
        return f"{format_ratio(found.ratio)} {found.baseline}{'' if found.fits(above, below) else ', paired'}"
    return f"the same within {WITHIN}" if found.judged.is_proven else "not proven"
