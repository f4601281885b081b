"""Factors: what each level does to each backend, and where two of them don't simply multiply."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from lab.analysis.factors.cubes import Cube
from lab.analysis.factors.effects import BACKEND, EVERY
from lab.analysis.inference.estimate import MARGIN
from lab.analysis.inference.judge import WITHIN
from lab.analysis.quantities import format_ratio, format_value
from lab.reports.charts import Chart, Data, Panel, whose
from lab.reports.material import Material, stamp
from lab.reports.words import factors as words
from lab.reports.words.factors import Effect, between, chance, interacting_with, shown, subject
from lab.results.record import Arm

MOST_PICTURES = 4
NARROWEST = 1.25
"""However small the effects, an axis reaches so far from 1: noise shall not look like a landslide."""
LINES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#6e6e6e", "#e69f00")
MARKERS = "osD^vP"

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _Of:
    """What one panel is of: a factor's levels, and the quantity that they act on."""

    material: Material
    quantity: str
    state: str
    factor: str
    rows: Sequence[Effect]

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
        how=f"ratio to the first level, averaged over the others · filled: claimed · grey: the same within {WITHIN}",
        panels=tuple(panels), columns=min(2, max(1, len(panels))),
        alt="Main effects of the factors. " + " ".join(
            _sentence(material, row) for row in mains if row["level"] != EVERY
        ),
    )  # fmt: skip


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


def _row(of: _Of, row: Effect, *, several: bool) -> Data:
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


def _tip(of: _Of, arm: Arm, row: Effect) -> list[str]:
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
    found = claimed(material)
    return Chart(
        title="Where factors interact",
        how="geometric means over blocks and the other factors · parallel lines would be effects that multiply",
        panels=tuple(_crossing(material, cube, one, two) for cube, one, two in found),
        columns=min(2, max(1, len(found))),
        alt="Interactions. " + " ".join(
            f"{cube.factors[one][0]} and {cube.factors[two][0]} on {subject(material, cube.quantity, cube.state)} of "
            f"{cube.backend}: {_means_in_words(cube, one, two)}."
            for cube, one, two in found
        ),
    )  # fmt: skip


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
        look = {"fill": colour, "ink": colour, "marker": MARKERS[index % len(MARKERS)]}
        if points:
            rows.append(whose(arm) | {"text": f"{name}={level}", "look": look, "points": points})
    return Panel(
        kind="lines", title=f"{name_of} of {cube.backend}", unit=cube.unit, axis="", rows=tuple(rows),
        ticks=tuple(f"{other}={level}" for level in other_levels),
    )  # fmt: skip


def ticks_of(reach: float) -> tuple[float, ...]:
    """A few round ratios for an axis that goes so far from 1."""
    if reach < 2:
        return (0.8, 1.0, 1.25) if reach < 1.5 else (0.6, 1.0, 1.6)
    return (0.25, 0.5, 1.0, 2.0, 4.0) if reach < 8 else (0.01, 0.1, 1.0, 10.0, 100.0)


def reach_of(effects: Sequence[Row]) -> float:
    """How far from 1 an axis goes that shows all of them."""
    return max(NARROWEST, *(_reach(row) for row in effects))


def _reach(row: Row) -> float:
    """How far from 1 its interval goes, at most four times as far as the effect itself."""
    ratio = max(row["ratio"], 1 / row["ratio"]) if row["ratio"] > 0 else 1.0
    ends = [max(end, 1 / end) for end in (row["low"], row["high"]) if end > 0 and math.isfinite(end)]
    return float(min(max([ratio, *ends]), max(4.0, ratio**2)))


def claimed(material: Material) -> list[tuple[Cube, int, int]]:
    """The cubes in which two factors surely interact, and which two, the surest first."""
    table = material.effects
    sure = table[table["claim"] & (table["other"] != "") & (table["other"] != BACKEND)].sort_values("adjusted")
    found: dict[tuple[str, str, str, int, int], tuple[Cube, int, int]] = {}
    for row in _records(sure):
        for cube in material.cubes:
            if (cube.backend, cube.quantity, cube.state) == (row["backend"], row["quantity"], row["state"]):
                names = [name for name, _ in cube.factors]
                pair = names.index(row["factor"]), names.index(row["other"])
                found.setdefault((cube.backend, cube.quantity, cube.state, *pair), (cube, *pair))
    return list(found.values())[:MOST_PICTURES]


def _means_in_words(cube: Cube, one: int, two: int) -> str:
    (name, levels), (other, other_levels) = cube.factors[one], cube.factors[two]
    table = cube.means(one, two)
    return ", ".join(
        f"{name}={level} with {other}={other_level} {format_value(float(table[row, column]), cube.unit)}"
        for row, level in enumerate(levels)
        for column, other_level in enumerate(other_levels)
    )


def effects_data(material: Material) -> str:
    """Every effect, those of interactions among them, as CSV."""
    return str(material.effects.to_csv(index=False))


def interactions_data(material: Material) -> str:
    """The means that are drawn, as CSV."""
    rows = [
        {
            "backend": cube.backend, "quantity": cube.quantity, "state": cube.state, "factor": cube.factors[one][0],
            "level": level, "other": cube.factors[two][0], "other_level": other_level,
            "value": cube.means(one, two)[row, column], "unit": cube.unit,
        }
        for cube, one, two in claimed(material)
        for row, level in enumerate(cube.factors[one][1])
        for column, other_level in enumerate(cube.factors[two][1])
    ]  # fmt: skip
    return str(pd.DataFrame(rows).to_csv(index=False))


def _records(table: pd.DataFrame) -> list[Row]:
    return [{str(key): value for key, value in row.items()} for row in table.to_dict("records")]


def _arm(material: Material, backend: str) -> Arm:
    return next(arm for arm in material.arms if arm.backend == backend)


def _sentence(material: Material, row: Row) -> str:
    sure = "" if row["claim"] else " (not claimed)"
    return (
        f"{row['factor']}={row['level']} on {subject(material, row['quantity'], row['state'])} of {row['backend']}: "
        f"{format_ratio(row['ratio'])}{sure}."
    )
