"""The figures of factors as data for the page's script: see `lab.reports.charts`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lab.analysis.cubes import Cube
from lab.analysis.estimate import MARGIN
from lab.analysis.factors import EVERY
from lab.analysis.judge import WITHIN
from lab.analysis.quantities import format_ratio, format_value
from lab.reports import factors as words
from lab.reports.charts import Chart, Data, Panel, whose
from lab.reports.factors import Record, between, chance, interacting_with, shown, subject
from lab.reports.figures.factors import LINES, MARKERS, claimed, reach_of, ticks_of
from lab.reports.material import Material, stamp
from lab.results.record import Arm


@dataclass(frozen=True, slots=True)
class _Of:
    """What one panel is of: a factor's levels, and the quantity that they act on."""

    material: Material
    quantity: str
    state: str
    factor: str
    rows: Sequence[Record]

    @property
    def name(self) -> str:
        return subject(self.material, self.quantity, self.state)


def main_effects(material: Material) -> Chart:
    """A panel per headline quantity and factor, a row per backend and level."""
    mains = [row for row in words.records(material) if not row["other"]]
    panels = []
    for quantity, state in shown(material):
        for factor in dict.fromkeys(row["factor"] for row in mains):
            rows = [
                row for row in mains if (row["quantity"], row["state"], row["factor"]) == (quantity, state, factor)
            ]
            if rows:
                panels.append(_panel(_Of(material, quantity, state, factor, rows)))
    return Chart(
        title="What each factor does",
        how="Ratio to the factor's first level, averaged over the others, with its 95 % interval. Filled marks are "
        f"claimed, hollow ones are not; grey is the same within {WITHIN}.",
        panels=tuple(panels),
    )


def _panel(of: _Of) -> Panel:
    singles = [row for row in of.rows if row["level"] != EVERY]
    reach = reach_of(singles)
    against = list(dict.fromkeys(row["against"] for row in singles))
    return Panel(
        kind="effects", title=f"{of.factor} on {of.name}", unit="1",
        axis=f"÷ {against[0] if len(against) == 1 else 'the first level'}",
        ticks=tuple(f"{tick:g}" for tick in ticks_of(reach)), reach=reach, band=MARGIN,
        rows=tuple(_row(of, row, several=len({each["level"] for each in singles}) > 1) for row in singles),
    )  # fmt: skip


def _row(of: _Of, row: Record, *, several: bool) -> Data:
    arm = _arm(of.material, row["backend"])
    named = (
        {"label": f"{row['backend']} {row['level']}", "name": row["level"], "stamp": row["backend"]}
        if several
        else {}
    )
    ends = [end if math.isfinite(end) and end > 0 else None for end in (row["low"], row["high"])]
    ratio = None if math.isnan(row["ratio"]) else row["ratio"]
    return whose(arm) | named | {
        "value": ratio, "low": ends[0], "high": ends[1], "claim": row["claim"],
        "text": "" if ratio is None else format_ratio(ratio), "note": between(row), "tip": _tip(of, arm, row),
    }  # fmt: skip


def _tip(of: _Of, arm: Arm, row: Record) -> list[str]:
    """What an effect answers: how large, how sure, on what it depends, and whether the levels differ at all."""
    lines = [
        f"{arm.label} · {stamp(arm)}",
        f"{of.name}, {row['factor']} {row['level']} ÷ {row['against']}: {format_ratio(row['ratio'])}",
        "no interval" if math.isnan(row["low"]) else f"95 % interval: {between(row)}",
        f"n = {row['n']} blocks" + (f", {row['censored']} failed" if row["censored"] else ""),
        "claimed" if row["claim"] else words.told(row),
    ]
    if depends := interacting_with(of.material, row):
        lines.append(f"depends on {', '.join(depends)}: an average over what differs")
    return lines + [
        f"all levels together: {chance(each)}" + (", they differ" if each["claim"] else "")
        for each in of.rows
        if each["level"] == EVERY and each["backend"] == row["backend"]
    ]


def interactions(material: Material) -> Chart:
    """A panel per claimed interaction, a line per level of the one factor over the levels of the other."""
    return Chart(
        title="Where factors interact",
        how="Geometric means over blocks and the other factors. Parallel lines would be effects that multiply.",
        panels=tuple(_crossing(material, cube, one, two) for cube, one, two in claimed(material)),
    )


def _crossing(material: Material, cube: Cube, one: int, two: int) -> Panel:
    (name, levels), (other, other_levels) = cube.factors[one], cube.factors[two]
    arm, name_of = _arm(material, cube.backend), subject(material, cube.quantity, cube.state)
    rows = []
    for index, (level, values) in enumerate(zip(levels, cube.means(one, two), strict=True)):
        colour = LINES[index % len(LINES)]
        points = [
            {
                "at": at, "value": float(value),
                "tip": [
                    f"{arm.label} · {stamp(arm)}",
                    f"{name_of}, {name}={level}, {other}={other_levels[at]}: {format_value(float(value), cube.unit)}",
                ],
            }
            for at, value in enumerate(values)
            if math.isfinite(value)
        ]  # fmt: skip
        look = {"fill": colour, "ink": colour, "marker": MARKERS[index % len(MARKERS)], "striped": False}
        if points:
            rows.append(whose(arm) | {"text": f"{name}={level}", "look": look, "points": points})
    return Panel(
        kind="lines", title=f"{name_of} of {cube.backend}", unit=cube.unit, axis="", rows=tuple(rows),
        ticks=tuple(f"{other}={level}" for level in other_levels), logarithmic=True,
    )  # fmt: skip


def _arm(material: Material, backend: str) -> Arm:
    return next(arm for arm in material.arms if arm.backend == backend)
